// What the browser keeps: the passages with their vectors, and what was worked out from them.
//
// A passage is { id, source, place, text, vector, model }: the vector is an Int8Array, or missing as long as the passage
// is not embedded, and `model` says by which file.

import { openDB } from "./vendor/idb.js";

const AT_ONCE = 500;

const database = open();

async function open() {
  try {
    return await openDB("asterisk", 1, {
      upgrade(db) {
        db.createObjectStore("passages", { keyPath: "id", autoIncrement: true });
        db.createObjectStore("derived");
      },
    });
  } catch {
    throw new Error("This browser or window lets the page keep nothing; allow it to store data, or use another.");
  }
}

// Write records, all or none, some at a time, so that the page can answer in between.
async function write(records, writeOne) {
  const { store, done } = (await database).transaction("passages", "readwrite");
  const writeAll = async () => {
    for (let start = 0; start < records.length; start += AT_ONCE) {
      await Promise.all(records.slice(start, start + AT_ONCE).map((record) => writeOne(store, record)));
    }
  };
  await Promise.all([done, writeAll().catch(() => {})]); // where one fails, `done` says why
}

// Put the ids into the records.
export const addPassages = (records) =>
  write(records, async (store, record) => {
    record.id = await store.add(record);
  });

// Another tab may have deleted some: they stay away.
export const updatePassages = (records) =>
  write(records, async (store, record) => {
    if ((await store.getKey(record.id)) !== undefined) await store.put(record);
  });

export async function allPassages() {
  return (await database).getAll("passages");
}

export async function getDerived() {
  return (await database).get("derived", "groups");
}

export async function putDerived(value) {
  await (await database).put("derived", value, "groups");
}

export async function deleteAll() {
  const transaction = (await database).transaction(["passages", "derived"], "readwrite");
  await Promise.all([transaction.objectStore("passages").clear(), transaction.objectStore("derived").clear()]);
  await transaction.done;
}

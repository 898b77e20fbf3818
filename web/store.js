// What the browser keeps: the passages with their vectors, and what was worked out from them.
//
// A passage is { id, source, place, text, vector, model }: the vector is an Int8Array, or missing as long as the passage
// is not embedded, and `model` says by which file.

import { openDB } from "./vendor/idb.js";

const database = openDB("asterisk", 1, {
  upgrade(db) {
    db.createObjectStore("passages", { keyPath: "id", autoIncrement: true });
    db.createObjectStore("derived");
  },
});

// Write records, all or none, and put their ids into them.
async function write(records, method) {
  const transaction = (await database).transaction("passages", "readwrite");
  const ids = records.map((record) => transaction.store[method](record));
  const [, ...written] = await Promise.all([transaction.done, ...ids]);
  written.forEach((id, row) => {
    records[row].id = id;
  });
}

export const addPassages = (records) => write(records, "add");
export const updatePassages = (records) => write(records, "put");

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

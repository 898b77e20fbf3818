// The page: what its controls do. The work is done in the modules that it imports.

import { describe, hasGraphics, openModel, timeSentence, tryGraphics } from "./device.js";
import { embedPassages } from "./embedding.js";
import { cut } from "./linkage.js";
import { PassageMap, ZOOM } from "./map.js";
import { keepOffline } from "./offline.js";
import {
  byId,
  count,
  hideProgress,
  megabytes,
  showEmbedding,
  showGroups,
  showPassage,
  showProgress,
  showResults,
  showStock,
} from "./panels.js";
import { droppedFiles, isReadable, readFile, readPasted, Unreadable } from "./reading.js";
import { addPassages, allPassages, deleteAll, getDerived, putDerived } from "./store.js";
import { nearest } from "./vectors.js";
import { proxy, wrap } from "./vendor/comlink.mjs";

const RESULTS = 20;
const FEWEST_ON_MAP = 5;
const ADDED_AT_ONCE = 1000;
const COMPLAINTS = 5;
const FLOOR = Number(byId("threshold").min);
const modelHash = self.FILES["model/onnx/model_quantized.onnx"].hash;

const keyOf = ({ source, text }) => `${source}\n${text}`;

let passages = [];
let known = new Set(); // their keys: a text of a file is kept once
let embedded = []; // those of them that are grouped: a row of a group or of the map is a place in this list
let groups = [];
let derived; // { ids, links, places, model }
let current; // the model
let found = []; // by the search: { passage, cosine }
let stopping = new AbortController(); // of the job that runs and of those that wait
let working = Promise.resolve(); // additions and embedding, one after the other
let map;
const tabs = new BroadcastChannel("asterisk"); // says "changed" or "deleted" to the other tabs with this page

const say = (text) => {
  byId("status").textContent = text;
};

function complain(error) {
  end();
  say("");
  const full = error.name === "QuotaExceededError" || error.inner?.name === "QuotaExceededError";
  byId("error").textContent = full
    ? "The browser's storage is full; delete texts here, or free space on the device, and add the rest again."
    : error.message;
}

// Run a job behind those before it, with the signal that stops it; tell of its errors.
function queue(job) {
  const { signal } = stopping;
  working = working.then(() => job(signal)).catch(complain);
}

function stop() {
  stopping.abort();
  stopping = new AbortController();
}

const ready = start();
ready.catch(complain);

async function start() {
  await load();
  say("Loading the model.");
  const offline = await keepOffline(({ received, total }) => {
    byId("device-bytes").textContent = `${megabytes(received)} of ${megabytes(total)}`;
    // A newer version of the page may come while this one is in use.
    if (!current) showProgress("Loading the model", received / total, byId("device-bytes").textContent);
  });
  byId("device-offline").textContent = offline ? "works" : "does not work in this browser or window";
  if (byId("device-bytes").textContent === "0 MB") {
    byId("device-bytes").textContent = offline ? "0 MB: all was here already" : "not counted";
  }
  useModel(await openModel());
  hideProgress();
  byId("graphics").hidden = !(await hasGraphics());
  await restoreGroups();
}

async function load() {
  passages = await allPassages();
  known = new Set(passages.map(keyOf));
  for (const passage of passages) if (passage.model !== modelHash) delete passage.vector;
  showStock(passages);
}

// Another tab has added or deleted.
async function reload() {
  await ready;
  await load();
  grouping++;
  end();
  await restoreGroups();
  await search();
}

function useModel(opened) {
  current = opened.model;
  byId("device-runtime").textContent = describe(opened);
  timeSentence(current)
    .then((time) => {
      byId("device-sentence").textContent = `${time.toFixed(1)} ms`;
    })
    .catch(complain);
}

// Adding and embedding

async function add(read) {
  const added = read.filter((passage) => {
    const isNew = !known.has(keyOf(passage));
    known.add(keyOf(passage));
    return isNew;
  });
  try {
    await addPassages(added);
  } catch (error) {
    for (const passage of added) known.delete(keyOf(passage));
    throw error;
  }
  passages = passages.concat(added);
  navigator.storage?.persist?.();
  showStock(passages);
}

async function addFiles(files, signal) {
  byId("error").textContent = "";
  const visible = files.filter(({ name }) => !/(^|\/)\./.test(name));
  const readable = visible.filter(({ name }) => isReadable(name));
  const [other, ...others] = visible.filter(({ name }) => !isReadable(name)).map(({ name }) => name);
  say(`Reading ${count(readable.length, "file")}.`);
  const complaints = [];
  let read = [];
  for (const [at, file] of readable.entries()) {
    if (signal.aborted) break;
    showProgress("Reading", at / readable.length, file.name, true);
    try {
      read = read.concat(await readFile(file));
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      complaints.push(error.message);
    }
    if (read.length > ADDED_AT_ONCE) {
      await add(read);
      read = [];
    }
  }
  await add(read);
  if (other) {
    const names = others.length ? `${other} and ${count(others.length, "other file")}` : other;
    complaints.push(`${names}: not a kind of file that this page reads; left out`);
  }
  const more = complaints.splice(COMPLAINTS).length;
  if (more) complaints.push(`and ${count(more, "other file")}`);
  byId("error").textContent = complaints.join("\n");
  await embed(signal);
}

async function embed(signal) {
  hideProgress();
  tabs.postMessage("changed");
  await ready;
  const waiting = passages.filter(({ vector }) => !vector);
  if (!waiting.length) return say("Nothing new.");
  say(`Embedding ${count(waiting.length, "passage")}.`);
  showProgress("Embedding", 0, "", true);
  let all = false;
  try {
    all = await embedPassages(current, modelHash, waiting, showEmbedding, signal);
  } finally {
    hideProgress();
    showStock(passages);
  }
  search().catch(complain);
  group(all ? "Ready." : "Stopped; what is embedded is kept.")
    .then((done) => done && tabs.postMessage("changed"))
    .catch(complain);
}

// Groups and map

let grouping = 0;
let step = ""; // what runs now; the progress of what ran before may still arrive

function begin(label, turn) {
  step = label;
  say(`${label}.`);
  return proxy((share) => step === label && turn === grouping && showProgress(label, share));
}

function end() {
  step = "";
  hideProgress();
}

// Return whether it came to the end.
async function group(ending) {
  const turn = ++grouping; // a later call makes this one's result old
  const rows = passages.filter(({ vector }) => vector);
  if (rows.length < 2) {
    showDerived(rows, undefined);
    say(ending);
    return true;
  }
  const size = rows[0].vector.length;
  const vectors = new Int8Array(rows.length * size);
  rows.forEach(({ vector }, row) => {
    vectors.set(vector, row * size);
  });
  const { links, neighbours } = await current.group(vectors, size, FLOOR, begin("Grouping", turn));
  if (turn !== grouping) return false;
  showDerived(rows, { ids: rows.map(({ id }) => id), links, model: modelHash });
  const places = rows.length < FEWEST_ON_MAP ? undefined : await project(neighbours, turn);
  if (turn !== grouping) return false;
  showDerived(rows, { ...derived, places });
  end();
  await putDerived(derived);
  say(ending);
  return true;
}

async function project(neighbours, turn) {
  const projection = new Worker("projection.js");
  const places = await wrap(projection).project(neighbours, begin("Drawing the map", turn));
  projection.terminate();
  return places;
}

async function restoreGroups() {
  const kept = await getDerived();
  const rows = passages.filter(({ vector }) => vector);
  const ofModel = kept?.model === modelHash && kept.ids.length === rows.length;
  if (!ofModel || rows.some(({ id }, row) => id !== kept.ids[row])) return group("Ready.");
  showDerived(rows, kept);
  say("Ready.");
}

function showDerived(rows, value) {
  embedded = rows;
  derived = value;
  regroup();
}

function regroup() {
  const threshold = Number(byId("threshold").value);
  byId("threshold-text").textContent = threshold.toFixed(2);
  groups = derived ? cut(embedded.length, derived.links, threshold) : embedded.map((_, row) => [row]);
  showGroups(groups, embedded);
  byId("map").hidden = !derived?.places;
  if (!derived?.places) {
    byId("map-text").textContent = "";
    return;
  }
  map ??= new PassageMap(byId("canvas"), (row) => showPassage(embedded[row]));
  map.show(derived.places, groups, rowsFound());
}

function rowsFound() {
  const rows = new Map(embedded.map((passage, row) => [passage, row]));
  return found.map(({ passage }) => rows.get(passage)).filter((row) => row !== undefined);
}

// Search

let searching = 0;
async function search() {
  const query = byId("query").value.trim();
  const turn = ++searching;
  if (query) await ready;
  const vector = query && (await current.embed([query]));
  if (turn !== searching) return; // more has been typed
  found = query ? nearest(vector, passages, RESULTS) : [];
  showResults(found);
  const searched = count(passages.filter((passage) => passage.vector).length, "passage");
  byId("found").textContent = query && (found.length ? `The nearest of ${searched}:` : "There are no texts yet.");
  if (derived?.places) map.ring(rowsFound());
}

// Save and delete

function save() {
  const rank = new Map(
    groups.flatMap((group, at) => (group.length > 1 ? group.map((row) => [embedded[row].id, at + 1]) : [])),
  );
  const lines = passages.map(({ id, text, source, place }) =>
    JSON.stringify({ text, source, place, group: rank.get(id) ?? null }),
  );
  const url = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "application/jsonl" }));
  Object.assign(document.createElement("a"), { href: url, download: "asterisk.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // some browsers read it later
}

async function remove() {
  await deleteAll();
  const deleted = passages.length;
  grouping++;
  end();
  passages = [];
  known.clear();
  showDerived([], undefined);
  showStock(passages);
  tabs.postMessage("deleted");
  search().catch(complain);
  say(`${count(deleted, "passage")} deleted.`);
}

// Controls

byId("add").addEventListener("click", () => {
  const text = byId("pasted").value;
  byId("pasted").value = "";
  queue(async (signal) => {
    byId("error").textContent = "";
    try {
      await add(await readPasted(text));
    } catch (error) {
      byId("pasted").value ||= text;
      throw error;
    }
    await embed(signal);
  });
});
for (const id of ["files", "folder"]) {
  byId(id).addEventListener("change", ({ target }) => {
    const files = [...target.files].map((file) => ({
      name: file.webkitRelativePath || file.name,
      open: () => file,
    }));
    target.value = "";
    queue((signal) => addFiles(files, signal));
  });
}
// Text that is dragged into a field goes there.
const isText = ({ target, dataTransfer }) =>
  target.matches("textarea, input") && !dataTransfer.types.includes("Files");
document.addEventListener("dragover", (event) => isText(event) || event.preventDefault());
document.addEventListener("drop", (event) => {
  if (isText(event)) return;
  event.preventDefault();
  const files = droppedFiles(event.dataTransfer);
  queue(async (signal) => addFiles(await files, signal));
});
tabs.addEventListener("message", ({ data }) => {
  if (data === "deleted") stop();
  queue(reload);
});
byId("stop").addEventListener("click", stop);
byId("continue").addEventListener("click", () => queue(embed));
byId("query").addEventListener("input", () => search().catch(complain));
byId("threshold").addEventListener("input", regroup);
byId("export").addEventListener("click", save);
byId("delete").addEventListener("click", () => {
  stop();
  queue(remove);
});
byId("nearer").addEventListener("click", () => map.zoom(ZOOM));
byId("farther").addEventListener("click", () => map.zoom(1 / ZOOM));
byId("graphics").addEventListener("click", () =>
  queue(async () => {
    byId("graphics").hidden = true;
    say("Trying the graphics processor.");
    const { opened, report } = await tryGraphics(current);
    if (opened) useModel(opened);
    say(report);
  }),
);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", regroup);

// Embed passages that have no vector yet, some at a time, so that what is done is kept and a search gets in between.

import { updatePassages } from "./store.js";

const AT_ONCE = 32;

// Those of like length go together, the longest first. `onProgress` gets { done, total, rate, left }: passages, passages
// a second, and seconds. Return whether all are embedded.
export async function embedPassages(model, modelHash, passages, onProgress, signal) {
  const waiting = [...passages].sort((a, b) => b.text.length - a.text.length);
  const characters = (some) => some.reduce((sum, { text }) => sum + text.length, 0);
  const all = characters(waiting);
  const start = performance.now();
  let read = 0;
  for (let done = 0; done < waiting.length; ) {
    if (signal.aborted) return false;
    const some = waiting.slice(done, done + AT_ONCE);
    const vectors = await model.embed(some.map(({ text }) => text));
    const size = vectors.length / some.length;
    const embedded = some.map((passage, row) => ({
      ...passage,
      vector: vectors.slice(row * size, (row + 1) * size),
      model: modelHash,
    }));
    await updatePassages(embedded);
    some.forEach((passage, row) => {
      Object.assign(passage, embedded[row], { length: undefined });
    });
    done += some.length;
    read += characters(some);
    const seconds = (performance.now() - start) / 1000;
    onProgress({ done, total: waiting.length, rate: done / seconds, left: (seconds * (all - read)) / read });
  }
  return true;
}

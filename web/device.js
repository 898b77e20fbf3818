// Where the model runs: threads and SIMD of WebAssembly, or the graphics processor if it is faster and gives the same.

import { wrap } from "./vendor/comlink.mjs";
import { simd } from "./vendor/wasm-feature-detect.js";

const LEAST_COSINE = 0.999;
const [WARM_UP, CALLS] = [40, 15]; // browsers go on compiling while the first calls run
const SENTENCES = [
  "The old house by the river was sold last year.",
  "How do I bake bread without yeast?",
  "The train to Vienna leaves at seven in the morning.",
  "Interest rates rose for the third time this year.",
  "A kitten slept on the warm windowsill.",
];

export async function openModel(device = "wasm") {
  if (!(await simd())) throw new Error("This browser lacks SIMD for WebAssembly; a newer one has it.");
  const worker = new Worker("worker.js", { type: "module" });
  const model = wrap(worker);
  const broken = new Promise((_, reject) => {
    worker.addEventListener("error", () =>
      reject(new Error("The model's program could not be started; load the page again.")),
    );
  });
  const failed = ({ message }) => {
    throw new Error(`The model could not be loaded; load the page again. The browser says: ${message}`);
  };
  const threads = await Promise.race([model.load(device).catch(failed), broken]);
  return { device, model, worker, threads };
}

// Return the median time in milliseconds from a sentence to its vector.
export async function timeSentence(model) {
  const times = [];
  for (let call = 0; call < WARM_UP + CALLS; call++) {
    const start = performance.now();
    await model.embed([SENTENCES[call % SENTENCES.length]]);
    times.push(performance.now() - start);
  }
  return times.slice(WARM_UP).sort((a, b) => a - b)[CALLS >> 1];
}

// Say how it runs, in words.
export function describe({ device, threads }) {
  if (device === "webgpu") return "the graphics processor, by WebGPU";
  if (!crossOriginIsolated) return "WebAssembly with SIMD; threads need a page that is cross-origin isolated";
  return `WebAssembly with SIMD, ${threads === 1 ? "one thread" : `${threads} threads`}`;
}

export const hasGraphics = async () => Boolean(await navigator.gpu?.requestAdapter());

// Load the model a second time, on the graphics processor. Return { opened, report }, where `opened` is missing unless it
// is faster than the present one and gives the same vectors.
export async function tryGraphics(present) {
  const opened = await openModel("webgpu");
  const [ours, theirs] = [await present.embed(SENTENCES), await opened.model.embed(SENTENCES)];
  const size = ours.length / SENTENCES.length;
  const cosines = SENTENCES.map((_, row) => cosine(ours, theirs, row * size, size));
  const [before, after] = [await timeSentence(present), await timeSentence(opened.model)];
  const chosen = Math.min(...cosines) >= LEAST_COSINE && after < before;
  if (!chosen) opened.worker.terminate();
  const times = `${after.toFixed(1)} ms a sentence, the processor ${before.toFixed(1)}`;
  const report = `The graphics processor takes ${times}; ${chosen ? "it is used from now on" : "the processor stays in use"}.`;
  return { opened: chosen ? opened : undefined, report };
}

function cosine(a, b, start, size) {
  let [product, lengthA, lengthB] = [0, 0, 0];
  for (let i = start; i < start + size; i++) {
    product += a[i] * b[i];
    lengthA += a[i] ** 2;
    lengthB += b[i] ** 2;
  }
  return product / Math.sqrt(lengthA * lengthB);
}

// The model, in a thread of its own: vectors of texts, nearest neighbours, groups. It keeps nothing of the texts.

import { averageLinkage } from "./linkage.js";
import { quantise, unitRows } from "./vectors.js";
import { expose, transfer } from "./vendor/comlink.mjs";
import { env, LogLevel, matmul, pipeline, Tensor, topk } from "./vendor/transformers.js";

const NEIGHBOURS = 64;
const ROWS_AT_ONCE = 128;
const BATCH = 16;

env.allowLocalModels = true;
env.allowRemoteModels = false;
env.localModelPath = new URL(".", self.location).pathname;
// The service worker keeps the files.
env.useBrowserCache = false;
env.useWasmCache = false;
env.logLevel = LogLevel.ERROR; // it warns of every model type that it does not know

let extract;

const worker = {
  // Load the model for "wasm" or "webgpu"; return how many threads it has. Without a number, ONNX Runtime chooses one:
  // half the cores, four at most, and one where the page is not cross-origin isolated.
  async load(device, threads) {
    const runtime = device === "webgpu" ? "ort-webgpu" : "ort";
    const path = (suffix) => new URL(`vendor/${runtime}.${suffix}`, self.location).href;
    env.backends.onnx.wasm.wasmPaths = { mjs: path("mjs"), wasm: path("wasm") };
    if (threads) env.backends.onnx.wasm.numThreads = threads;
    extract = await pipeline("feature-extraction", "model", { dtype: "q8", device });
    return env.backends.onnx.wasm.numThreads;
  },

  // Return the vectors of texts in their order, as int8: [texts, dimensions].
  async embed(texts) {
    const order = texts.map((_, row) => row).sort((a, b) => texts[a].length - texts[b].length);
    let vectors;
    for (let start = 0; start < order.length; start += BATCH) {
      const rows = order.slice(start, start + BATCH);
      const output = await extract(
        rows.map((row) => texts[row]),
        { pooling: "mean", normalize: true },
      );
      const [, dimensions] = output.dims;
      vectors ??= new Int8Array(texts.length * dimensions);
      rows.forEach((row, at) => {
        const vector = output.data.subarray(at * dimensions, (at + 1) * dimensions);
        vectors.set(quantise(vector), row * dimensions);
      });
    }
    return transfer(vectors, [vectors.buffer]);
  },

  // For each of the int8 vectors [rows, dimensions], find the nearest others, the nearest first; then link all.
  async group(vectors, dimensions, floor, onProgress) {
    const rows = unitRows(vectors, dimensions);
    const count = rows.length / dimensions;
    const width = Math.min(NEIGHBOURS, count - 1);
    const indices = new Int32Array(count * width);
    const cosines = new Float32Array(count * width);
    const columns = new Tensor("float32", rows, [count, dimensions]).transpose(1, 0);
    for (let start = 0; start < count; start += ROWS_AT_ONCE) {
      const end = Math.min(start + ROWS_AT_ONCE, count);
      const block = new Tensor("float32", rows.slice(start * dimensions, end * dimensions), [
        end - start,
        dimensions,
      ]);
      const [values, columnsFound] = await topk(await matmul(block, columns), width + 1);
      for (let row = start; row < end; row++) {
        let at = row * width;
        for (let found = (row - start) * (width + 1); at < (row + 1) * width; found++) {
          const other = Number(columnsFound.data[found]);
          if (other !== row) {
            indices[at] = other;
            cosines[at++] = values.data[found];
          }
        }
      }
      onProgress(end / count);
    }
    const links = await averageLinkage(rows, dimensions, { indices, cosines, width }, floor);
    return { links, neighbours: { indices, cosines, width } };
  },
};

expose(worker);

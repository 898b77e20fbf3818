// UMAP, in a thread of its own: places on the plane, from nearest neighbours. A classic script, as the library is.

/* global Comlink, UMAP */
importScripts("vendor/comlink.js", "vendor/umap.js");

const NEIGHBOURS = 15;
const EPOCHS_AT_ONCE = 10;

// Numbers from 0 to 1, always the same ones, so that the same texts give the same map (Mulberry32).
function seededRandom(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

Comlink.expose({
  // Return [x, y, x, y, ...] for the rows whose neighbours these are.
  project({ indices, cosines, width }, onProgress) {
    const count = indices.length / width;
    const nNeighbors = Math.min(NEIGHBOURS, width); // itself among them
    const lists = (own, values) =>
      Array.from({ length: count }, (_, row) => [
        own(row),
        ...Array.from(values.subarray(row * width, row * width + nNeighbors - 1)),
      ]);
    const umap = new UMAP.UMAP({ nNeighbors, minDist: 0.1, random: seededRandom(1) });
    umap.setPrecomputedKNN(
      lists((row) => row, indices),
      lists(
        () => 0,
        cosines.map((cosine) => Math.max(0, 1 - cosine)),
      ),
    );
    const epochs = umap.initializeFit(Array.from({ length: count }, () => []));
    for (let epoch = 0; epoch < epochs; epoch++) {
      umap.step();
      if (epoch % EPOCHS_AT_ONCE === 0) onProgress(epoch / epochs);
    }
    return Float32Array.from(umap.getEmbedding().flat());
  },
});

// Agglomerative grouping by average linkage: the two groups whose texts have the highest mean cosine are joined, again
// and again. The mean cosine of two groups is the product of the sums of their vectors, divided by the number of pairs,
// so no matrix of all pairs is needed.
//
// Only groups with a pair of near neighbours are candidates. Where the mean reaches the floor, some pair does, so the
// result is that of all pairs, unless a text has more neighbours above the floor than were looked for.

import TinyQueue from "./vendor/tinyqueue.js";

const PAUSE_MS = 50;

// rows: unit vectors [count, dimensions]. Return the links, the nearest first: { pairs: [a, b, a, b, ...], cosines }.
export async function averageLinkage(rows, dimensions, neighbours, floor) {
  const count = rows.length / dimensions;
  const sums = Float64Array.from(rows);
  const sizes = new Int32Array(count).fill(1);
  const versions = new Int32Array(count);
  const near = Array.from({ length: count }, () => new Set());
  const queue = new TinyQueue([], (x, y) => y.cosine - x.cosine);

  const meanCosine = (a, b) => {
    let sum = 0;
    for (let i = a * dimensions, j = b * dimensions, end = i + dimensions; i < end; ) sum += sums[i++] * sums[j++];
    return sum / (sizes[a] * sizes[b]);
  };
  const propose = (a, b) => {
    const cosine = meanCosine(a, b);
    if (cosine >= floor) queue.push({ cosine, a, b, versions: versions[a] + versions[b] });
  };
  for (let row = 0; row < count; row++) {
    for (let at = row * neighbours.width; at < (row + 1) * neighbours.width; at++) {
      const other = neighbours.indices[at];
      // The floor is that of exact sums; these cosines are of 32 bits.
      if (neighbours.cosines[at] < floor - 1e-5 || near[row].has(other)) continue;
      near[row].add(other);
      near[other].add(row);
      propose(row, other);
    }
  }

  const pairs = [];
  const cosines = [];
  let paused = performance.now();
  while (queue.length) {
    const { cosine, a, b, versions: seen } = queue.pop();
    // Versions only grow, so an equal sum means that neither group has changed.
    if (!sizes[a] || !sizes[b] || versions[a] + versions[b] !== seen) continue;
    pairs.push(a, b);
    cosines.push(Math.min(cosine, cosines.at(-1) ?? 1));
    for (let i = a * dimensions, j = b * dimensions, end = i + dimensions; i < end; ) sums[i++] += sums[j++];
    sizes[a] += sizes[b];
    sizes[b] = 0;
    versions[a]++;
    for (const other of near[b]) {
      near[other].delete(b);
      if (other === a) continue;
      near[other].add(a);
      near[a].add(other);
    }
    near[b].clear();
    for (const other of near[a]) propose(a, other);
    if (performance.now() - paused > PAUSE_MS) {
      await new Promise((resolve) => setTimeout(resolve)); // lets a search in between
      paused = performance.now();
    }
  }
  return { pairs: Int32Array.from(pairs), cosines: Float32Array.from(cosines) };
}

// Return the groups at a threshold, the largest first; each is a list of rows. Rows alone are groups of one.
export function cut(count, links, threshold) {
  const parents = Int32Array.from({ length: count }, (_, row) => row);
  const root = (row) => {
    while (parents[row] !== row) row = parents[row] = parents[parents[row]];
    return row;
  };
  for (let at = 0; at < links.cosines.length && links.cosines[at] >= threshold; at++) {
    parents[root(links.pairs[2 * at + 1])] = root(links.pairs[2 * at]);
  }
  const groups = new Map();
  for (let row = 0; row < count; row++) {
    const first = root(row);
    if (!groups.has(first)) groups.set(first, []);
    groups.get(first).push(row);
  }
  return [...groups.values()].sort((x, y) => y.length - x.length || x[0] - y[0]);
}

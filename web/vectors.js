// Vectors as 8-bit numbers. Only their directions count, so each has a scale of its own.

export function quantise(vector) {
  let largest = 1e-12;
  for (const number of vector) largest = Math.max(largest, Math.abs(number));
  return Int8Array.from(vector, (number) => Math.round((number * 127) / largest));
}

// Return vectors [rows, dimensions] at length one, in float32.
export function unitRows(vectors, dimensions) {
  const rows = Float32Array.from(vectors);
  for (let start = 0; start < rows.length; start += dimensions) {
    let squares = 0;
    for (let i = start; i < start + dimensions; i++) squares += rows[i] * rows[i];
    const scale = 1 / Math.max(Math.sqrt(squares), 1e-12);
    for (let i = start; i < start + dimensions; i++) rows[i] *= scale;
  }
  return rows;
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

// Return the passages nearest to a query, the nearest first: [{ passage, cosine }].
export function nearest(query, passages, count) {
  const length = Math.sqrt(dot(query, query));
  return passages
    .filter((passage) => passage.vector)
    .map((passage) => {
      passage.length ??= Math.sqrt(dot(passage.vector, passage.vector));
      return { passage, cosine: dot(query, passage.vector) / (length * passage.length || 1) };
    })
    .sort((a, b) => b.cosine - a.cosine)
    .slice(0, count);
}

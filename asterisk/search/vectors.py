"""Vectors in the index: 8 bits a number."""

from __future__ import annotations

import numpy as np

# One scale for all, so that distances of stored vectors compare. One number in ten thousand is cut: few of a unit
# vector reach 0.4. On ARM, sqlite-vec's distance overflows where two numbers differ by more than 181.
SCALE, LARGEST = 220.0, 90


def quantise(vectors: np.ndarray) -> np.ndarray:
    """Return unit vectors `[n, dim]` as int8."""
    return np.clip(np.rint(vectors * SCALE), -LARGEST, LARGEST).astype(np.int8)


def unit_rows(stored: list[bytes], dim: int) -> np.ndarray:
    """Return stored vectors as unit vectors in float32, `[n, dim]`."""
    matrix = np.frombuffer(b"".join(stored), dtype=np.int8).reshape(-1, dim).astype(np.float32)
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)


def cosines(query: np.ndarray, stored: list[bytes]) -> np.ndarray:
    """Return the cosines of a unit vector in float32 with stored vectors, `[n]`."""
    return unit_rows(stored, len(query)) @ query


def mean(stored: list[bytes]) -> np.ndarray:
    """Return the unit vector in the middle of stored ones, `[dim]`."""
    total = np.frombuffer(b"".join(stored), dtype=np.int8).reshape(len(stored), -1).sum(axis=0, dtype=np.float32)
    return total / max(float(np.linalg.norm(total)), 1e-12)

"""Vectors in the index: 8 bits a number to rank by, and their signs to find candidates with."""

from __future__ import annotations

import numpy as np

# One scale for all, so that products of stored vectors compare. Few numbers of a unit vector reach 0.5.
SCALE = 254.0


def quantise(vectors: np.ndarray) -> np.ndarray:
    """Return unit vectors `[n, dim]` as int8."""
    return np.clip(np.rint(vectors * SCALE), -127, 127).astype(np.int8)


def signs(vectors: np.ndarray) -> np.ndarray:
    """Return one bit a number, as sqlite-vec packs them: `[n, dim / 8]`."""
    return np.packbits(vectors > 0, axis=-1, bitorder="little")


def cosines(query: np.ndarray, stored: list[bytes]) -> np.ndarray:
    """Return the cosines of a unit vector in float32 with stored vectors, `[n]`."""
    matrix = np.frombuffer(b"".join(stored), dtype=np.int8).reshape(len(stored), -1).astype(np.float32)
    return matrix @ query / np.maximum(np.linalg.norm(matrix, axis=1), 1e-12)


def mean(stored: list[bytes]) -> np.ndarray:
    """Return the unit vector in the middle of stored ones, `[dim]`."""
    total = np.frombuffer(b"".join(stored), dtype=np.int8).reshape(len(stored), -1).sum(axis=0, dtype=np.float32)
    return total / max(float(np.linalg.norm(total)), 1e-12)

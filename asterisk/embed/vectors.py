"""Vectors as Arrow columns: lists of fixed size, of float16, int8 or packed bits."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

Precision = Literal["float16", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# Of the numbers of unit vectors, hardly one in ten thousand is larger than so many times their root mean square.
LARGEST = 6.4


def scale(dim: int) -> float:
    """Return what int8 vectors of `dim` numbers are multiplied with: one for all, so that products compare."""
    return 127 / min(1.0, LARGEST / math.sqrt(dim))


def vector_type(dim: int, precision: Precision) -> pa.DataType:
    """Return the type of a column of vectors; one of bits has eight in a number."""
    if precision == "binary":
        return pa.list_(pa.uint8(), dim // 8)
    return pa.list_(pa.float16() if precision == "float16" else pa.int8(), dim)


def pack(vectors: np.ndarray, precision: Precision) -> np.ndarray:
    """Return unit vectors `[n, dim]` in fewer bits: `[n, dim]`, or `[n, dim / 8]` for binary."""
    if precision == "binary":
        return np.packbits(vectors > 0, axis=1)
    if precision == "int8":
        return np.clip(np.rint(vectors * scale(vectors.shape[1])), -127, 127).astype(np.int8)
    return vectors.astype(np.float16)


def vector_array(packed: np.ndarray, present: np.ndarray) -> pa.FixedSizeListArray:
    """Make a column of vectors.

    Args:
        packed: Vectors of the rows that have one, `[m, size]`.
        present: Which rows those are, `[n]`.
    """
    rows = np.zeros((len(present), packed.shape[1]), dtype=packed.dtype)
    rows[present] = packed
    values = pa.array(rows.ravel())
    return pa.FixedSizeListArray.from_arrays(values, packed.shape[1], mask=pa.array(~present))

"""The teacher's vectors of the text pairs, memory-mapped: `build/teacher`."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asterisk.errors import InputError
from asterisk.files import read_json

TEACHER_FILES = {"summary": "teacher_summaries.npy", "article": "teacher_articles.npy"}


def load_teacher_vectors(
    directory: Path, data_fingerprint: str
) -> tuple[NDArray[np.float16], NDArray[np.float16], dict[str, Any]]:
    """Open the teacher's vectors of summaries and articles, `[rows, teacher_dim]` float16, and their meta.

    Raises:
        InputError: If they are missing, unfinished, or belong to other pairs.
    """
    meta = read_json(directory / "teacher_meta.json")
    if not meta:
        raise InputError(
            f"{directory}: no finished teacher vectors here; run scripts/precompute_teacher.py (again)"
        )
    if meta.get("dataset_fingerprint") != data_fingerprint:
        raise InputError(
            f"{directory}: these teacher vectors belong to other text pairs ({meta.get('dataset_fingerprint')}, "
            f"not {data_fingerprint}); run scripts/precompute_teacher.py again"
        )
    vectors = []
    for name in TEACHER_FILES.values():
        try:
            vectors.append(np.load(directory / name, mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{directory / name}: cannot be read ({error}); run scripts/precompute_teacher.py again"
            ) from error
        if vectors[-1].shape != (meta.get("rows"), meta.get("dim")):
            raise InputError(
                f"{directory / name}: shape {vectors[-1].shape}, wanted {(meta.get('rows'), meta.get('dim'))}; "
                "run scripts/precompute_teacher.py again"
            )
    return vectors[0], vectors[1], meta


def release_pages(*arrays: NDArray[Any]) -> None:
    """Let go of the pages of memory-mapped arrays that were read so far; the system keeps what it has room for.

    Otherwise a process that reads rows here and there comes to hold the whole file in its resident memory.
    """
    for array in arrays:
        pages = getattr(array, "_mmap", None)
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)


def read_rows(matrix: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Copy `rows` of a memory-mapped matrix, letting go of its pages after every few: a row may map megabytes."""
    result = np.empty((len(rows), matrix.shape[1]), dtype=matrix.dtype)
    for start in range(0, len(rows), 16):
        result[start : start + 16] = matrix[rows[start : start + 16]]
        release_pages(matrix)
    return result

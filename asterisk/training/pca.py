"""The fixed map from the teacher's space to the student's."""

from pathlib import Path

import numpy as np

from asterisk.data.teacher_vectors import release_pages
from asterisk.errors import InputError

PCA_FILE = "teacher_pca.npy"  # beside a model's weights


def fit_pca(vectors: list[np.ndarray], rows: np.ndarray, dim: int) -> np.ndarray:
    """Fit the map from the teacher's space to the student's, `[teacher_dim, dim]` float32.

    Its orthonormal columns are the leading eigenvectors of the second-moment matrix (not centred: a shift
    would change the cosines), largest first, so that the first k dimensions of a mapped vector are its best k.

    Args:
        vectors: Teacher matrices, each `[rows, teacher_dim]`, read in blocks.
        rows: Row numbers to fit on.
        dim: Size of the student's embedding, at most `teacher_dim`.

    Raises:
        InputError: If the teacher has fewer dimensions than the student, or its vectors are not finite.
    """
    teacher_dim = vectors[0].shape[1]
    if teacher_dim < dim:
        raise InputError(
            f"the teacher has {teacher_dim} dimensions, the student {dim}: choose a smaller --projection_dim"
        )
    moment = np.zeros((teacher_dim, teacher_dim))
    for matrix in vectors:
        for start in range(0, len(rows), 8192):
            block = matrix[rows[start : start + 8192]].astype(np.float32)
            moment += block.T @ block
            release_pages(matrix)
    if not np.isfinite(moment).all():
        raise InputError("the teacher's vectors hold NaN or infinity; run scripts/precompute_teacher.py again")
    basis = np.linalg.eigh(moment)[1][:, ::-1][:, :dim]
    # An eigenvector's sign is arbitrary; fixing it makes the map a function of the data alone.
    return (basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(dim)])).astype(np.float32)


def load_pca(model: Path, teacher_dim: int) -> np.ndarray:
    """Read the map from the teacher's space to a trained model's, `[teacher_dim, dim]` float32.

    Raises:
        InputError: If the model has none, or its teacher had another number of dimensions.
    """
    path = model / PCA_FILE
    try:
        pca = np.load(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); choose a model that was trained here") from error
    if pca.ndim != 2 or len(pca) != teacher_dim:
        raise InputError(f"{path}: has the shape {pca.shape}, not [{teacher_dim}, dim]; use the same teacher")
    return pca

"""The PCA map from the teacher's space: orthonormal, ordered, and of a fixed sign."""

import numpy as np
import pytest

from asterisk.errors import InputError
from asterisk.training.pca import fit_pca


def test_pca_is_orthonormal_ordered_and_of_a_fixed_sign():
    rng = np.random.default_rng(0)
    spectrum = np.array([5, 4, 3, 2, 1, 0.5])
    vectors = (rng.normal(size=(400, 6)) * spectrum + [3, 0, 0, 0, 0, 0]).astype(np.float16)
    rows = np.arange(0, 400, 2)
    pca = fit_pca([vectors[:, ::-1], vectors[:, ::-1]], rows, 4)
    assert pca.shape == (6, 4)
    assert np.abs(pca.T @ pca - np.eye(4)).max() < 1e-5
    moments = ((vectors[rows, ::-1].astype(np.float32) @ pca) ** 2).mean(0)
    assert (np.diff(moments) < 0).all()
    largest = np.linalg.svd(vectors[rows].astype(np.float64), compute_uv=False)[:4] ** 2 / len(rows)
    assert moments == pytest.approx(largest, rel=1e-3)
    assert (pca[np.abs(pca).argmax(0), range(4)] > 0).all()
    with pytest.raises(InputError, match="the teacher has 6 dimensions, the student 7"):
        fit_pca([vectors], rows, 7)

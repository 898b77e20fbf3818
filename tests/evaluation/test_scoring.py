"""Scoring: quantised vectors, and figures that depend neither on batches and threads nor on the order of rows."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from asterisk.evaluation.scoring import embed_all, look_up, quantize, shorten
from asterisk.evaluation.task_files import load_tasks


def test_quantised_vectors_are_close_and_binary_keeps_signs():
    vectors = shorten(np.random.default_rng(0).normal(size=(500, 64)), 64)
    assert (quantize(vectors, "int8") * vectors).sum(1).min() > 0.999
    binary = quantize(vectors, "binary")
    assert np.array_equal(np.sign(binary), np.sign(vectors))
    assert np.abs(binary) == pytest.approx(1 / 8)


@pytest.fixture(scope="module")
def figures(exported):
    model = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu")

    def score(directory, **options):
        tasks = load_tasks(directory)
        rows, vectors = embed_all(lambda texts: model.encode(texts, **options), tasks, "model")
        return [task.score(look_up(rows, vectors), thorough=False) for task in tasks]

    return score


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), pytest.param(7, 2, marks=pytest.mark.slow), (64, 1)])
def test_batches_and_threads_change_nothing(figures, evaluation_files, batch_size, threads):
    expected, before = figures(evaluation_files), torch.get_num_threads()
    torch.set_num_threads(threads)
    found = figures(evaluation_files, batch_size=batch_size)
    torch.set_num_threads(before)
    assert found == expected


def test_order_of_rows_changes_nothing(figures, evaluation_files, tmp_path):
    for path in evaluation_files.iterdir():
        header, *rows = path.read_text().splitlines()
        (tmp_path / path.name).write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert figures(tmp_path) == figures(evaluation_files)

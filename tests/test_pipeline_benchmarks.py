"""Benchmarks of training and memory: that they run, and measure what they say."""

import sys

import pytest
from datasets import load_from_disk

import memory_growth
import training_speed


def test_training_speed_is_reported_with_its_phases(pairs, teacher_vectors, teacher, monkeypatch):
    monkeypatch.setattr(training_speed, "DIM", 32)
    monkeypatch.setattr(training_speed, "PLAIN_STEPS", 1)
    monkeypatch.setattr(training_speed, "OUR_STEPS", 2)
    table, figures = training_speed.report_training(pairs, teacher_vectors, str(teacher), "wordpiece:300")
    plain, dense, sparse = figures["training"]
    assert plain["speed_up"] == 1
    for row in (dense, sparse):
        assert row["texts_per_s"] > 0
        assert list(row["percent"]) == ["tokenising", "batching", "forward", "backward", "optimiser"]
        assert sum(row["percent"].values()) == pytest.approx(100)
    assert figures["teacher"][1]["worst_cosine"] > 0.9999
    assert table.count("\n| plain loop |") == 2


def test_peak_memory_is_that_of_the_child():
    code = "import time; block = b'x' * 300_000_000; time.sleep(0.5); del block; time.sleep(0.5)"
    assert 300 < memory_growth.peak_megabytes([sys.executable, "-c", code]) < 400
    assert memory_growth.peak_megabytes([sys.executable, "-c", "import time; time.sleep(1)"]) < 50
    with pytest.raises(RuntimeError, match="ended with 3: oh"):
        memory_growth.peak_megabytes(
            [sys.executable, "-c", "import sys; print('oh', file=sys.stderr); sys.exit(3)"]
        )


def test_rows_are_repeated_without_duplicates(pairs, tmp_path):
    memory_growth.write_rows(load_from_disk(str(pairs)), 500, tmp_path / "rows.tsv")
    lines = (tmp_path / "rows.tsv").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 501
    assert all(line.count("\t") == 1 for line in lines)

"""Benchmarks of training and memory: that they run, and measure what they say."""

import json
import sys

import pytest
from datasets import load_from_disk

import memory_growth
import quantization
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


def test_schemes_of_quantisation_side_by_side(run_command, exported, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "ROUNDS", 1)
    monkeypatch.setattr(quantization, "CALIBRATION_TEXTS", 40)
    result = run_command(quantization, exported, "--pairs", pairs, "--texts", 100, "--results", tmp_path)
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "quantization.json").read_text())["figures"]
    rows = {row["scheme"]: row for row in figures}
    assert list(rows) == list(quantization.SCHEMES)
    shipped = rows["own graph, 7-bit weights (shipped)"]
    file = exported / "onnx/model_quantized.onnx"
    assert shipped["megabytes"] == pytest.approx(file.stat().st_size / 1e6, rel=0.01)
    assert shipped["worst_cosine"] > 0.99 and shipped["batched_difference"] < 1e-12
    assert rows["dynamic (`quantize_dynamic`)"]["batched_difference"] > 1e-7
    assert rows["dynamic (`quantize_dynamic`)"]["bulk_speed"] == 1
    assert "| own graph, 7-bit weights (shipped) |" in (tmp_path / "quantization.md").read_text()


def test_quantisation_without_an_export(run_command, tmp_path):
    result = run_command(quantization, tmp_path)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "export the model with export_optimum.py" in result.err

"""Ways to quantise side by side, each measured on the same texts."""

import json

import pytest
from conftest import load_script, refused


@pytest.fixture(scope="module")
def quantization():
    return load_script("scripts/benchmarks/quantization.py")


@pytest.mark.slow
def test_schemes_of_quantisation_side_by_side(quantization, run_command, exported, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "ROUNDS", 1)
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
    assert "| own graph, 7-bit weights (shipped) " in (tmp_path / "quantization.md").read_text()


def test_quantisation_without_an_export(quantization, run_command, tmp_path):
    message = refused(run_command(quantization, tmp_path))
    assert "export the model with export_optimum.py" in message

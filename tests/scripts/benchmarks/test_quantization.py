"""Ways to quantise side by side, each measured on the same texts."""

import json

import pytest
from conftest import load_script, refused


@pytest.fixture(scope="module")
def quantization():
    return load_script("scripts/benchmarks/quantization.py")


@pytest.mark.slow
def test_schemes_of_quantisation_side_by_side(
    quantization, run_command, exported, pairs, evaluation_files, tmp_path, monkeypatch
):
    for name, value in {"TURNS": 1, "SECONDS": 0.01, "CALIBRATION_TEXTS": 64}.items():
        monkeypatch.setattr(quantization, name, value)
    options = ("--pairs", pairs, "--texts", 100, "--data_dir", evaluation_files, "--results", tmp_path)
    result = run_command(quantization, exported, *options)
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "quantization.json").read_text())["figures"]
    rows = {row["file"]: row for row in figures}
    assert list(rows) == list(quantization.SCHEMES)
    for name, row in rows.items():
        assert row["STSBenchmark"] and row["SICK-R"]
        assert list(row["milliseconds"]) == ["1 x 12", "1 x 128", "32 x 32"]
        if name.startswith("model"):  # as export_optimum.py makes it
            size = (exported / "onnx" / f"{name}.onnx").stat().st_size
            assert row["megabytes"] == pytest.approx(size / 1e6, rel=0.01)
            assert row["worst_cosine"] > 0.99
    assert rows["model_quantized"]["batched_difference"] < 1e-12
    assert rows["dynamic"]["batched_difference"] > 1e-7
    assert "| own graph (`model_quantized.onnx`) " in (tmp_path / "quantization.md").read_text()


def test_quantisation_without_an_export(quantization, run_command, tmp_path):
    message = refused(run_command(quantization, tmp_path))
    assert "export the model with export_optimum.py" in message

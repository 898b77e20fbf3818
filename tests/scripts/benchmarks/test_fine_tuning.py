"""The benchmark of fine-tuning: a model trained and exported is measured beside the one before."""

import json

import pytest
from conftest import ANIMALS, THINGS, load_script, refused


@pytest.fixture
def fine_tuning():
    return load_script("scripts/benchmarks/fine_tuning.py")


@pytest.fixture
def data(evaluation_files, tmp_path):
    """Texts about four animals, eight to train on and two to test, of each."""
    for split, things in (("train", THINGS[:8]), ("test", THINGS[8:])):
        rows = [f"the {animal} and the {thing}\tthe_{animal}" for thing in things for animal in ANIMALS[:4]]
        (tmp_path / f"clinc150.{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    (tmp_path / "stsb.dev.tsv").write_bytes((evaluation_files / "stsb.dev.tsv").read_bytes())
    return tmp_path


@pytest.mark.slow
def test_what_is_trained_is_measured_beside_the_model_before(
    fine_tuning, run_command, exported, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(fine_tuning, "METHODS", ["LoRA"])
    options = ("--data_dir", data, "--examples", 5, "--results", tmp_path / "results")
    result = run_command(fine_tuning, exported, *options)
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "results" / "fine_tuning.json").read_text())
    before, after = report["figures"]["before"], report["figures"]["LoRA"]
    for model in (before, after):
        forms = [(row["form"], row["dim"]) for row in model["scores"]]
        assert forms == [("pytorch", 32), ("onnx_int8", 32), ("onnx_int8", 8)]
    assert before["scores"] != after["scores"]
    assert after["parameters"] > 0 and after["seconds"] > 0 and after["peak_memory_mb"] > 100
    text = (tmp_path / "results" / "fine_tuning.md").read_text()
    assert "CLINC150, accuracy, %: INT8 ONNX, 8 numbers" in text
    assert "5 examples of each of 4 intents, 8 texts to test" in text


def test_too_few_examples(fine_tuning, run_command, exported, data):
    message = refused(run_command(fine_tuning, exported, "--data_dir", data, "--examples", 9))
    assert "--examples is 9: the train part has 8 of 'the_badger'" in message

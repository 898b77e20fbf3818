"""The benchmark of training: both loops, and where the time of ours goes."""

import json

import pytest


@pytest.mark.slow
def test_training_speed_is_reported_with_its_phases(run_command, pairs, teacher_vectors, teacher, tmp_path):
    options = ("--pairs", pairs, "--teacher_vectors", teacher_vectors, "--teacher_model", teacher)
    options += ("--tokenizer", "wordpiece:300", "--projection_dim", 32, "--rounds", 1, "--steps", 1)
    result = run_command("scripts/benchmarks/training_speed.py", *options, "--output", tmp_path)
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "training.json").read_text())["figures"]
    plain, ours = figures["training"]
    assert plain["speed_up"] == 1
    assert ours["texts_per_s"] > 0
    assert list(ours["percent"]) == ["tokenising", "batching", "forward", "backward", "optimiser"]
    assert sum(ours["percent"].values()) == pytest.approx(100)
    assert figures["teacher"][1]["worst_cosine"] > 0.9999
    assert (tmp_path / "training.md").read_text().count("\n| plain loop ") == 2

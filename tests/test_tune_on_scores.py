"""Tuning on scored pairs: the scores are learnt, the rest is kept, and a stopped run goes on."""

import json

import pytest
from conftest import invent_pairs, refused, weights

import tune_on_scores
from asterisk.evaluation_data import load_scored_pairs


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Pairs scored by an odd taste: alike is what has the same last word."""
    path = tmp_path_factory.mktemp("scores") / "scores.tsv"
    texts = [pair["summary"] for pair in invent_pairs(120, seed=5)]
    rows = [
        (first, second, 5 if first.split()[-1] == second.split()[-1] else 0)
        for i, first in enumerate(texts)
        for second in texts[i + 1 : i + 4]
    ]
    lines = ["sentence1\tsentence2\tscore", *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def tune(run_command, pairs, teacher_vectors, scores):
    def call(model, output, *arguments):
        options = ("--scores", scores, "--pairs", pairs, "--teacher", teacher_vectors, "--output", output)
        return run_command(tune_on_scores, model, *options, "--epochs", 8, "--lr", 3e-3, *arguments)

    return call


@pytest.fixture(scope="module")
def tuned(tune, trained, scores, tmp_path_factory):
    output = tmp_path_factory.mktemp("tuned") / "model"
    result = tune(trained, output, "--dev", scores)
    assert result.code == 0, result.err
    return output


def test_scores_are_learnt_and_directions_kept(tuned, trained, scores):
    from sentence_transformers import SentenceTransformer

    before, after = (
        SentenceTransformer(str(path), trust_remote_code=True, device="cpu") for path in (trained, tuned)
    )
    scored = load_scored_pairs(scores)
    assert tune_on_scores.score(after, scored) > tune_on_scores.score(before, scored) + 10
    texts = [pair["summary"] for pair in invent_pairs(50, seed=9)]
    assert (before.encode(texts) * after.encode(texts)).sum(1).mean() > 0.8


def test_state_tells_of_the_tuning(tuned, trained):
    state = json.loads((tuned / "training_state.json").read_text())
    assert state["recipe"] == json.loads((trained / "training_state.json").read_text())["recipe"]
    assert state["tuning"]["spearman"]["after"] > state["tuning"]["spearman"]["before"]


def test_second_run_is_up_to_date(tune, tuned, trained):
    assert "up to date" in tune(trained, tuned).out


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(tune, tuned, trained, scores, tmp_path, monkeypatch):
    from transformers.trainer_callback import TrainerState

    save = TrainerState.save_to_json

    def save_and_stop(self, path):
        save(self, path)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainerState, "save_to_json", save_and_stop)
    assert tune(trained, tmp_path / "model").code == 130
    assert not (tmp_path / "model").exists()
    assert tune(trained, tmp_path / "model").code == 0
    assert weights(tmp_path / "model") == weights(tuned)


def test_mistakes_are_one_line(tune, trained, run_command, pairs, tmp_path):
    assert "no training_state.json" in refused(tune(tmp_path, tmp_path / "out"))
    (tmp_path / "scores.tsv").write_text("sentence1\tsentence2\tscore\na\tb\tmuch\n")
    assert "line 2" in refused(tune(trained, tmp_path / "out", "--scores", tmp_path / "scores.tsv"))
    assert "no finished teacher vectors" in refused(tune(trained, tmp_path / "out", "--teacher", tmp_path))
    assert not (tmp_path / "out").exists()

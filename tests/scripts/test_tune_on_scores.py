"""Tuning on scored pairs: the scores are learnt, the rest is kept, and a stopped run goes on."""

import json

import numpy as np
import pytest
from conftest import invent_pairs, refused, weights

from asterisk.evaluation.tables import load_scored_pairs
from asterisk.training.pca import load_pca


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Pairs scored by an odd taste: alike is what has the same last word."""
    path = tmp_path_factory.mktemp("scores") / "scores.tsv"
    texts = [pair["summary"] for pair in invent_pairs(120, seed=5)]
    rows = [
        (first, second, 5 if first.split()[-1] == second.split()[-1] else 3)
        for i, first in enumerate(texts)
        for second in texts[i + 1 : i + 4]
    ]
    lines = ["sentence1\tsentence2\tscore", *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def tune(run_command, pairs, teacher_vectors, scores):
    def call(model, output, *arguments):
        options = ("--scores", scores, "--pairs", pairs, "--teacher_vectors", teacher_vectors, "--output", output)
        options += ("--epochs", 2, "--share", 0.8, "--lr", 4e-4)
        return run_command("scripts/tune_on_scores.py", model, *options, *arguments)

    return call


@pytest.fixture(scope="module")
def tuned(tune, trained, scores, tmp_path_factory):
    output = tmp_path_factory.mktemp("tuned") / "model"
    result = tune(trained, output, "--dev", scores)
    assert result.code == 0, result.err
    return output


def test_cosines_approach_the_scores_and_the_teacher_is_not_forgotten(tuned, trained, scores, teacher):
    from sentence_transformers import SentenceTransformer

    scored = load_scored_pairs(scores)
    texts = [pair["summary"] for pair in invent_pairs(50, seed=9)]
    targets = SentenceTransformer(str(teacher), device="cpu").encode(texts) @ load_pca(trained, 64)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    errors, agreement = [], []
    for path in (trained, tuned):
        model = SentenceTransformer(str(path), trust_remote_code=True, device="cpu")
        cosines = (model.encode(scored.sentences1) * model.encode(scored.sentences2)).sum(1)
        errors.append(np.abs(cosines - scored.scores / 5).mean())
        agreement.append((model.encode(texts) * targets).sum(1).mean())
    assert errors[1] < 0.95 * errors[0]
    assert agreement[1] > agreement[0] - 0.05


def test_texts_are_cut_where_the_first_model_cuts_them(tuned, trained):
    for name in ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"):
        assert (tuned / name).read_bytes() == (trained / name).read_bytes()


def test_state_tells_of_the_tuning(tuned, trained):
    state, before = (json.loads((path / "training_state.json").read_text()) for path in (tuned, trained))
    assert state["recipe"] == before["recipe"]
    assert state["weights"] != before["weights"]
    assert set(state["tuning"]["spearman"]) == {"before", "after"}


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
    assert "--share is 2.0" in refused(tune(trained, tmp_path / "out", "--share", 2))
    assert "no training_state.json" in refused(tune(tmp_path, tmp_path / "out"))
    (tmp_path / "scores.tsv").write_text("sentence1\tsentence2\tscore\na\tb\tmuch\n")
    assert "line 2" in refused(tune(trained, tmp_path / "out", "--scores", tmp_path / "scores.tsv"))
    assert "no finished teacher vectors" in refused(tune(trained, tmp_path / "out", "--teacher_vectors", tmp_path))
    assert not (tmp_path / "out").exists()

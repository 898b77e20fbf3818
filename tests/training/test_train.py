"""Training runs: the same seed gives the same model, what they go on from, what is refused."""

import json

import numpy as np
import pytest
from conftest import ROWS, invent_pairs, losses, refused, weights, write_pairs
from safetensors.numpy import load_file

from asterisk.training.pca import PCA_FILE


def state(output):
    return json.loads((output / "training_state.json").read_text())


def test_training_improves_the_model(trained):
    validation = [row for row in losses(trained) if "epoch" in row]
    assert [row["epoch"] for row in validation] == [0, 1, 2]
    assert validation[2]["val/loss"] < 0.9 * validation[0]["val/loss"]
    best = min(row["val/loss"] for row in validation)
    assert state(trained)["metrics"]["val/loss"] == pytest.approx(best, rel=1e-5)
    assert state(trained)["rows"] == {"training": 180, "held_out": 20}
    assert (trained.with_name("model.run") / "training_curve.png").stat().st_size > 10_000


def test_same_seed_gives_the_same_model(train, trained, tmp_path):
    assert train(tmp_path / "model").code == 0
    assert losses(tmp_path / "model") == losses(trained)
    assert weights(tmp_path / "model") == weights(trained)
    assert train(tmp_path / "other", "--seed", 1, "--epochs", 1).code == 0
    assert losses(tmp_path / "other")[1]["val/loss"] != losses(trained)[1]["val/loss"]


def test_positions_that_no_text_reached_are_filled(trained, max_length=32):
    positions = load_file(trained / "model.safetensors")["position_embeddings.weight"].astype(np.float32)
    mean = positions[max_length // 2 : max_length].mean(0)
    assert np.abs(mean).max() > 0.002  # initialised with a standard deviation of 0.0002
    np.testing.assert_allclose(positions[max_length:], np.tile(mean, (512 - max_length, 1)), atol=1e-5)


def test_second_run_is_up_to_date(train, trained):
    before = (trained / "model.safetensors").stat().st_mtime_ns
    result = train(trained)
    assert (result.code, result.out) == (0, f"{trained} is up to date; delete it to train it again\n")
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_training_goes_on_from_a_finished_model(train, trained, tmp_path):
    options = ("--initial_model", trained, "--epochs", 1, "--lr", 3e-4, "--distill_alpha", 1)
    result = train(tmp_path / "model", *options)
    assert result.code == 0, result.err
    before, after = (losses(path) for path in (trained, tmp_path / "model"))
    assert after[0]["val/cosine"] == pytest.approx(before[-1]["val/cosine"], abs=1e-4)  # stored in float16
    assert after[-1]["val/loss"] < 0.8 * after[0]["val/loss"]
    assert state(tmp_path / "model")["initial_training"] == state(trained)
    assert "tokenizer" not in state(tmp_path / "model")["recipe"]["arguments"]  # an option that had no say
    for name in ("tokenizer.json", PCA_FILE):
        assert (tmp_path / "model" / name).read_bytes() == (trained / name).read_bytes()


def test_initial_model_must_be_of_this_project_and_teacher(train, tmp_path):
    (tmp_path / "other").mkdir()
    assert "model.safetensors" in refused(train(tmp_path / "model", "--initial_model", tmp_path / "other"))
    (tmp_path / "other" / "model.safetensors").touch()
    assert PCA_FILE in refused(train(tmp_path / "model", "--initial_model", tmp_path / "other"))
    np.save(tmp_path / "other" / PCA_FILE, np.eye(8, 4, dtype=np.float32))
    message = refused(train(tmp_path / "model", "--initial_model", tmp_path / "other"))
    assert "has the shape (8, 4), not [64, dim]" in message


@pytest.mark.slow
def test_early_stopping(train, tmp_path):
    result = train(tmp_path / "model", "--lr", 1e-12, "--epochs", 9, "--patience", 2)
    assert result.code == 0, result.err
    assert "no better for 2 epochs: stopping" in result.out
    # At this rate only rounding can make an epoch better than the first.
    found = state(tmp_path / "model")
    assert found["epochs"] < 9
    assert found["best_epoch"] == found["epochs"] - 2


def test_accumulated_batches_make_one_step(train, tmp_path):
    result = train(tmp_path / "model", "--gradient_accumulation_steps", 4, "--epochs", 1)
    assert result.code == 0, result.err
    assert "3 steps on 1 x cpu" in result.out
    assert losses(tmp_path / "model")[-1]["step"] == 3


def test_gpt2_width_without_teacher_start(train, tmp_path):
    options = ("--tokenizer", "bpe:400", "--embedding_size", 0, "--init_from_teacher", "no", "--epochs", 1)
    result = train(tmp_path / "model", *options)
    assert result.code == 0, result.err
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["vocab_size"], config["embedding_size"]) == (400, None)


# What is refused


def test_teacher_of_other_pairs(train, tmp_path):
    other = write_pairs(tmp_path / "pairs", invent_pairs(ROWS, seed=1))
    assert "belong to other text pairs" in refused(train(tmp_path / "model", "--pairs", other))
    assert not (tmp_path / "model.run").exists()


def test_missing_inputs(train, tmp_path):
    nowhere = tmp_path / "nowhere"
    assert f"{nowhere}: no text pairs here" in refused(train(tmp_path / "model", "--pairs", nowhere))
    assert "no finished teacher vectors" in refused(train(tmp_path / "model", "--teacher_vectors", nowhere))


@pytest.mark.parametrize(
    ("option", "value"),
    [("distill_alpha", 2), ("val_split", 1), ("epochs", 0), ("mixed_precision", "fp8")],
)
def test_unusable_value(train, tmp_path, option, value):
    assert option in refused(train(tmp_path / "model", f"--{option}", value))
    assert not (tmp_path / "model").exists()


def test_unknown_option(train, tmp_path):
    assert "unknown options: --epoch_count 3" in refused(train(tmp_path / "model", "--epoch_count", 3))


def test_embedding_wider_than_the_teachers(train, tmp_path):
    message = "the teacher has 64 dimensions, the student 65: choose a smaller --projection_dim"
    assert message in refused(train(tmp_path / "model", "--projection_dim", 65))

"""Training: batches, the PCA map, reproducible runs, stopping and going on, what is refused and written."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROWS, invent_pairs, losses, refused, weights, write_pairs
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import train_accelerate
from asterisk.console import InputError
from asterisk.distillation import PCA_FILE, fit_pca
from asterisk.tokenization import build_tokenizer
from asterisk.training_data import (
    PairTexts,
    length_bucketed_batches,
    load_pairs,
    split_rows,
    tokenize_pairs,
)


def state(output):
    return json.loads((output / "training_state.json").read_text())


# What training reads


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_bucketed_batches_use_each_row_once(seed):
    rng = np.random.default_rng(5)
    rows = np.sort(rng.choice(10_000, 1003, replace=False))
    lengths = rng.integers(1, 300, len(rows))
    batches = length_bucketed_batches(rows, lengths, 8, seed)
    assert np.array_equal(np.sort(np.concatenate(batches)), rows)
    assert sorted(map(len, batches)) == [3] + [8] * 125
    length_of = dict(zip(rows, lengths, strict=True))
    spreads = [np.ptp([length_of[row] for row in batch]) for batch in batches]
    assert np.mean(spreads) < 10, "a batch holds texts of like length"


def test_bucketed_batches_depend_on_the_seed_alone():
    rows, lengths = np.arange(100), np.arange(100) % 17
    first, again, other = (
        [batch.tolist() for batch in length_bucketed_batches(rows, lengths, 8, seed)] for seed in (3, 3, 4)
    )
    assert first == again != other


def test_token_batches_are_the_tokenizers(pairs, tmp_path):
    dataset, _ = load_pairs(pairs)
    tokenizer = build_tokenizer("wordpiece:300", list(PairTexts(dataset)), 512)
    columns = tokenize_pairs(dataset, tokenizer.backend_tokenizer, 12, tmp_path, progress=False)
    again = tokenize_pairs(dataset, tokenizer.backend_tokenizer, 12, tmp_path, progress=False)
    rows = np.array([0, 8, 9, 199, 17])
    assert (np.diff(rows) < 0).any()
    for name in ("summary", "article"):
        texts = dataset[rows][name]
        ids, mask = columns[name].batch(rows, 14)
        for row, text in enumerate(texts):
            expected = tokenizer(text, truncation=True, max_length=12)["input_ids"] if text else []
            assert ids[row][mask[row] == 1].tolist() == expected
            assert mask[row].tolist() == [1] * len(expected) + [0] * (ids.shape[1] - len(expected))
        assert np.array_equal(again[name].ids, columns[name].ids)
    assert columns["article"].lengths.max() == 12
    assert columns["article"].lengths[9] == 0


def test_split_holds_out_its_share():
    training, held_out = split_rows(200, 0.1, seed=0)
    assert (len(training), len(held_out)) == (180, 20)
    assert sorted([*training, *held_out]) == list(range(200))
    assert np.array_equal(held_out, split_rows(200, 0.1, seed=0)[1])
    assert not np.array_equal(held_out, split_rows(200, 0.1, seed=1)[1])


def test_pca_is_orthonormal_ordered_and_of_a_fixed_sign():
    rng = np.random.default_rng(0)
    spectrum = np.array([5, 4, 3, 2, 1, 0.5])
    vectors = (rng.normal(size=(400, 6)) * spectrum + [3, 0, 0, 0, 0, 0]).astype(np.float16)
    rows = np.arange(0, 400, 2)
    pca = fit_pca([vectors[:, ::-1], vectors[:, ::-1]], rows, 4)
    assert pca.shape == (6, 4)
    assert np.abs(pca.T @ pca - np.eye(4)).max() < 1e-5
    moments = ((vectors[rows, ::-1].astype(np.float32) @ pca) ** 2).mean(0)
    assert (np.diff(moments) < 0).all()
    largest = np.linalg.svd(vectors[rows].astype(np.float64), compute_uv=False)[:4] ** 2 / len(rows)
    assert moments == pytest.approx(largest, rel=1e-3)
    assert (pca[np.abs(pca).argmax(0), range(4)] > 0).all()
    with pytest.raises(InputError, match="the teacher has 6 dimensions, the student 7"):
        fit_pca([vectors], rows, 7)


# Runs


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
    result = train(tmp_path / "model", "--initial_model", trained, "--epochs", 1)
    assert result.code == 0, result.err
    before, after = (losses(path) for path in (trained, tmp_path / "model"))
    assert after[0]["val/cosine"] == pytest.approx(before[-1]["val/cosine"], abs=1e-4)  # stored in float16
    assert after[-1]["val/cosine"] < after[0]["val/cosine"]
    state, initial = (json.loads((p / "training_state.json").read_text()) for p in (tmp_path / "model", trained))
    assert state["initial_training"] == initial
    state = json.loads((tmp_path / "model" / "training_state.json").read_text())
    assert "tokenizer" not in state["recipe"]["arguments"]  # an option that had no say
    for name in ("tokenizer.json", PCA_FILE):
        assert (tmp_path / "model" / name).read_bytes() == (trained / name).read_bytes()


def test_initial_model_must_be_of_this_project_and_teacher(train, tmp_path):
    (tmp_path / "other").mkdir()
    assert "model.safetensors" in refused(train(tmp_path / "model", "--initial_model", tmp_path / "other"))
    (tmp_path / "other" / "model.safetensors").touch()
    assert PCA_FILE in refused(train(tmp_path / "model", "--initial_model", tmp_path / "other"))
    np.save(tmp_path / "other" / PCA_FILE, np.eye(8, 4, dtype=np.float32))
    message = refused(train(tmp_path / "model", "--initial_model", tmp_path / "other"))
    assert "8 dimensions, not 64" in message


def test_early_stopping(train, tmp_path):
    result = train(tmp_path / "model", "--lr", 1e-12, "--epochs", 9, "--patience", 2)
    assert result.code == 0, result.err
    assert "no better for 2 epochs: stopping" in result.out
    # At this rate only rounding can make an epoch better than the first.
    found = state(tmp_path / "model")
    assert found["epochs"] < 9
    assert found["best_epoch"] == found["epochs"] - 2


def test_accumulated_batches_make_one_step(train, tmp_path):
    result = train(
        tmp_path / "model", "--gradient_accumulation_steps", 4, "--epochs", 1, "--gradient_checkpointing"
    )
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
    assert "no finished teacher vectors" in refused(train(tmp_path / "model", "--teacher", nowhere))


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
    result = train(tmp_path / "model", "--projection_dim", 65)
    assert result.code == 2
    message = "error: the teacher has 64 dimensions, the student 65: choose a smaller --projection_dim"
    assert result.err.splitlines()[-1] == message


# What is written


def test_directory_is_what_every_loader_reads(trained):
    def read(name):
        return json.loads((trained / name).read_text())

    assert [(module["path"], module["type"]) for module in read("modules.json")] == [
        ("", "sentence_transformers.models.Transformer"),
        ("1_Pooling", "sentence_transformers.models.Pooling"),
        ("2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    pooling = read("1_Pooling/config.json")
    assert pooling["word_embedding_dimension"] == 32
    assert [key for key, value in pooling.items() if value is True] == [
        "pooling_mode_mean_tokens",
        "include_prompt",
    ]
    assert read("sentence_bert_config.json")["max_seq_length"] == 512
    assert (trained / "2_Normalize").is_dir()
    config = read("config.json")
    assert config["model_type"] == "asterisk"
    assert config["auto_map"] == {
        "AutoConfig": "configuration_asterisk.AsteriskConfig",
        "AutoModel": "modeling_asterisk.AsteriskModel",
    }
    for name in ("configuration_asterisk.py", "modeling_asterisk.py"):
        source = Path(train_accelerate.__file__).with_name(name)
        assert (trained / name).read_text() == source.read_text()
    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    assert config["vocab_size"] == tokenizer.get_vocab_size() == 300
    assert tokenizer.truncation["max_length"] == 512
    assert load_file(trained / "model.safetensors")["token_embeddings.weight"].shape == (300, 32)

"""Resizing: the model says what it said before, knows every word it knew, and can be trained further."""

import json

import numpy as np
import pytest
from conftest import invent_pairs, losses, refused
from safetensors.numpy import load_file

import resize_model

TOKENS, UNITS = 140, 320


@pytest.fixture(scope="module")
def resize(run_command, pairs):
    def call(model, output, vocab_size=TOKENS, intermediate_size=UNITS):
        sizes = ("--vocab_size", vocab_size, "--intermediate_size", intermediate_size)
        return run_command(resize_model, model, "--output", output, "--pairs", pairs, *sizes)

    return call


@pytest.fixture(scope="module")
def resized(resize, trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("resized") / "model"
    result = resize(trained, output)
    assert result.code == 0, result.err
    assert "160 tokens dropped" in result.out
    return output


def test_vectors_stay_where_no_token_was_dropped(resized, trained):
    from sentence_transformers import SentenceTransformer

    before, after = (SentenceTransformer(str(path), trust_remote_code=True) for path in (trained, resized))
    kept = set(after.tokenizer.get_vocab())
    texts = [text for pair in invent_pairs(200) for text in pair.values() if text]
    same = [text for text in texts if set(before.tokenizer.tokenize(text)) <= kept]
    assert 10 < len(same) < len(texts)
    np.testing.assert_allclose(after.encode(same), before.encode(same), atol=1e-6)
    assert not any(after.tokenizer.unk_token_id in after.tokenizer(text)["input_ids"] for text in texts)


def test_sizes_are_those_asked_for(resized, trained):
    config, old = (json.loads((path / "config.json").read_text()) for path in (resized, trained))
    assert config == old | {"vocab_size": TOKENS, "intermediate_size": UNITS}
    weights = load_file(resized / "model.safetensors")
    assert weights["token_embeddings.weight"].shape[0] == TOKENS
    assert weights["layers.1.intermediate.weight"].shape[0] == UNITS
    vocabulary = json.loads((resized / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(TOKENS))


def test_training_goes_on_and_uses_the_new_units(resized, trained, train, tmp_path):
    result = train(tmp_path / "model", "--initial_model", resized, "--epochs", 1)
    assert result.code == 0, result.err
    before, after = losses(trained), losses(tmp_path / "model")
    assert after[0]["val/cosine"] == pytest.approx(before[-1]["val/cosine"], abs=0.02)
    assert after[-1]["val/cosine"] < after[0]["val/cosine"]
    new_units = load_file(tmp_path / "model" / "model.safetensors")["layers.1.feed_forward_output.weight"][:, 256:]
    assert np.abs(new_units).min(axis=0).max() > 0
    state = json.loads((tmp_path / "model" / "training_state.json").read_text())
    assert state["initial_training"]["resized"] == {"vocab_size": TOKENS, "intermediate_size": UNITS}


def test_sizes_that_cannot_be_had_are_one_line(resize, trained, train, tmp_path):
    output = tmp_path / "out"
    assert "at most the model's 300" in refused(resize(trained, output, vocab_size=301))
    assert "at least its 256" in refused(resize(trained, output, intermediate_size=128))
    assert "single characters alone are" in resize(trained, output, vocab_size=5).err.splitlines()[-1]
    assert "training_state.json" in refused(resize(tmp_path, output))
    assert train(tmp_path / "bpe", "--tokenizer", "bpe:300", "--epochs", 1).code == 0
    assert "only a WordPiece" in refused(resize(tmp_path / "bpe", output, vocab_size=280))
    assert not output.exists()

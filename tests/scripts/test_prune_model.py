"""A pruned model is nearly the model, and every loader takes it."""

import json

import pytest
import torch
from conftest import invent_pairs, refused
from sentence_transformers import SentenceTransformer

TEXTS = [pair["summary"] for pair in invent_pairs(40, seed=3)]


@pytest.fixture(scope="module")
def prune(run_command, trained, pairs):
    def call(output, *options):
        return run_command("scripts/prune_model.py", trained, "--pairs", pairs, "--output", output, *options)

    return call


def test_pruned_model_is_nearly_the_model(prune, trained, tmp_path):
    result = prune(tmp_path / "pruned", "--vocabulary", 290, "--intermediate_size", 128)
    assert result.code == 0, result.err
    settings, expected = (
        json.loads((model / "tokenizer_config.json").read_text()) for model in (tmp_path / "pruned", trained)
    )
    assert settings.pop("added_tokens_decoder") and settings == {
        name: value for name, value in expected.items() if name != "added_tokens_decoder"
    }
    config = json.loads((tmp_path / "pruned" / "config.json").read_text())
    assert (config["vocab_size"], config["intermediate_size"]) == (290, 128)
    whole, pruned = (
        SentenceTransformer(str(model), trust_remote_code=True, device="cpu")
        for model in (trained, tmp_path / "pruned")
    )
    cosines = torch.nn.functional.cosine_similarity(
        whole.encode(TEXTS, convert_to_tensor=True), pruned.encode(TEXTS, convert_to_tensor=True)
    )
    assert cosines.mean() > 0.99
    assert pruned.tokenizer.tokenize("the quick zebra #1") and len(pruned.tokenizer) == 290


def test_what_the_model_does_not_have_cannot_stay(prune, tmp_path):
    message = refused(prune(tmp_path / "pruned", "--vocabulary", 290, "--intermediate_size", 4096))
    assert "--intermediate_size is 4096: the model has 256" in message

"""The same numbers in each loader: the rows of the table in docs/loaders.md, and the files that servers read."""

import json
import logging
from pathlib import Path

import loader_rows
import pytest
from conftest import ROOT
from safetensors.numpy import load_file


@pytest.fixture(scope="module")
def exported_bpe(train, export, tmp_path_factory):
    """The miniature model with a byte-level BPE instead of a WordPiece."""
    output = tmp_path_factory.mktemp("build") / "model_bpe"
    assert train(output, "--tokenizer", "bpe:500", "--epochs", 1).code == 0
    assert export(output).code == 0
    return output


@pytest.fixture(scope="module", params=["exported", "exported_bpe"])
def model(request):
    """The directory of a model, and the vectors to compare with."""
    directory = request.getfixturevalue(request.param)
    return directory, loader_rows.auto_model(directory)


@pytest.mark.slow
@pytest.mark.parametrize("name", loader_rows.ROWS)
def test_row(name, model, caplog, monkeypatch):
    if name.startswith("transformers.js") and not loader_rows.NODE_ROOT.exists():
        pytest.skip("no npm on this machine")
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    directory, reference = model
    threshold, embed = loader_rows.ROWS[name]
    vectors = embed(directory)
    assert len(vectors) == len(loader_rows.SENTENCES) == 50
    # transformers.js cuts after it has appended the special token: texts beyond 512 tokens lose it, and these
    # few texts, cut into many small tokens, lean on it.
    rows = slice(-4 if name.startswith("transformers.js") and directory.name == "model_bpe" else None)
    assert loader_rows.worst_cosine(vectors[rows], reference[rows]) >= threshold
    assert "longer than" not in caplog.text, "what tokenizers say of texts that nobody cuts"


def test_files_that_servers_read(exported):
    def read(name):
        return json.loads(Path(exported, name).read_text())

    assert [(module["path"], module["type"]) for module in read("modules.json")] == [
        ("", "sentence_transformers.models.Transformer"),
        ("1_Pooling", "sentence_transformers.models.Pooling"),
        ("2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    assert (exported / "2_Normalize").is_dir()
    pooling = read("1_Pooling/config.json")
    assert pooling["word_embedding_dimension"] == read("config.json")["hidden_size"] == 32
    assert [key for key, value in pooling.items() if value is True] == [
        "pooling_mode_mean_tokens",
        "include_prompt",
    ]
    assert read("sentence_bert_config.json")["max_seq_length"] == 512
    tokenizer = read("tokenizer_config.json")
    assert tokenizer["model_max_length"] == 512
    assert tokenizer["padding_side"] == "right"
    assert read("tokenizer.json")["truncation"]["max_length"] == 512
    assert read("special_tokens_map.json")["pad_token"]["content"] == tokenizer["pad_token"]
    config = read("config.json")
    assert config["model_type"] == "asterisk"
    assert config["auto_map"] == {
        "AutoConfig": "configuration_asterisk.AsteriskConfig",
        "AutoModel": "modeling_asterisk.AsteriskModel",
    }
    for name in ("configuration_asterisk.py", "modeling_asterisk.py"):
        assert (exported / name).read_bytes() == (ROOT / name).read_bytes()
    assert config["vocab_size"] == len(read("tokenizer.json")["model"]["vocab"]) == 300
    assert load_file(exported / "model.safetensors")["token_embeddings.weight"].shape == (300, 32)

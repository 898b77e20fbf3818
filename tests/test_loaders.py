"""The same numbers in each loader: the rows of README's conformance table, and the files that servers read."""

import json
import os
import subprocess
from pathlib import Path

import loader_rows
import numpy as np
import pytest


@pytest.fixture(scope="module")
def reference(exported):
    return loader_rows.auto_model(exported)


@pytest.mark.parametrize("name", loader_rows.ROWS)
def test_row(name, exported, reference):
    if name.startswith("transformers.js") and not loader_rows.NODE_ROOT.exists():
        pytest.skip("no npm on this machine")
    threshold, embed = loader_rows.ROWS[name]
    vectors = embed(exported)
    assert len(vectors) == len(loader_rows.SENTENCES) == 50
    assert loader_rows.worst_cosine(vectors, reference) >= threshold


@pytest.fixture(scope="module")
def exported_bpe(train, export, tmp_path_factory):
    """The miniature model with a byte-level BPE instead of a WordPiece."""
    output = tmp_path_factory.mktemp("build") / "model_bpe"
    assert train(output, "--tokenizer", "bpe:500", "--epochs", 1).code == 0
    assert export(output).code == 0
    return output


@pytest.mark.parametrize("name", [name for name in loader_rows.ROWS if "q" not in name.split(", ")[-1]])
def test_row_with_a_byte_level_tokenizer(name, exported_bpe):
    threshold, embed = loader_rows.ROWS[name]
    # transformers.js cuts after it has appended the special token: texts beyond 512 tokens lose it, and these
    # few texts, cut into many small tokens, lean on it.
    rows = slice(-4) if name.startswith("transformers.js") else slice(None)
    if rows != slice(None) and not loader_rows.NODE_ROOT.exists():
        pytest.skip("no npm on this machine")
    reference = loader_rows.auto_model(exported_bpe)
    assert loader_rows.worst_cosine(embed(exported_bpe)[rows], reference[rows]) >= threshold


@pytest.mark.skipif("NEXT_PYTHON" not in os.environ, reason="run by make test-next, which makes the environment")
def test_pytorch_rows_with_the_next_versions(exported, reference, tmp_path):
    np.save(tmp_path / "reference.npy", reference)
    command = [os.environ["NEXT_PYTHON"], loader_rows.__file__, exported, "--pytorch", tmp_path / "reference.npy"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| 0.99999 |") == 3


def test_no_loader_warns_of_long_texts(exported, capfd):
    loader_rows.sentence_transformer(exported)
    loader_rows.auto_model(exported)
    assert "longer than" not in capfd.readouterr().err


def test_files_that_servers_read(exported):
    def read(name):
        return json.loads(Path(exported, name).read_text())

    modules = [module["type"] for module in read("modules.json")]
    assert modules == [f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")]
    pooling = read("1_Pooling/config.json")
    assert pooling["word_embedding_dimension"] == read("config.json")["projection_dim"]
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
    assert read("config.json")["auto_map"] == {
        "AutoConfig": "configuration_asterisk.AsteriskConfig",
        "AutoModel": "modeling_asterisk.AsteriskModel",
    }

"""What earlier releases wrote is opened, or refused in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import refused

from asterisk import AsteriskEncoder
from asterisk.dedupe import Deduplicator, Item
from asterisk.search import Index

RELEASES = sorted(path for path in (Path(__file__).parent / "golden").iterdir() if path.is_dir())


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def golden(request, tmp_path):
    """A copy of what a release wrote: opening a database writes beside it."""
    return shutil.copytree(request.param, tmp_path / "golden")


@pytest.fixture
def encoder(golden):
    return AsteriskEncoder(str(golden / "model"), threads=1)


def test_model_gives_the_same_vectors(golden, encoder):
    from sentence_transformers import SentenceTransformer

    texts, expected = json.loads((golden / "texts.json").read_text())["texts"], np.load(golden / "vectors.npy")
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-3)
    model = SentenceTransformer(str(golden / "model"), trust_remote_code=True, device="cpu")
    assert (model.encode(texts) * expected).sum(axis=1).min() > 0.9  # INT8 of so few weights


def test_index_is_searched(golden):
    with Index(golden / "index.sqlite", str(golden / "model")) as index:
        assert index.search("starter in the evening")[0].path.name == "bread.txt"
        assert index.status().files == 2


def test_state_remembers(golden, encoder):
    with Deduplicator(encoder, golden / "state.sqlite") as deduplicator:
        deduplicator.add([Item("Quake hits Lisbon", published=1e9), Item("Cup final drawn", published=1e9)])
        assert deduplicator.seen == 1


def test_embedding_is_finished(golden, run_command, monkeypatch):
    """The manifest names the input by its path, which is another now: it is refused, and nothing is touched."""
    monkeypatch.chdir(golden)
    before = pq.read_table(golden / "embedded")
    result = run_command("asterisk/cli.py", "embed", "rows.jsonl", "--output", "embedded", "--model", "model")
    assert "embedded" in refused(result)
    assert pq.read_table(golden / "embedded").equals(before)

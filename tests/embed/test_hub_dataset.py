"""A dataset on the Hub, streamed by the real client from a local stand-in."""

import io
import json

import numpy as np
import pytest
from conftest import RELEASE, ROOT, invent_pairs
from hub_server import HubServer

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

TEXTS = [pair["summary"] for pair in invent_pairs(30, seed=6)]
COMMIT = "c" * 40


@pytest.fixture
def hub():
    files = {}
    for number in range(2):
        rows = slice(15 * number, 15 * number + 15)
        table = pa.table({"key": range(30), "body": TEXTS}).slice(rows.start, 15)
        sink = io.BytesIO()
        pq.write_table(table, sink)
        files[f"data/train-{number:05}-of-00002.parquet"] = sink.getvalue()
    with HubServer("hf_token") as hub:
        hub.branches["someone/texts", "main"] = [(COMMIT, files)]
        yield hub


@pytest.fixture
def embed(hub, python, tmp_path):
    def call(*arguments):
        environment = hub.environment(tmp_path / "home") | {"PYTHONPATH": ROOT, "ASTERISK_MODEL": RELEASE}
        command = ("-m", "asterisk.cli", "embed", *arguments, "--output", "vectors", "--threads", 1)
        return python(*command, cwd=tmp_path, env=environment, timeout=120)

    return call


@pytest.mark.slow
def test_dataset_is_streamed(embed, tmp_path, released_encoder):
    options = ("--column", "body", "--id_column", "key", "--rows_per_file", 12)
    done = embed("someone/texts", *options)
    assert (done.returncode, done.stdout) == (
        0,
        "vectors: 30 rows in 3 files, of 30 read; 0 malformed\n",
    ), done.stderr
    table = pq.read_table(tmp_path / "vectors")
    assert table["key"].to_pylist() == list(range(30))
    vectors = np.stack(table["embedding"].to_numpy()).astype(np.float32)
    np.testing.assert_allclose(vectors, released_encoder.encode(TEXTS), atol=1e-3)
    recipe = json.loads((tmp_path / "vectors" / "_manifest.json").read_text())["recipe"]
    assert recipe["inputs"] == [{"dataset": "someone/texts", "revision": COMMIT, "split": "train"}]
    assert not list((tmp_path / "home").rglob("*.parquet")), "nothing is stored"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("someone/nothing",), "someone/nothing: no such file, and no such dataset on the Hub; check the name"),
        (("someone/texts",), "someone/texts: no column 'text'; there are: key, body; choose with --column"),
        (("someone/texts", "--column", "body", "--split", "test"), "someone/texts, split test: "),
    ],
)
def test_refused(embed, arguments, message):
    done = embed(*arguments)
    assert done.returncode == 2, done.stderr
    assert f"error: {message}" in done.stderr

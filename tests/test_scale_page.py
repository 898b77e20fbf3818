"""docs/scale.md: its command makes vectors, its programs read them; that for Spark runs where it is installed."""

import re
import sys

import numpy as np
import pytest
from conftest import RELEASE, ROOT, invent_pairs

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
SPARK = next(block for block in BLOCKS if "pyspark" in block)
ROWS = 40


@pytest.fixture
def page(run_command, tmp_path, monkeypatch):
    """A directory in which the page's first command has been run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASTERISK_MODEL", str(RELEASE))
    (tmp_path / "release").symlink_to(ROOT / "release")
    (tmp_path / "corpus").mkdir()
    texts = [pair["summary"] for pair in invent_pairs(ROWS, seed=8)]
    pq.write_table(pa.table({"url": [f"u{i}" for i in range(ROWS)], "text": texts}), "corpus/a.parquet")
    arguments = re.search(r"^asterisk embed corpus/\*\.parquet (.*)$", PAGE, flags=re.M)[1].split()
    result = run_command("asterisk/cli.py", "embed", "corpus/a.parquet", *arguments, "--threads", 1)
    assert result.code == 0, result.err
    return texts


def test_programs(page, tmp_path, released_encoder):
    names = {}
    for block in BLOCKS:
        if block is not SPARK:
            exec(block, names)
    assert names["rows"]["url"][:2] == ["u0", "u1"]
    assert names["nearest"][0] == ("u0", pytest.approx(1, abs=1e-3))
    assert names["frame"].height == ROWS
    assert str(names["frame"].schema["embedding"]) == "Array(Float16, shape=(256,))"
    np.testing.assert_allclose(names["matrix"].astype(np.float32), released_encoder.encode(page), atol=1e-3)
    best = (names["matrix"] @ names["matrix"][0]).argsort()[::-1]
    assert names["found"][0] == names["rows_found"][0][0] == best[0] == 0
    assert set(names["rows_found"][0]) == set(best[:10])
    assert np.shape(names["embedded"]["embedding"]) == (2, 256)


@pytest.mark.slow
def test_program_for_spark(page, released_encoder, monkeypatch):
    pytest.importorskip("pyspark")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    names = {"__name__": "__main__"}
    exec(SPARK, names)
    rows = names["rows_of_spark"]
    names["spark"].stop()
    expected = released_encoder.encode([row["text"] for row in rows])
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_other_precisions_in_the_indexes(page, run_command, tmp_path, precision):
    faiss, usearch = pytest.importorskip("faiss"), pytest.importorskip("usearch.index")
    options = ("--output", "small", "--precision", precision, "--threads", 1)
    assert run_command("asterisk/cli.py", "embed", "corpus/a.parquet", *options).code == 0
    column = pq.read_table("small")["embedding"].combine_chunks()
    matrix = column.flatten().to_numpy().reshape(ROWS, -1)
    kinds = {"int8": (256, "cos", "i8"), "binary": (256, "hamming", "b1")}
    dim, metric, kind = kinds[precision]
    index = usearch.Index(ndim=dim, metric=metric, dtype=kind)
    index.add(np.arange(ROWS), matrix)
    assert index.search(matrix[3], 1).keys[0] == 3
    if precision == "binary":
        flat = faiss.IndexBinaryFlat(dim)
        flat.add(matrix)
        assert flat.search(matrix[3:4], 1)[1][0, 0] == 3

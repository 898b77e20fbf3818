"""`asterisk embed --output`: what comes out, from which inputs, again after a kill, and what is refused."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import RELEASE, ROOT, invent_pairs, refused

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from asterisk.embed import Job, embed_locally, local, make_job, reading  # noqa: E402
from asterisk.embed.local import file_name  # noqa: E402

TEXTS = [pair["summary"] for pair in invent_pairs(50, seed=5)]


@pytest.fixture
def embed(run_command, tmp_path, monkeypatch):
    """Run the command in `tmp_path` with one worker; the output is in `vectors`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASTERISK_MODEL", str(RELEASE))

    def call(*arguments):
        return run_command("asterisk/cli.py", "embed", *arguments, "--output", "vectors", "--threads", 1)

    return call


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"number": range(len(TEXTS)), "text": TEXTS, "other": TEXTS}), path, row_group_size=7)
    return path.name


def output(tmp_path):
    return pq.read_table(tmp_path / "vectors")


def manifest(tmp_path):
    return json.loads((tmp_path / "vectors" / "_manifest.json").read_text())


def test_vectors_are_those_of_the_encoder(embed, corpus, tmp_path, released_encoder):
    result = embed(corpus, "--id_column", "number", "--rows_per_file", 20)
    assert (result.code, result.out) == (
        0,
        "vectors: 50 rows in 3 files, of 50 read; 0 malformed\n",
    ), result.err
    table = output(tmp_path)
    assert table.schema.names == ["number", "embedding"]
    assert table["number"].to_pylist() == list(range(50))
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 256)
    vectors = np.stack(table["embedding"].to_numpy()).astype(np.float32)
    np.testing.assert_allclose(vectors, released_encoder.encode(TEXTS), atol=1e-3)
    made = manifest(tmp_path)
    assert made["files"] == {file_name(0): 20, file_name(1): 20, file_name(2): 10}
    assert (made["rows_in"], made["rows_out"], made["schema"]["number"]) == (50, 50, "int64")


@pytest.mark.parametrize(("precision", "least"), [("float16", 0.99999), ("int8", 0.999), ("binary", 0.65)])
def test_precisions_keep_the_direction(embed, corpus, tmp_path, released_encoder, precision, least):
    assert embed(corpus, "--precision", precision, "--truncate_dim", 64).code == 0
    packed = np.stack(output(tmp_path)["embedding"].to_numpy())
    vectors = np.unpackbits(packed, axis=1) * 2.0 - 1 if precision == "binary" else packed.astype(np.float32)
    expected = released_encoder.encode(TEXTS, truncate_dim=64)
    cosines = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1)
    assert cosines.min() > least
    if precision == "int8":
        vectors /= manifest(tmp_path)["scale"]
        assert np.abs(vectors - expected).max() < 0.1


LINES = [json.dumps({"key": f"k{i}", "body": text}) for i, text in enumerate(TEXTS)]
CSV = ["key,body", *(f'k{i},"{text}, and\nmore"' for i, text in enumerate(TEXTS))]
TSV = ["key\tbody", *(f'k{i}\t{text} "' for i, text in enumerate(TEXTS))]


@pytest.mark.parametrize(
    ("name", "lines", "change"),
    [
        ("a.jsonl", LINES, lambda text: text),
        ("a.csv", CSV, lambda text: f"{text}, and\nmore"),
        ("a.tsv", TSV, lambda text: f'{text} "'),
    ],
)
@pytest.mark.parametrize("compressed", ["", ".gz", ".zst"])
def test_formats(embed, tmp_path, released_encoder, name, lines, change, compressed):
    with pa.output_stream(tmp_path / (name + compressed), compression="detect") as stream:
        stream.write("\n".join(lines).encode())
    result = embed(name + compressed, "--column", "body", "--id_column", "key")
    assert result.code == 0, result.err
    table = output(tmp_path)
    assert table["key"].to_pylist() == [f"k{i}" for i in range(50)]
    expected = released_encoder.encode([change(text) for text in TEXTS])
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()).astype(np.float32), expected, atol=1e-3)


def test_text_files_and_places_as_ids(embed, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\nthree")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"four\n") + gzip.compress(b"five\n"))
    assert embed("a.txt", "b.txt.gz").code == 0
    table = output(tmp_path)
    assert table["id"].to_pylist() == ["a.txt:1", "a.txt:2", "a.txt:3", "b.txt.gz:1", "b.txt.gz:2"]
    assert table["embedding"].null_count == 0


MALFORMED = [
    (
        "a.jsonl",
        b'{"text": "fine"}\n{"text": 3}\nnot json\n[1]\n{"text": null}\n{"text": "\xff"}\n{"text": "\\ud800"}',
    ),
    ("a.csv", b'id,text\n1,fine\n2,too,many\n3\n4,\xff\n5,"x"y\n6,"'),
    ("a.txt", b"fine\n\xff\n\xfe\n\xff\n\xff\n\xff\n\xff"),
]


@pytest.mark.parametrize("policy", ["null", "skip"])
@pytest.mark.parametrize(("name", "content"), MALFORMED, ids=lambda value: value if isinstance(value, str) else "")
def test_malformed_rows_are_named_and_counted(embed, tmp_path, name, content, policy):
    (tmp_path / name).write_bytes(content)
    result = embed(name, "--on-error", policy)
    rows = manifest(tmp_path)["rows_in"]
    assert result.code == 0, result.err
    assert (manifest(tmp_path)["malformed"], output(tmp_path)["embedding"].null_count) == (
        rows - 1,
        rows - 1 if policy == "null" else 0,
    )
    assert len(output(tmp_path)) == (rows if policy == "null" else 1)
    named = [line for line in result.err.splitlines() if line.startswith(f"{name} line ")]
    assert len(named) == rows - 1
    assert named[0].endswith("kept without a vector" if policy == "null" else "left out")


def test_malformed_rows_of_parquet(embed, tmp_path):
    bad = pa.array([b"fine", None, b"\xff", b"good"]).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    result = embed("a.parquet")
    assert result.code == 0, result.err
    assert "a.parquet row 2: no text; kept" in result.err
    assert "a.parquet row 3: text is not UTF-8; kept" in result.err
    assert output(tmp_path)["embedding"].is_null().to_pylist() == [False, True, True, False]


def test_many_malformed_rows_are_only_counted(embed, tmp_path):
    (tmp_path / "a.jsonl").write_text("x\n" * 40)
    result = embed("a.jsonl")
    assert result.err.count("not JSON") == 10
    assert "further malformed rows are only counted" in result.err
    assert manifest(tmp_path)["malformed"] == 40


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_kinds_of_text_columns(embed, tmp_path, kind):
    pq.write_table(pa.table({"text": pa.array(TEXTS).cast(kind)}), tmp_path / "a.parquet")
    assert embed("a.parquet").code == 0
    assert len(output(tmp_path)) == len(TEXTS)


def test_no_rows(embed, tmp_path):
    (tmp_path / "a.txt").touch()
    assert embed("a.txt").out == "vectors: 0 rows in 0 files, of 0 read; 0 malformed\n"


def test_up_to_date_until_something_changes(embed, corpus, tmp_path):
    assert embed(corpus).code == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "vectors").iterdir()}
    assert embed(corpus).code == 0
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "vectors").iterdir()} == before
    assert "made with another precision" in refused(embed(corpus, "--precision", "int8"))
    (tmp_path / corpus).touch()
    assert "made with another inputs" in refused(embed(corpus))


def test_only_missing_files_are_made_again(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = make_job([corpus], tmp_path / "vectors", str(RELEASE), rows_per_file=10)
    embed_locally(job, workers=1)
    expected = output(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").glob("part-*")}
    (tmp_path / "vectors" / file_name(1)).unlink()
    damaged = tmp_path / "vectors" / file_name(3)
    damaged.write_bytes(damaged.read_bytes()[:-50])
    (tmp_path / "vectors" / "_manifest.json").write_text(json.dumps({"recipe": job.recipe("local")}))
    embed_locally(job, workers=1)
    changed = {path.name for path, time in files.items() if path.stat().st_mtime_ns != time}
    assert changed == {file_name(1), file_name(3)}
    assert output(tmp_path).equals(expected)


def test_a_file_that_was_damaged_later_is_made_again(embed, corpus, tmp_path):
    assert embed(corpus, "--rows_per_file", 20).code == 0
    path = tmp_path / "vectors" / file_name(1)
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    assert embed(corpus, "--rows_per_file", 20).code == 0
    assert output(tmp_path).num_rows == 50
    assert path.read_bytes() == whole


def test_a_mistake_leaves_nothing_in_the_way(embed, corpus):
    assert "no column" in refused(embed(corpus, "--column", "body"))
    assert embed(corpus).code == 0


@pytest.mark.slow
def test_killed_run_goes_on(corpus, tmp_path):
    pq.write_table(pa.table({"text": TEXTS * 400}), tmp_path / "many.parquet")
    command = [sys.executable, "-m", "asterisk.cli", "embed", "many.parquet", "--output", "vectors"]
    command += ["--rows_per_file", "1000", "--model", str(RELEASE)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while not (tmp_path / "vectors" / file_name(1)).exists():
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    whole = [path for path in (tmp_path / "vectors").glob("*.parquet") if pq.read_metadata(path).num_rows == 1000]
    assert len(whole) == len(list((tmp_path / "vectors").glob("*.parquet"))) < 20
    before = {path: path.stat().st_mtime_ns for path in whole}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "vectors: 20,000 rows in 20 files, of 20,000 read; 0 malformed\n")
    assert before == {path: path.stat().st_mtime_ns for path in whole}
    ids = output(tmp_path)["id"].to_pylist()
    assert ids == [f"many.parquet:{row}" for row in range(1, 20_001)]


def test_lost_rows_are_noticed(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job([corpus], tmp_path / "vectors", str(RELEASE))
    monkeypatch.setattr(local.Writer, "flush", lambda self: None)
    with pytest.raises(RuntimeError, match="stands for 0 rows of the input instead of 50"):
        embed_locally(job, workers=1)


def test_tables_stay_small(tmp_path, monkeypatch):
    """Memory does not grow with rows or their length: what is read at a time is bounded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("\n".join(["x" * 1_000_000] * 30 + ["y"] * 3000))
    job = Job(["a.txt"], tmp_path / "vectors", str(RELEASE))
    tables = [table for table, _ in reading.read(job)]
    assert max(map(len, tables)) <= reading.ROWS
    assert max(table.nbytes for table in tables) < 10_000_000
    assert sum(map(len, tables)) == 3030


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.parquet",), "missing.parquet: no such file"),
        (("corpus.parquet", "corpus.parquet"), "corpus.parquet: named twice"),
        (("corpus.parquet", "missing"), "missing: no such file; a Hub dataset must be the only source"),
        ((".",), ".: a directory; name its files"),
        (("a.doc",), "a.doc: not one of the types"),
        (("corpus.parquet", "--column", "body"), "no column 'body'; there are: number, text, other; choose"),
        (("corpus.parquet", "--column", "number"), "column number is of type int64, no text"),
        (("corpus.parquet", "--id_column", "nr"), "no column 'nr'"),
        (("corpus.parquet", "--id_column", "text"), "this is the column of the texts"),
        (("corpus.parquet", "--id_column", "embedding"), "the vectors take this name"),
        (("corpus.parquet", "--truncate_dim", 300), "the model's vectors have 256 numbers"),
        (("corpus.parquet", "--truncate_dim", 12, "--precision", "binary"), "a multiple of 8"),
        (("broken.parquet",), "broken.parquet: damaged"),
        (("broken.txt.gz",), "broken.txt.gz: damaged (Truncated compressed stream)"),
        (("empty.csv",), "empty.csv line 1: no header"),
        (("a.jsonl",), "a.jsonl: no column 'text'; there are: body"),
        (("a.txt", "--id_column", "x"), "a text file has no columns"),
        ((), "--output is for files"),
    ],
)
def test_refused(embed, corpus, tmp_path, arguments, message):
    (tmp_path / "a.doc").touch()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.jsonl").write_text('{"body": "x"}')
    (tmp_path / "broken.parquet").write_bytes((tmp_path / corpus).read_bytes()[:-20])
    (tmp_path / "broken.txt.gz").write_bytes(gzip.compress(os.urandom(5000))[:-30])
    assert message in refused(embed(*arguments))


def test_options_of_many_texts_need_an_output(run_command):
    assert "--precision is for many texts" in refused(
        run_command("asterisk/cli.py", "embed", "--precision", "int8")
    )


def test_other_files_are_not_touched(embed, corpus, tmp_path):
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "mine.txt").write_text("x")
    assert "not empty, and no earlier output" in refused(embed(corpus))

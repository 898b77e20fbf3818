"""Input that is made to break what reads it: small on disk, without end in memory or in depth."""

import gzip
import io
import json
import resource
from pathlib import Path

import numpy as np
import pytest

from asterisk.data.sources import Selection, Tally, raw_pairs
from asterisk.data.teacher_vectors import load_teacher_vectors
from asterisk.dedupe.feeds import read_stream
from asterisk.embed import reading
from asterisk.errors import InputError
from asterisk.files import read_json
from asterisk.search.documents import Unreadable
from asterisk.search.passages import cut
from asterisk.search.sources import find, read
from asterisk.training.pca import PCA_FILE, load_pca

DEPTH = 100_000
STATM = Path("/proc/self/statm")
TENFOLD = [(f"a{i}", f"a{i - 1}") for i in range(1, 10)]  # each ten times the one before
YAML = "a0: &a0 [lol]\n" + "".join(f"{a}: &{a} [{', '.join([f'*{b}'] * 10)}]\n" for a, b in TENFOLD)
DTD = "<!DOCTYPE x [<!ENTITY a0 'lol'>" + "".join(f"<!ENTITY {a} '{f'&{b};' * 10}'>" for a, b in TENFOLD) + "]>"


@pytest.fixture(autouse=True)
def little_memory():
    """Fail with a MemoryError before the machine's memory is full."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if STATM.exists():
        used = int(STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture
def documents(tmp_path):
    def call(name, text):
        (tmp_path / name).write_text(text)
        (source,) = find(tmp_path / name).sources
        return list(read(source, source.content()))

    return call


def items(text):
    problems = []
    found = list(read_stream(io.BufferedReader(io.BytesIO(text.encode())), "feed", problems.append))
    return found, problems


@pytest.mark.parametrize("key", ["title", "tags", "date"])
def test_front_matter_that_grows_without_end(documents, key):
    (note,) = documents("note.md", f"---\n{YAML}{key}: [*a9, rye, 7]\n---\nBread")
    assert (note.title, note.tags) == ("note", ["7", "rye"] if key == "tags" else [])
    assert [block.text for block in note.blocks] == ["Bread"]


def test_entities_that_grow_without_end():
    feed = f"{DTD}<rss version='2.0'><channel><item><title>Quake &a9;</title></item></channel></rss>"
    opml = f"{DTD}<opml version='2.0'><body><outline text='Quake' url='u'/>&a9;</body></opml>"
    for text in (feed, opml):
        found, _ = items(text)
        assert all(len(item.title) < 100 for item in found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("quotes.md", "> " * DEPTH + "deep"),
        ("lists.md", "- " * DEPTH + "deep"),
        ("links.md", "[" * DEPTH + "deep"),
        ("yaml.md", f"---\na: {'[' * 10_000}\n---\ndeep"),
        ("long_yaml.md", f"---\na: {'[' * 10 * DEPTH}\n---\ndeep"),
        ("divisions.html", "<div>" * DEPTH + "deep"),
        ("lists.html", "<ul><li>" * DEPTH + "deep"),
        (
            "parts.eml",
            "Content-Type: multipart/mixed; boundary=x\n\n" + "--x\nContent-Type: message/rfc822\n\n" * 3000,
        ),
        ("line.txt", "deep " * 200_000),
    ],
)
def test_deep_nesting_is_read_or_left_out(documents, released_encoder, name, text):
    try:
        (document,) = documents(name, text)
    except Unreadable as error:
        assert len(str(error)) < 100
    else:
        assert cut(document, released_encoder.tokenizer)


def test_deep_json(tmp_path):
    deep = "[" * DEPTH
    (tmp_path / "config.json").write_text(deep)
    assert read_json(tmp_path / "config.json") == {}
    assert "not JSON" in items("{" + deep)[1][0]
    (tmp_path / "rows.jsonl").write_text(f'{deep}\n{{"text": "bread"}}\n')
    with (tmp_path / "rows.jsonl").open("rb") as stream:
        rows = list(reading.line_rows(stream, "rows.jsonl", "text"))
    assert "not JSON" in str(rows[0][1])
    assert rows[1] == (2, {"text": "bread"})


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_line_without_end_in_a_small_file(tmp_path, suffix):
    """More than a gigabyte of one character, of which gzip makes some megabytes."""
    source = tmp_path / f"bomb{suffix}.gz"
    with gzip.open(source, "wb", compresslevel=1) as stream:
        stream.write(b"text,other\n" if suffix == ".csv" else b'{"text": "bread", "other": 1}\n')
        for _ in range(1200):
            stream.write(b"x" * 1_000_000)
    tally = Tally()
    assert not list(raw_pairs(str(source), Selection([str(source)], columns=["text", "other"]), tally))


def test_a_table_with_a_damaged_header(tmp_path):
    for text in ('"a"b,c\n', '"a'):
        with pytest.raises(InputError, match="no header"):
            list(reading.table_rows(io.BytesIO(text.encode()), "rows.csv"))


def test_foreign_arrays_and_descriptions(tmp_path):
    for array in (np.float32(1), np.zeros(4, np.float32), np.zeros((3, 2), np.float32)):
        np.save(tmp_path / PCA_FILE, array)
        with pytest.raises(InputError, match=PCA_FILE):
            load_pca(tmp_path, 4)
    np.save(tmp_path / PCA_FILE, np.array([{}], dtype=object))  # a pickle
    with pytest.raises(InputError, match="cannot be read"):
        load_pca(tmp_path, 4)
    (tmp_path / "teacher_meta.json").write_text(json.dumps({"rows": 2}))
    with pytest.raises(InputError, match="belong to other text pairs"):
        load_teacher_vectors(tmp_path, "x")

"""Killed at any moment, or beside another: the index stays whole, and the next run ends where one alone would."""

import os
import random
import signal
import subprocess
import sys
import time

import apsw
import pytest
from search_files import content, message, names, write_files

from asterisk.search.documents import Document
from asterisk.search.ranking import fuse
from asterisk.search.store import State

WORDS = "heron otter lantern orchard harbour cellar tower clock river ladder violin bridge".split()  # noqa: SIM905
CLI = "asterisk/cli.py"


@pytest.fixture
def many(tmp_path):
    rng = random.Random(0)
    files = {f"{i // 20}/{i}.md": f"# Note {i}\n\n{' '.join(rng.choices(WORDS, k=30))}\n" for i in range(100)}
    files["a.mbox"] = "".join(f"From a@b Mon Feb  5\n{message(f's{i}', f'body{i}')}\n" for i in range(40))
    return write_files(tmp_path / "many", files)


@pytest.fixture
def start(tmp_path):
    """Start `asterisk index` in a process of its own, with small blocks, so that there are many moments."""
    program = (
        "import sys; from asterisk import cli; import asterisk.search.indexing as i; i.BLOCK = 8; "
        "sys.argv[0] = 'asterisk'; cli.main()"
    )

    def call(*arguments):
        environment = os.environ | {"ASTERISK_INDEX": str(tmp_path / "data" / "index.sqlite")}
        command = [sys.executable, "-c", program, "index", "--threads", "1", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, **pipes)

    return call


def assert_whole(path):
    connection = apsw.Connection(str(path))
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    connection.execute("insert into words(words) values('integrity-check')")
    connection.close()


@pytest.fixture
def undisturbed(open_index, many, tmp_path):
    index = open_index(tmp_path / "undisturbed.sqlite")
    index.index(many)
    return content(index)


@pytest.mark.parametrize("function", ["insert_document", "delete_documents", "set_state"])
@pytest.mark.parametrize("number", [1, 60])
def test_killed_inside_a_transaction(kill, open_index, index, many, undisturbed, function, number, monkeypatch):
    monkeypatch.setenv("ASTERISK_INDEX", str(index.path))
    kill(f"asterisk.search.store.Store.{function}", number, CLI, "index", many)
    assert_whole(index.path)
    index.index(many)
    assert content(index) == undisturbed


@pytest.mark.slow
def test_killed_at_random_moments(start, index, many, undisturbed):
    rng = random.Random(1)
    for _ in range(20):
        process = start(many)
        time.sleep(rng.uniform(0.2, 2.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if index.path.exists():
            assert_whole(index.path)
    index.index(many)
    assert content(index) == undisturbed


@pytest.mark.slow
def test_two_processes_index_while_a_third_searches(start, index, many, undisturbed):
    processes = [start(many), start(many)]
    while any(process.poll() is None for process in processes):
        if index.path.exists() and index.path.stat().st_size:
            try:
                assert len(index.search("heron by the river", mode="words")) <= 10
            except ValueError as error:  # the file is there, but not yet the tables
                assert "not an index" in str(error)
                index.close()
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert_whole(index.path)
    index.close()
    index.index(many)
    assert content(index) == undisturbed


def test_what_another_deletes_during_a_search_is_still_shown(index, open_index, vault, monkeypatch):
    index.index(vault)

    def delete_and_fuse(*rankings):
        other = open_index()
        other.prune(vault)
        other.close()
        return fuse(*rankings)

    monkeypatch.setattr("asterisk.search.index.fuse", delete_and_fuse)
    index.close()  # so that it opens the file to read only
    assert names(index.search("water pressure", limit=1)) == ["Boiler.md"]
    monkeypatch.undo()
    assert index.search("water pressure", limit=1) == []


def test_mbox_that_two_processes_read_at_once(index, open_index, vault):
    index.index(vault)
    one, other = index.store(writable=True), open_index().store(writable=True)
    path, state = vault / "mail.mbox", State("stamp", 1.0, b"hash")
    parts = [[(Document(f"message {number}", []), [])] for number in range(3)]
    one.write(path, 1, 0, parts[0], None)
    other.write(path, 2, 0, parts[0], None)
    one.write(path, 1, 1, parts[1], None)
    one.write(path, 1, 2, parts[2], state)
    other.write(path, 2, 1, parts[1], None)
    other.write(path, 2, 2, parts[2], state)
    titles = one.rows("select title from documents where title like 'message %' order by title")
    assert titles == [("message 0",), ("message 1",), ("message 2",)]
    assert one.known()[path].stamp == "stamp"


def test_search_while_another_writes(open_index, index, many, vault):
    index.index(vault)
    reader = open_index()
    with index.store(writable=True).transaction() as connection:
        connection.execute("delete from documents")
        assert names(reader.search("night train", mode="words")) == ["Trip.md"]


@pytest.mark.slow
def test_ten_thousand_small_files(index, tmp_path):
    files = {f"{i % 100}/{i}.txt": f"{WORDS[i % 12]} number {i}" for i in range(10_000)}
    root = write_files(tmp_path / "many", files)
    assert index.index(root).added == 10_000
    assert names(index.search("lantern number 4154", mode="words", limit=1)) == ["4154.txt"]
    assert names(index.search("lantern number 4154", limit=1)) == ["4154.txt"]
    report = index.index()
    assert (report.unchanged, report.embedded) == (10_000, 0)

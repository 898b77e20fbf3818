"""The command `asterisk` as a person types it."""

import io
import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
from search_files import RELEASE, write_files

CLI = "asterisk/cli.py"


@pytest.fixture
def asterisk(run_command, tmp_path, monkeypatch):
    """Run the command with an index of the test's own."""
    monkeypatch.setenv("ASTERISK_INDEX", str(tmp_path / "index.sqlite"))

    def call(*arguments):
        return run_command(CLI, *arguments)

    return call


@pytest.fixture
def pipe(tmp_path):
    """Run the command in a process of its own, with bytes on its standard input."""

    def call(data, *arguments):
        command = [sys.executable, "-m", "asterisk.cli", *map(str, arguments)]
        environment = os.environ | {"ASTERISK_INDEX": str(tmp_path / "index.sqlite")}
        return subprocess.run(command, input=data, capture_output=True, env=environment, check=False, timeout=120)

    return call


def mistake(result):
    """Return the one line of a mistake; tests run in a process without a terminal."""
    assert result.code == 2, result
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    return result.err


def test_index_then_search(asterisk, vault):
    result = asterisk("index", vault)
    assert result.code == 0
    assert result.out.startswith("4 new; 5 passages in ")
    assert "\x1b" not in result.out
    result = asterisk("search", "water", "pressure", "--limit", 1)
    assert result.code == 0
    assert result.out.splitlines()[0].startswith(f"{vault / 'Boiler.md'}:7  ")
    assert "Boiler > Pressure" in result.out
    assert "add water until one bar" in result.out
    assert asterisk("index").out.startswith("4 unchanged; 0 passages")


def test_search_in_json(asterisk, vault):
    asterisk("index", vault)
    result = asterisk(
        "search", "sourdough", "--json", "--mode", "words", "--tag", "recipes", "--since", "2024-01-31"
    )
    (hit,) = map(json.loads, result.out.splitlines())
    assert hit["path"] == str(vault / "bread" / "Sourdough.md")
    assert hit["tags"] == ["baking/bread", "recipes"]
    assert (hit["line"], hit["cosine"]) == (5, None)
    assert asterisk("search", "sourdough", "--since", "30d", "--mode", "words").code == 1


def test_nothing_found_is_exit_code_1(asterisk, vault):
    asterisk("index", vault)
    result = asterisk("search", "xylophone", "--mode", "words")
    assert (result.code, result.out, result.err) == (1, "", "nothing found\n")


def test_queries_from_a_pipe(pipe, asterisk, vault):
    asterisk("index", vault)
    result = pipe("night train\n\nחדר\n".encode(), "search", "--json", "--limit", 1)
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == ["night train", "חדר"]
    assert answers[0]["hits"][0]["path"] == str(vault / "Trip.md")


def test_prompt(asterisk, vault):
    asterisk("index", vault)
    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "asterisk.cli", "search", "--limit", "1"]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, text=True) as process:
        os.write(keyboard, b"night train\n\ntomatoes\n\x04")
        out, _ = process.communicate(timeout=120)
    os.close(keyboard)
    os.close(terminal)
    assert process.returncode == 0
    assert out.count("search> ") == 4
    assert out.index("Trip.md:1") < out.index("garden.txt:1")


def test_similar_status_prune(asterisk, vault):
    write_files(vault, {"photo.txt": b"\x89PNG\0", "Radiator.md": "Bleed the radiators of the heating."})
    assert "skipped " in asterisk("index", vault).out
    assert asterisk("similar", vault / "Radiator.md").out.splitlines()[0].startswith(f"{vault / 'Boiler.md'}")
    status = asterisk("status").out
    assert "5 files, 5 documents, 6 passages" in status
    assert f"skipped {vault / 'photo.txt'}: binary" in status
    assert json.loads(asterisk("status", "--json").out)["skipped"] == {str(vault / "photo.txt"): "binary"}
    assert asterisk("prune", vault).out == "5 files forgotten\n"
    assert asterisk("search", "train").code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "x"], "no such index; make one with `asterisk index DIRECTORY`"),
        (["status"], "no such index"),
        (["index"], "nothing to index: name a directory"),
        (["index", "/nowhere/at/all"], "/nowhere/at/all: no such file or directory"),
        (["search", " "], "the query is empty"),
        (["search", os.fsdecode(b"caf\xe9")], "the query is not UTF-8"),
        (["search", "x", "--since", "yesterday"], "--since is 'yesterday': give a date such as"),
        (["search", "x", "--limit", "0"], "--limit"),
        (["search", "x", "--mode", "magic"], "--mode"),
        (["serch", "x"], "No such command 'serch'"),
        (["search", "--nonsense"], "--nonsense"),
        (["embed", "/nowhere.txt"], "/nowhere.txt: No such file"),
        (["embed", "--model", "/nowhere"], "/nowhere: no such directory"),
    ],
)
def test_mistakes_are_one_line(asterisk, arguments, message):
    assert message in mistake(asterisk(*arguments))


def test_without_the_packages_of_search(asterisk, monkeypatch):
    monkeypatch.setitem(sys.modules, "apsw", None)
    for name in [name for name in sys.modules if name.startswith("asterisk.search")]:
        monkeypatch.delitem(sys.modules, name)
    assert mistake(asterisk("search", "x")).endswith("pip install 'asterisk-embedding[search]'\n")


def test_help_shows_commands_and_examples(asterisk):
    result = asterisk()
    assert result.code == 0
    for name in ("embed", "index", "search", "similar", "status", "prune"):
        assert f"  {name} " in result.out
        assert "Example" in asterisk(name, "--help").out or name == "status"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(pipe, monkeypatch, shell):
    monkeypatch.setenv("_ASTERISK_COMPLETE", f"{shell}_source")
    assert b"_ASTERISK_COMPLETE" in pipe(b"").stdout


def test_completion_offers_commands(pipe, monkeypatch):
    monkeypatch.setenv("_ASTERISK_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "asterisk s")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert pipe(b"").stdout.split() == [b"plain,search", b"plain,serve", b"plain,similar", b"plain,status"]


def test_embed_writes_json_lines(pipe, released_encoder, tmp_path):
    result = pipe("a cat sat\n\nחתול\n".encode(), "embed", "--dim", 64)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.decode().splitlines()]
    assert [row["text"] for row in rows] == ["a cat sat", "", "חתול"]
    expected = released_encoder.encode([row["text"] for row in rows], truncate_dim=64)
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-6)


def test_embed_writes_an_array(pipe, released_encoder, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    (tmp_path / "b.txt").write_text("three\n")
    result = pipe(
        b"four", "embed", tmp_path / "a.txt", tmp_path / "b.txt", "-", "--format", "npy", "--model", RELEASE
    )
    vectors = np.load(io.BytesIO(result.stdout))
    np.testing.assert_allclose(vectors, released_encoder.encode(["one", "two", "three", "four"]), atol=1e-6)


def test_embed_names_the_line_that_is_not_utf_8(asterisk, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntw\xe9\n")
    assert "a.txt line 2: not UTF-8" in mistake(asterisk("embed", tmp_path / "a.txt"))


def test_reader_of_a_pipe_that_leaves_early(pipe, tmp_path):
    (tmp_path / "many.txt").write_text("a line\n" * 3000)
    command = f"{sys.executable} -m asterisk.cli embed {tmp_path / 'many.txt'} | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert json.loads(result.stdout)["text"] == "a line"
    assert result.stderr == ""


def test_text_of_a_page_cannot_steer_the_terminal(asterisk, tmp_path):
    files = {"evil.txt": "before \x1b]0;title\x07\x1b[31m after", "e\x1b[1mvil.txt": "another"}
    asterisk("index", write_files(tmp_path / "evil", files))
    result = asterisk("search", "before after another", "--mode", "words")
    assert result.out.count("vil.txt") == 2
    assert "\x1b" not in result.out
    assert "\x07" not in result.out

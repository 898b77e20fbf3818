"""The demonstration: it finds one's own text, and says in one line what it cannot do."""

import pytest
from conftest import refused


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("the badger crossed the bridge\n\nthe heron painted the lantern\n")
    return path


def test_nearest_text_comes_first(run_command, exported, notes):
    query = ("--query", "the heron painted the lantern")
    result = run_command("scripts/demo.py", "--model", exported, "--file", notes, *query)
    assert result.code == 0, result.err
    assert [line.split()[-1] for line in result.out.splitlines() if line] == ["lantern", "lantern", "bridge"]


def test_mistakes_are_one_line(run_command, exported, notes, tmp_path):
    def ask(*arguments):
        return refused(run_command("scripts/demo.py", "--model", exported, *arguments))

    assert "--query is empty" in ask("--query", " ", "--file", notes)
    assert "--query is not UTF-8" in ask("--query", "na\udcefve", "--file", notes)
    assert "cannot read" in ask("--file", "")
    assert "absent: no text pairs here" in ask("--pairs", tmp_path / "absent")
    assert "tokenizer.json: no such file" in ask("--model", tmp_path, "--file", notes)
    assert "--top is 0" in ask("--file", notes, "--top", 0)
    assert "absent.txt" in ask("--file", tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"good\nna\xefve\n")
    assert "latin.txt line 2: not UTF-8" in ask("--file", tmp_path / "latin.txt")
    (tmp_path / "blank.txt").write_text("\n \n")
    assert "no text in it" in ask("--file", tmp_path / "blank.txt")

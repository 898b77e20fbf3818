"""prepare_data: the pairs it writes, whole or not at all, and again only when something has changed."""

import json
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from conftest import refused

from asterisk.data import docstrings, sources

CAT, DOG = "The cat slept on the warm stove", "The dog guarded the cold door"


@pytest.fixture
def prepare(run_command, tmp_path, monkeypatch):
    """Run the command in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_command("scripts/prepare_data.py", "--output", "pairs", *arguments)


@pytest.fixture
def animals(tmp_path):
    path = tmp_path / "animals.txt"
    path.write_text(CAT)
    return path


def rows():
    return [(row["summary"], row["article"]) for row in datasets.load_from_disk("pairs")]


def test_pairs_and_counts_are_written(prepare):
    Path("animals.tsv").write_text(f"id\tfirst\tsecond\n1\t{CAT}\t{DOG}\n2\t{DOG}\t\n3\tno\tno\n")
    result = prepare("--dataset", "animals.tsv", "--columns", "first", "second")
    assert result.code == 0, result.err
    assert result.out.startswith("pairs: read 3 rows, kept 2; dropped 1 too short")
    assert rows() == [(CAT, DOG), (DOG, None)]
    counts = json.loads(Path("pairs/prepare_state.json").read_text())["counts"]
    assert counts == {"read": 3, "kept": 2, "dropped": {"too short": 1}}


def test_docstrings_of_the_standard_library_are_the_same_again(prepare):
    options = ("--dataset", "docstrings", "--limit", 50, "--seed", 3)
    assert prepare(*options).code == 0
    found = rows()
    assert len(found) == 50
    assert all(docstrings.is_prose(article) for _, article in found)
    Path("pairs/prepare_state.json").write_text('{"arguments": "others"}')
    assert prepare(*options).code == 0
    assert rows() == found


def test_second_run_is_up_to_date_until_something_changes(prepare, animals, change_source):
    prepare("--dataset", animals)
    assert prepare("--dataset", animals).out == "pairs is up to date (1 rows)\n"
    fingerprint = datasets.load_from_disk("pairs")._fingerprint
    animals.write_text(f"{CAT}\n{DOG}")
    assert prepare("--dataset", animals).out.startswith("pairs: read 2 rows")
    assert datasets.load_from_disk("pairs")._fingerprint != fingerprint
    change_source(docstrings, "words >= 6", "words >= 7")
    assert prepare("--dataset", animals).out.startswith("pairs: read 2 rows")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (PermissionError(13, "no", "place"), 2)])
def test_interruption_keeps_the_old_output(prepare, animals, monkeypatch, error, code):
    prepare("--dataset", animals)
    animals.write_text(f"{DOG}\n{CAT}")

    def fail_at_cat(text, clean=sources.clean):
        if "cat" in text:
            raise error
        return clean(text)

    monkeypatch.setattr(sources, "clean", fail_at_cat)
    assert prepare("--dataset", animals).code == code
    assert rows() == [(CAT, None)]
    assert sorted(path.name for path in Path().iterdir()) == ["animals.txt", "pairs"]


def test_foreign_output_is_not_replaced(prepare, animals):
    Path("pairs").mkdir()
    Path("pairs/letters.txt").write_text("precious")
    assert "was not written by this script" in refused(prepare("--dataset", animals))
    assert Path("pairs/letters.txt").read_text() == "precious"


def test_mistakes_are_one_line_and_leave_nothing(prepare, animals, monkeypatch):
    assert refused(prepare("--dataset", "nowhere.tsv")) == "error: no such file: nowhere.tsv\n"
    assert "no row of animals.txt can be used: read 1 rows" in refused(
        prepare("--dataset", "animals.txt", "--min_chars", 99)
    )
    assert "--limit is -1" in refused(prepare("--dataset", animals, "--limit", -1))
    Path("faults.tsv").write_text("a\tb\nno tab\n")
    assert "faults.tsv line 2: 1 cells instead of 2" in refused(prepare("--dataset", "faults.tsv", "--strict"))

    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    message = refused(prepare())
    assert "LogeshChandran/newsroom" in message and "make quickstart" in message
    assert not Path("pairs").exists()

"""prepare_data: cleaning, every kind of source, what is dropped and why, whole-or-nothing output."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import datasets
import prepare_data
import pytest

import docstrings
from asterisk.console import InputError, atomic_directory
from asterisk.hub import public_name

SCRIPT = Path(prepare_data.__file__)
CAT = "The cat slept on the warm stove"
DOG = "The dog guarded the cold door"


@pytest.fixture
def prepare(tmp_path, monkeypatch, capsys):
    """Run the command in `tmp_path`; return its rows, its recorded counts and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["prepare_data", "--output", "pairs", *map(str, arguments)])
        prepare_data.main()
        rows = [(row["summary"], row["article"]) for row in datasets.load_from_disk("pairs")]
        return rows, json.loads(Path("pairs/prepare_state.json").read_text())["counts"], capsys.readouterr()

    return run_command


def write(name, content):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Fish &amp; chips &lt;now&gt;", "Fish & chips <now>"),
        ("The cafÃ© wonâ€™t open", "The café won't open"),
        ("“Stay”, she said", '"Stay", she said'),
        ("``Go home'', he said", '"Go home", he said'),
        ('""Go home"", he said', '"Go home", he said'),
        ("so\u00adft hy\u200bphens\ufeff\u2060", "soft hyphens"),
        ("a family: 👩\u200d👧", "a family: 👩\u200d👧"),
        ("  many\t\r\n\u00a0 spaces\x00\x07 ", "many spaces"),
        ("&nbsp; \u200b", ""),
    ],
)
def test_clean(raw, expected):
    assert prepare_data.clean(raw) == expected


def test_newsroom_keeps_first_paragraph(prepare):
    article = "``Rain at last'', said the farmers &amp; their cows.\n \nThe second paragraph is not wanted."
    row = {"summary": "Rain came to the valley", "text": article, "title": "Rain"}
    datasets.Dataset.from_list([row]).save_to_disk("newsroom")
    rows, _, _ = prepare("--dataset", "newsroom")
    assert rows == [("Rain came to the valley", '"Rain at last", said the farmers & their cows.')]


def test_dataset_directory_with_splits(prepare):
    row = {"summary": CAT, "article": None}
    splits = {
        "train": datasets.Dataset.from_list([row | {"article": DOG}]),
        "test": datasets.Dataset.from_list([row]),
    }
    datasets.DatasetDict(splits).save_to_disk("animals")
    assert prepare("--dataset", "animals", "--split", "test")[0] == [(CAT, None)]
    with pytest.raises(InputError, match="cannot read animals, split nowhere"):
        prepare("--dataset", "animals", "--split", "nowhere")


def test_tsv_with_every_fault(prepare):
    lines = [
        b"\xef\xbb\xbfquestion\tanswer",
        f"{CAT}\t{DOG}".encode(),
        b"no tab in this line",
        b"",
        b"The clock\x00 struck twelve\tNobody heard \x00it strike",
        b"A broken \xff byte here\tThis side is fine",
        b'He said "unbalanced\tand went away',
        b"A very long line\t" + b"x" * 1_000_000,
        b"One cell\ttwo cells\tthree cells",
        b"Nothing beside this text\t",
        b"\tNothing before this text",
        b"tiny\tThis side is long enough",
        b"This side is long enough\ttiny",
    ]
    source = write("faults.tsv", b"\r\n".join(lines) + b"\r\n")
    rows, counts, printed = prepare("--dataset", source)
    assert rows == [
        (CAT, DOG),
        ("The clock struck twelve", "Nobody heard it strike"),
        ('He said "unbalanced', "and went away"),
        ("Nothing beside this text", None),
    ]
    assert counts["dropped"] == {"malformed": 3, "empty": 2, "too long": 1, "too short": 2}
    assert counts["read"] == len(lines) - 1 == counts["kept"] + sum(counts["dropped"].values())
    assert printed.err.splitlines() == [
        "faults.tsv line 3: 1 cells instead of 2; row skipped",
        "faults.tsv line 6: question is not UTF-8; row skipped",
        "faults.tsv line 9: 3 cells instead of 2; row skipped",
    ]
    assert printed.out.startswith("pairs: read 12 rows, kept 4; dropped 3 malformed, ")


def test_strict_names_file_row_and_mend(prepare):
    source = write("faults.tsv", f"a\tb\n{CAT}\t{DOG}\nno tab\n")
    with pytest.raises(InputError, match=r"faults\.tsv line 3: 1 cells instead of 2; mend or delete the row"):
        prepare("--dataset", source, "--strict")
    assert not Path("pairs").exists()


def test_many_malformed_rows_are_reported_briefly(prepare):
    source = write("faults.tsv", f"a\tb\n{CAT}\t{DOG}\n" + "no tab\n" * 50)
    _, counts, printed = prepare("--dataset", source)
    assert counts["dropped"] == {"malformed": 50}
    assert len(printed.err.splitlines()) == prepare_data.SHOWN + 1


def test_csv_quotes_and_line_numbers(prepare):
    text = f'id,first,second\n1,"{CAT},\nand ""purred""",{DOG}\n2,only two\n3,{DOG},"{CAT}'
    rows, _, printed = prepare("--dataset", write("animals.csv", text), "--columns", "first", "second")
    assert rows == [(f'{CAT}, and "purred"', DOG)]
    second, never_closed = printed.err.splitlines()
    assert second.startswith("animals.csv line 4: 2 cells")
    assert never_closed.startswith("animals.csv line 5: not a row of cells")


def test_jsonl_gz(prepare):
    records = [{"article": DOG, "summary": CAT}, {"summary": CAT}, {"summary": 7, "article": DOG}, [CAT]]
    lines = [json.dumps(record) for record in records] + [
        '{"summary": "cut',
        '{"summary": "Half \\ud83d of a pair"}',
    ]
    source = write("animals.jsonl.gz", gzip.compress("\n".join(lines).encode()))
    rows, counts, printed = prepare("--dataset", source)
    assert rows == [(CAT, DOG), (CAT, None)]
    assert counts["dropped"] == {"malformed": 4}
    problems = ["summary is a int", "a JSON list", "not JSON", "summary is not UTF-8"]
    for number, (problem, line) in enumerate(zip(problems, printed.err.splitlines(), strict=True), 3):
        assert line.startswith(f"animals.jsonl.gz line {number}: {problem}")


def test_damaged_gz(prepare):
    source = write("animals.txt.gz", gzip.compress(f"{CAT}\n".encode() * 9)[:-9])
    with pytest.raises(InputError, match=r"cannot read animals\.txt\.gz"):
        prepare("--dataset", source)


def test_duplicates_limit_and_several_sources(prepare):
    first = write("first.txt", f"{CAT}\n{CAT.upper()}\n{DOG}")
    second = write("second.tsv", f"a\tb\n{CAT}\t{DOG}\n{CAT}\t\nThe owl watched\tthe moon rise\n")
    rows, counts, _ = prepare("--dataset", first, second)
    assert rows == [(CAT, None), (DOG, None), (CAT, DOG), ("The owl watched", "the moon rise")]
    assert counts["dropped"] == {"duplicate": 2}
    assert len(prepare("--dataset", first, second, "--limit", 3)[0]) == 3


FAKE_MODULE = '''
def full(x):
    """Return the ``ripest``
    apple of :class:`~orchard.Tree`.

    .. versionadded:: 2.0

    >>> full(1)

    The apples of the tree are compared by their colour [1]_, and
    the reddest of them is returned to the caller.

    Args:
        x: an apple
    """

class Bare:
    """Only a summary line."""

    async def parameters(self):
        """Pick all of the apples.

        Parameters
        ----------

        The basket is where the apples of the tree are put.
        """

    def undocumented(self):
        pass

    def nameless(self):
        """:return: an apple of the tree"""
'''


def test_docstrings_of_a_fake_library(prepare, tmp_path, monkeypatch):
    library = tmp_path / "library"
    (library / "tests").mkdir(parents=True)
    (library / "orchard.py").write_text(FAKE_MODULE)
    (library / "tests" / "test_orchard.py").write_text(FAKE_MODULE.replace("apple", "pear"))
    (library / "broken.py").write_text('"""Broken."""\ndef (')
    monkeypatch.setattr(docstrings.sysconfig, "get_path", lambda name: str(library))
    rows, counts, printed = prepare("--dataset", "docstrings")
    article = (
        "The apples of the tree are compared by their colour, and the reddest of them is returned to the caller."
    )
    assert rows == [("Return the ripest apple of orchard.Tree.", article)]
    assert counts["dropped"] == {"without description": 2, "without summary line": 1, "unparsable file": 1}
    assert printed.err == ""


def test_docstrings_of_the_standard_library(prepare):
    rows, counts, _ = prepare("--dataset", "docstrings", "--limit", 50, "--seed", 3)
    assert len(rows) == 50 == counts["kept"]
    assert all(docstrings.is_prose(article) for _, article in rows)
    Path("pairs/prepare_state.json").write_text('{"arguments": "others"}')
    assert prepare("--dataset", "docstrings", "--limit", 50, "--seed", 3)[0] == rows


def test_second_run_is_up_to_date_until_something_changes(prepare):
    source = write("animals.txt", CAT)
    prepare("--dataset", source)
    arrow = next(Path("pairs").glob("*.arrow"))
    before = arrow.stat().st_mtime_ns
    assert prepare("--dataset", source)[2].out == "pairs is up to date (1 rows)\n"
    assert arrow.stat().st_mtime_ns == before
    fingerprint = datasets.load_from_disk("pairs")._fingerprint
    write("animals.txt", f"{CAT}\n{DOG}")
    assert len(prepare("--dataset", source)[0]) == 2
    assert datasets.load_from_disk("pairs")._fingerprint != fingerprint


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interruption_keeps_the_old_output(prepare, monkeypatch, error):
    source = write("animals.txt", CAT)
    prepare("--dataset", source)
    write("animals.txt", f"{DOG}\n{CAT}")

    def fail_at_cat(text, clean=prepare_data.clean):
        if "cat" in text:
            raise error
        return clean(text)

    monkeypatch.setattr(prepare_data, "clean", fail_at_cat)
    with pytest.raises(error):
        prepare("--dataset", source)
    assert datasets.load_from_disk("pairs")["summary"][:] == [CAT]
    assert sorted(path.name for path in Path().iterdir()) == ["animals.txt", "pairs"]


def test_run_killed_during_the_swap_is_recovered(tmp_path):
    (tmp_path / ".pairs.old").mkdir()
    (tmp_path / ".pairs.old" / "data").write_text("precious")
    with pytest.raises(InputError), atomic_directory(tmp_path / "pairs"):
        raise InputError("no new rows")
    assert (tmp_path / "pairs" / "data").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("a.tsv", f"one\ttwo\n{CAT}\t{DOG}\n", ["--columns", "one", "three"], r"a\.tsv.*one and three.*one, two"),
        ("a.tsv", f"one\n{CAT}\n", [], r"a\.tsv: two columns are needed"),
        ("a.tsv", "", [], r"a\.tsv line 1: no header"),
        ("a.tsv", "one\ttwo\nno\tno\n", [], r"no row of a\.tsv can be used: read 1 rows.*1 too short"),
        ("a.jsonl", json.dumps({"title": CAT}), [], r"a\.jsonl.*summary and article.*title"),
        ("a.docx", "anything", [], r"a\.docx: not one of the known types"),
    ],
)
def test_unusable_file(prepare, name, content, arguments, message):
    with pytest.raises(InputError, match=message):
        prepare("--dataset", write(name, content), *arguments)
    assert not Path("pairs").exists()


def test_directory_named_like_a_file(prepare):
    Path("a.tsv").mkdir()
    with pytest.raises(InputError, match=r"a\.tsv is a directory"):
        prepare("--dataset", "a.tsv")


def test_foreign_output_is_not_replaced(prepare):
    Path("pairs").mkdir()
    write("pairs/letters.txt", "precious")
    with pytest.raises(InputError, match="was not written by this script"):
        prepare("--dataset", write("animals.txt", CAT))
    assert Path("pairs/letters.txt").read_text() == "precious"


def test_unreachable_hub_is_one_line(prepare, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(prepare_data.huggingface_hub.HfApi, "dataset_info", refuse)
    with pytest.raises(InputError, match=r"LogeshChandran/newsroom.*make quickstart") as caught:
        prepare()
    assert "\n" not in str(caught.value)


def test_missing_file_exits_with_one_line(tmp_path):
    command = [sys.executable, SCRIPT, "--dataset", "nowhere.tsv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no such file: nowhere.tsv\n"


def test_recorded_names_have_no_directories(tmp_path):
    (tmp_path / "a.tsv").touch()
    assert [public_name(f"{tmp_path}/a.tsv{share}") for share in ("", "=0.2")] == ["a.tsv", "a.tsv=0.2"]
    assert public_name("user/newsroom") == "user/newsroom"

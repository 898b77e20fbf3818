"""Text sources: cleaning, every kind of source, what is dropped and why."""

import gzip
import json
from pathlib import Path

import datasets
import pytest

from asterisk.data import sources
from asterisk.data.sources import Selection, Tally, clean, kept_pairs, source_state
from asterisk.errors import InputError

CAT = "The cat slept on the warm stove"
DOG = "The dog guarded the cold door"


@pytest.fixture
def read(tmp_path, monkeypatch, capsys):
    """Read sources in `tmp_path`; return the pairs, the counts and the lines printed."""
    monkeypatch.chdir(tmp_path)

    def call(*names, strict=False, **options):
        tally = Tally(strict)
        return (
            list(kept_pairs(Selection(list(names), **options), tally)),
            tally,
            capsys.readouterr().err.splitlines(),
        )

    return call


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
    assert clean(raw) == expected


def test_newsroom_keeps_first_paragraph(read):
    article = "``Rain at last'', said the farmers &amp; their cows.\n \nThe second paragraph is not wanted."
    row = {"summary": "Rain came to the valley", "text": article, "title": "Rain"}
    datasets.Dataset.from_list([row]).save_to_disk("newsroom")
    rows, _, _ = read("newsroom")
    assert rows == [("Rain came to the valley", '"Rain at last", said the farmers & their cows.')]


def test_dataset_directory_with_splits(read):
    row = {"summary": CAT, "article": None}
    splits = {
        "train": datasets.Dataset.from_list([row | {"article": DOG}]),
        "test": datasets.Dataset.from_list([row]),
    }
    datasets.DatasetDict(splits).save_to_disk("animals")
    assert read("animals", split="test")[0] == [(CAT, "")]
    with pytest.raises(InputError, match="cannot read animals, split nowhere"):
        read("animals", split="nowhere")


def test_tsv_with_every_fault(read):
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
    rows, tally, printed = read(source)
    assert rows == [
        (CAT, DOG),
        ("The clock struck twelve", "Nobody heard it strike"),
        ('He said "unbalanced', "and went away"),
        ("Nothing beside this text", ""),
    ]
    assert tally.dropped == {"malformed": 3, "empty": 2, "too long": 1, "too short": 2}
    assert tally.read == len(lines) - 1 == tally.kept + tally.dropped.total()
    assert str(tally).startswith("read 12 rows, kept 4; dropped 3 malformed, ")
    assert printed == [
        "faults.tsv line 3: 1 cells instead of 2; row skipped",
        "faults.tsv line 6: question is not UTF-8; row skipped",
        "faults.tsv line 9: 3 cells instead of 2; row skipped",
    ]


def test_strict_names_file_and_row(read):
    source = write("faults.tsv", f"a\tb\n{CAT}\t{DOG}\nno tab\n")
    with pytest.raises(InputError, match=r"faults\.tsv line 3: 1 cells instead of 2"):
        read(source, strict=True)


def test_many_malformed_rows_are_reported_briefly(read):
    source = write("faults.tsv", f"a\tb\n{CAT}\t{DOG}\n" + "no tab\n" * 50)
    _, tally, printed = read(source)
    assert tally.dropped == {"malformed": 50}
    assert len(printed) == sources.SHOWN + 1


def test_csv_quotes_and_line_numbers(read):
    text = f'id,first,second\n1,"{CAT},\nand ""purred""",{DOG}\n2,only two\n3,{DOG},"{CAT}'
    rows, _, printed = read(write("animals.csv", text), columns=["first", "second"])
    assert rows == [(f'{CAT}, and "purred"', DOG)]
    second, never_closed = printed
    assert second.startswith("animals.csv line 4: 2 cells")
    assert never_closed.startswith("animals.csv line 5: not a row of cells")


def test_jsonl_gz(read):
    records = [{"article": DOG, "summary": CAT}, {"summary": CAT}, {"summary": 7, "article": DOG}, [CAT]]
    lines = [json.dumps(record) for record in records] + [
        '{"summary": "cut',
        '{"summary": "Half \\ud83d of a pair"}',
    ]
    source = write("animals.jsonl.gz", gzip.compress("\n".join(lines).encode()))
    rows, tally, printed = read(source)
    assert rows == [(CAT, DOG), (CAT, "")]
    assert tally.dropped == {"malformed": 4}
    problems = ["summary is a int", "a JSON list", "not JSON", "summary is not UTF-8"]
    for number, (problem, line) in enumerate(zip(problems, printed, strict=True), 3):
        assert line.startswith(f"animals.jsonl.gz line {number}: {problem}")


def test_damaged_gz(read):
    source = write("animals.txt.gz", gzip.compress(f"{CAT}\n".encode() * 9)[:-9])
    with pytest.raises(InputError, match=r"cannot read animals\.txt\.gz"):
        read(source)


def test_duplicates_limit_and_several_sources(read):
    first = write("first.txt", f"{CAT}\n{CAT.upper()}\n{DOG}")
    second = write("second.tsv", f"a\tb\n{CAT}\t{DOG}\n{CAT}\t\nThe owl watched\tthe moon rise\n")
    rows, tally, _ = read(first, second)
    assert rows == [(CAT, ""), (DOG, ""), (CAT, DOG), ("The owl watched", "the moon rise")]
    assert tally.dropped == {"duplicate": 2}
    assert len(read(first, second, limit=3)[0]) == 3


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", f"one\ttwo\n{CAT}\t{DOG}\n", ["one", "three"], r"a\.tsv.*one and three.*one, two"),
        ("a.tsv", f"one\n{CAT}\n", None, r"a\.tsv: two columns are needed"),
        ("a.tsv", "", None, r"a\.tsv line 1: no header"),
        ("a.jsonl", json.dumps({"title": CAT}), None, r"a\.jsonl.*summary and article.*title"),
    ],
)
def test_unusable_file(read, name, content, columns, message):
    with pytest.raises(InputError, match=message):
        read(write(name, content), columns=columns)


def test_source_of_no_known_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.tsv").mkdir()
    for name, message in (
        ("a.tsv", r"a\.tsv is a directory"),
        (write("a.docx", "anything"), r"a\.docx: not one of the known types"),
        ("nowhere.tsv", r"no such file: nowhere\.tsv"),
    ):
        with pytest.raises(InputError, match=message):
            source_state(name)

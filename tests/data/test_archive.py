"""What is learned of somebody's archive: passages, sentences and headings of folders or of other sources."""

import pytest
from conftest import RELEASE
from tokenizers import Tokenizer

from asterisk.data.archive import read_archive
from asterisk.errors import InputError

NOTE = """# Boiler

## Pressure

The gauge shows {0} bar. Open the left valve
slowly! Then wait for note {0}.
"""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(RELEASE / "tokenizer.json"))


@pytest.fixture
def notes(tmp_path):
    directory = tmp_path / "notes"
    directory.mkdir()
    for i in range(30):
        (directory / f"Heating {i}.md").write_text(NOTE.format(i))
    (directory / "picture.md").write_bytes(b"\xff\xfe\xfa\x00\x01")
    return directory


def texts_in(rows):
    return {text for row in rows for text in row if text}


def test_folder_gives_passages_sentences_and_headings_once(notes, tokenizer, capsys):
    archive = read_archive([str(notes)], tokenizer, limit=100, seed=0)
    passages, short_texts = ([text for _, text in texts] for texts in (archive.passages, archive.short_texts))
    assert "Boiler Pressure The gauge shows 7 bar. Open the left valve slowly! Then wait for note 7." in (passages)
    assert {"Pressure", "The gauge shows 7 bar.", "Open the left valve slowly!"} <= set(short_texts)
    assert len(set(short_texts)) == len(short_texts)
    assert archive.counts["documents"] == 30
    assert "picture.md" in capsys.readouterr().err


def test_limit_draws_from_all_documents(notes, tokenizer):
    archive = read_archive([str(notes)], tokenizer, limit=12, seed=0)
    assert (len(archive.passages), len(archive.short_texts)) == (12, 24)
    assert max(number for number, _ in archive.passages) > 20
    assert archive.counts["passages"] == 30


def test_held_out_are_all_texts_of_some_documents(notes, tokenizer):
    training, held_out = read_archive([str(notes)], tokenizer, limit=100, seed=0).split(0.1, seed=0)
    assert not texts_in(training) & texts_in(held_out)
    numbers = {text.split()[-1] for text in texts_in(held_out) if text.startswith("Then wait")}
    assert len(numbers) == 3
    for number in numbers:
        assert f"The gauge shows {number.rstrip('.')} bar." in texts_in(held_out)
    assert all(first for first, _ in training)


def test_few_long_documents_are_split_by_text(tmp_path, tokenizer):
    (tmp_path / "diary.md").write_text("\n\n".join(f"On day {i} a heron waited by the mill." for i in range(60)))
    training, held_out = read_archive([str(tmp_path / "diary.md")], tokenizer, limit=100, seed=0).split(0.1, 0)
    assert len(texts_in(training)) > 40
    assert len(texts_in(held_out)) >= 5


def test_tables_are_read_as_for_training(tmp_path, tokenizer):
    rows = "".join(f"the title {i}\tthe body of text {i}\n" for i in range(30))
    (tmp_path / "pairs.tsv").write_text("title\tbody\n" + rows)
    archive = read_archive([str(tmp_path / "pairs.tsv")], tokenizer, limit=100, seed=0)
    assert (4, "the title 4 the body of text 4") in archive.passages
    assert {(4, "the title 4"), (4, "the body of text 4")} <= set(archive.short_texts)


def test_hardly_any_text_is_refused(tmp_path, tokenizer):
    (tmp_path / "only.md").write_text("A single note.")
    with pytest.raises(InputError, match="hardly any text"):
        read_archive([str(tmp_path)], tokenizer, limit=100, seed=0)

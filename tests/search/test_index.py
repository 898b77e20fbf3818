"""An index from its first file to its last: what is read, kept, moved, forgotten, and found."""

import datetime
import os
import shutil
import time
from pathlib import Path

import apsw
import numpy as np
import pytest
from search_files import NOTES, content, message, names, pdf, write_files

from asterisk.errors import InputError
from asterisk.search import Index
from asterisk.search.store import Store
from asterisk.search.terminal import report_lines

MAIL = [("tax", "forms"), ("party", "cake")]
QUERIES = ['"', 'a"b', "NEAR(", "title:x", "-", "*", "x\0y", "and OR not", "'; drop table words"]


def counts(report):
    return (report.added, report.changed, report.renamed, report.removed, report.unchanged, report.embedded)


def test_each_mode_finds_the_note_and_its_place(index, vault):
    assert counts(index.index(vault)) == (4, 0, 0, 0, 0, 5)
    for mode in ("hybrid", "semantic", "words"):
        hit = index.search("water pressure of the heating", limit=1, mode=mode)[0]
        assert (hit.path, hit.line, hit.title, hit.headings) == (vault / "Boiler.md", 7, "Boiler", "Pressure")
    assert names(index.search("railway journey to Austria", limit=1, mode="semantic")) == ["Trip.md"]
    assert index.search("xylophone", mode="words") == []
    assert index.search("?!", mode="words") == []


def test_every_kind_of_file_is_found(index, vault):
    box = "".join(f"From a@b Mon Feb  5 10:00:00 2024\n{message(s, b)}\n" for s, b in MAIL)
    write_files(
        vault, {"ice.pdf": pdf("x", "Glaciers retreat."), "page.html": "<p>Kettles boil.</p>", "mail.mbox": box}
    )
    index.index(vault)
    assert [(hit.path.name, hit.place) for hit in index.search("glaciers", mode="words")] == [
        ("ice.pdf", "page 2")
    ]
    assert [(hit.title, hit.place) for hit in index.search("cake", mode="words")] == [("party", "message 2")]
    assert names(index.search("kettle", mode="words")) == ["page.html"]


def test_only_what_changed_is_read_and_embedded(index, vault):
    index.index(vault)
    assert counts(index.index(vault)) == (0, 0, 0, 0, 4, 0)
    os.utime(vault / "Trip.md", (1, 1))  # a new time, the same content
    assert counts(index.index()) == (0, 0, 0, 0, 4, 0)
    path = vault / "Boiler.md"
    path.write_text(path.read_text() + "\n## Noise\n\nBleed the radiators.\n")
    assert counts(index.index()) == (0, 1, 0, 0, 3, 1)  # one passage is new
    assert index.search("radiators", mode="words")[0].headings == "Noise"


def test_changes_leave_the_index_as_a_new_one_would_be(index, open_index, vault, tmp_path):
    index.index(vault)
    (vault / "Trip.md").unlink()
    (vault / "garden.txt").write_text("Water the roses.")
    write_files(vault, {"new.md": "Something new."})
    assert counts(index.index()) == (1, 1, 0, 1, 2, 2)
    assert index.search("Vienna", mode="words") == []
    fresh = open_index(tmp_path / "fresh.sqlite")
    fresh.index(vault)
    assert content(index) == content(fresh)


def test_renamed_file_keeps_its_vectors(index, vault):
    index.index(vault)
    before = content(index)
    (vault / "trips" / "2024").mkdir(parents=True)
    (vault / "Trip.md").rename(vault / "trips" / "2024" / "Night train.md")
    (vault / "bread").rename(vault / "baking")
    assert counts(index.index()) == (0, 0, 2, 0, 2, 0)
    after = content(index)
    assert [row[-1] for row in sorted(after, key=lambda row: row[-1])] == [
        row[-1] for row in sorted(before, key=lambda row: row[-1])
    ]
    (hit,) = index.search("night", mode="words", limit=1)
    assert (hit.path.name, hit.title) == ("Night train.md", "Night train")


def test_file_whose_directory_cannot_be_listed_stays(index, vault, monkeypatch):
    index.index(vault)
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "bread":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = index.index()
    assert report.removed == 0
    assert report.skipped == {vault / "bread": "permission denied"}
    assert names(index.search("starter", mode="words")) == ["Sourdough.md"]


def test_broken_files_are_skipped_and_named_and_read_once_repaired(index, vault, monkeypatch):
    write_files(vault, {"photo.txt": b"\x89PNG\0\0", "old.md": "crème".encode("latin-1"), "locked.md": "locked"})
    read_bytes = Path.read_bytes

    def refuse(path):
        if path.name == "locked.md":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    reasons = {"photo.txt": "binary", "old.md": "not UTF-8", "locked.md": "permission denied"}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        for _ in range(2):
            assert {path.name: reason for path, reason in index.index(vault).skipped.items()} == reasons
    assert {path.name: reason for path, reason in index.status().skipped.items()} == reasons
    (vault / "old.md").write_text("crème")
    assert set(index.index().skipped) == {vault / "photo.txt"}
    assert names(index.search("locked", mode="words")) == ["locked.md"]
    (vault / "Boiler.md").write_bytes(b"\0\0")
    index.index()
    assert index.search("boiler", mode="words", limit=1)[0].path.name == "Trip.md"


def test_names_that_are_not_utf_8(index, vault):
    name = os.fsdecode(b"caf\xe9 notes.txt")
    try:
        (vault / name).write_text("An espresso machine needs descaling.")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    index.index(vault)
    (hit,) = index.search("espresso", mode="words")
    assert hit.path == vault / name
    assert hit.path.read_text().startswith("An espresso")
    assert index.index().unchanged == 5


def test_text_from_right_to_left(index, vault):
    write_files(vault, {"עברית.md": "# קומקום\n\nמים חמים לתה\n", "عربي.txt": "الشاي الساخن في الإبريق\n"})
    index.index(vault)
    assert names(index.search("חמים", mode="words")) == ["עברית.md"]
    assert names(index.search("الشاي", mode="words")) == ["عربي.txt"]
    assert index.search("קומקום", limit=1)[0].title == "קומקום"


@pytest.mark.parametrize("text", QUERIES)
def test_any_query_is_taken_as_text(index, vault, text):
    index.index(vault)
    index.search(text)


def test_empty_vault(index, tmp_path):
    (tmp_path / "empty").mkdir()
    assert counts(index.index(tmp_path / "empty")) == (0, 0, 0, 0, 0, 0)
    for mode in ("hybrid", "semantic", "words"):
        assert index.search("anything", mode=mode) == []
    assert index.status().passages == 0


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "words"])
def test_filters(index, vault, mode):
    index.index(vault)

    def found(**options):
        return sorted(names(index.search("water bake train", mode=mode, **options)))

    assert found(paths=("bread/",)) == ["Sourdough.md"]
    assert found(paths=("garden", "Trip")) == ["Trip.md", "garden.txt"]
    assert found(tags=("baking",)) == ["Sourdough.md"]  # of which baking/bread is a part
    assert found(tags=("#Recipes", "baking/bread")) == ["Sourdough.md"]
    assert found(tags=("bak",)) == []
    os.utime(vault / "Trip.md", (1, 1))
    index.index()
    assert found(since=time.time() - 3600) == ["Boiler.md", "garden.txt"]  # the sourdough says that it is of 2024
    assert found(since=datetime.datetime(2024, 2, 1).timestamp()) == ["Boiler.md", "Sourdough.md", "garden.txt"]


def test_similar_notes(index, vault):
    write_files(vault, {"Radiator.md": "Bleed the radiators when the heating gurgles."})
    index.index(vault)
    assert names(index.similar(vault / "Radiator.md", limit=1)) == ["Boiler.md"]
    with pytest.raises(InputError, match="not in the index"):
        index.similar(vault / "none.md")


def test_mbox_that_grows(index, vault):
    box = vault / "mail.mbox"
    one = f"From a@b Mon Feb  5 10:00:00 2024\n{message('tax', 'forms')}\n"
    box.write_text(one)
    index.index(vault)
    box.write_text(one + one.replace("tax", "party").replace("forms", "cake"))
    report = index.index()
    assert (report.changed, report.embedded) == (1, 1)
    assert sorted(hit.title for hit in index.search("tax party", mode="words")) == ["party", "tax"]


def test_mbox_of_many_messages_is_written_in_parts(index, tmp_path, monkeypatch):
    monkeypatch.setattr("asterisk.search.indexing.BLOCK", 8)
    root = write_files(
        tmp_path / "mail",
        {
            "a.mbox": "".join(f"From a@b Mon Feb  5\n{message(f's{i}', f'body{i}')}\n" for i in range(30)),
            "b.txt": "end",
        },
    )
    assert index.index(root).passages == 31
    assert index.status().documents == 31
    assert index.search("body29", mode="words")[0].place == "message 30"


def test_roots_are_remembered_and_may_lie_in_one_another(index, vault):
    index.index(vault, vault / "bread")
    assert index.status().files == 4
    assert index.index().unchanged == 5  # one of them is met twice
    (vault / "bread" / "Sourdough.md").unlink()
    assert index.index(vault / "bread").removed == 1


def test_root_that_is_away_is_kept_until_pruned(index, vault):
    index.index(vault)
    vault.rename(vault.with_name("unplugged"))
    report = index.index()
    assert (report.missing, report.removed) == ([vault], 0)
    assert index.search("Vienna", mode="words")
    assert index.prune() == 4
    assert index.search("Vienna", mode="words") == []
    assert index.status().roots == []


def test_prune_forgets_a_root_and_gives_back_space(index, vault, tmp_path):
    other = write_files(tmp_path / "other", {f"{i}.txt": f"text number {i} " * 200 for i in range(40)})
    (other / "broken.txt").write_bytes(b"\xff\xfe\xff")
    index.index(vault, other)
    before = index.status().bytes
    assert index.prune(other) == 40
    assert index.status().bytes < before / 2
    assert names(index.search("railway journey", limit=1)) == ["Trip.md"]
    with pytest.raises(InputError, match="not a root"):
        index.prune(other)


def test_others_may_not_read_the_index(index, vault):
    index.index(vault)
    assert index.path.stat().st_mode & 0o777 == 0o600


def test_single_file_of_no_known_kind(index, vault):
    (vault / "song.mp3").write_bytes(b"ID3")
    assert index.index(vault / "song.mp3").skipped == {vault / "song.mp3": "not a kind of file that can be read"}


def test_single_file(index, vault):
    index.index(vault / "Trip.md")
    assert index.index().unchanged == 1
    assert names(index.search("boiler")) == ["Trip.md"]


def test_nearest_are_those_of_an_exact_search(index, tmp_path, released_encoder):
    animals, deeds = ["badger", "heron", "otter", "lynx", "goose"], ["swims", "sleeps", "hunts", "sings", "digs"]
    texts = [f"The {a} {d} near the {b}." for a in animals for d in deeds for b in animals]
    index.index(write_files(tmp_path / "many", {f"{i}.txt": text for i, text in enumerate(texts)}))
    query = released_encoder.encode("a bird sings beside a badger")
    cosines = released_encoder.encode([f"{i}\n{text}" for i, text in enumerate(texts)]) @ query
    hits = index.search("a bird sings beside a badger", mode="semantic")
    np.testing.assert_allclose([hit.cosine for hit in hits], np.sort(cosines)[:-11:-1], atol=0.01)


def of_another_model(index):
    """Let the index be that of another model, and without vectors."""
    connection = index.store(writable=True).connection
    connection.execute("update facts set value = 'ffff' where name = 'fingerprint'")
    connection.execute("delete from vectors")
    index.close()


def test_index_of_another_model_is_refused(index, vault):
    index.index(vault)
    of_another_model(index)
    index.model_named = False
    for use in (lambda: index.search("x"), lambda: index.index(vault)):
        with pytest.raises(
            InputError, match=r"made with another model \(.*asterisk\); name that with --model, or"
        ):
            use()
    assert index.search("Vienna", mode="words")  # words need no model


def test_index_of_another_model_is_embedded_again_where_the_model_is_named(index, vault):
    index.index(vault)
    query = "how do I repair a heating system"
    before, passages = index.search(query, mode="semantic"), index.status().passages
    of_another_model(index)
    report = index.index()
    assert (report.embedded_again, report.added, report.changed) == (passages, 0, 0)
    assert next(report_lines(report)).startswith(f"another model: {passages} passages embedded again in ")
    assert index.search(query, mode="semantic") == before
    assert index.index().embedded_again == 0


def test_interrupted_change_of_model_leaves_the_index_as_it_was(index, vault, monkeypatch):
    index.index(vault)
    of_another_model(index)

    def interrupt(texts):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index.encoder, "encode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            index.index()
    with pytest.raises(InputError, match="made with another model"):
        index.search("x")
    assert index.search("Vienna", mode="words")
    assert index.index().embedded_again


@pytest.mark.parametrize(
    ("version", "advice"), [("99", "delete it and index again"), (None, "not an index; name")]
)
def test_index_of_another_version_is_refused(index, vault, version, advice):
    index.index(vault)
    connection = index.store().connection
    if version:
        connection.execute("update facts set value = ? where name = 'version'", (version,))
    else:
        connection.execute("drop table facts")
    index.close()
    with pytest.raises(InputError, match=advice):
        index.search("x")


def test_file_that_is_no_index_is_refused_and_kept(open_index, vault, tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("Dear friend, " * 500)
    with pytest.raises(InputError, match="not an index"):
        open_index(path).index(vault)
    assert path.read_text().startswith("Dear friend")
    other = tmp_path / "other.sqlite"
    connection = apsw.Connection(str(other))
    connection.execute("create table mine(x)")
    connection.close()
    with pytest.raises(InputError, match="not an index"):
        open_index(other).index(vault)


def test_no_index_yet(index, vault):
    for use in (lambda: index.search("x"), index.status, index.prune, lambda: index.similar(vault / "Trip.md")):
        with pytest.raises(FileNotFoundError, match="no such index; make one"):
            use()
    assert not index.path.exists()
    with pytest.raises(InputError, match="nothing to index"):
        index.index()
    with pytest.raises(FileNotFoundError, match="no such file or directory"):
        index.index(vault / "nowhere")


def test_full_disk(index, vault, monkeypatch):
    index.index(vault)
    connect = Store.connect

    def small(store, mode):
        connection = connect(store, mode)
        pages = connection.execute("pragma page_count").get
        connection.execute(f"pragma max_page_count={pages + 2}")
        return connection

    write_files(vault, {f"{i}.txt": f"{i} many words " * 500 for i in range(20)})
    index.close()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "connect", small)
        with pytest.raises(InputError, match="the disk is full"):
            index.index()
    index.close()
    assert index.store().rows("pragma integrity_check") == [("ok",)]
    index.index()
    assert index.status().files == 24


def test_store_in_a_place_that_may_only_be_read(index, open_index, vault, tmp_path, monkeypatch):
    index.index(vault)
    index.close()
    copied = tmp_path / "cdrom" / "index.sqlite"
    copied.parent.mkdir()
    shutil.copy(index.path, copied)
    connect = Store.connect

    def refuse(store, mode):  # a superuser may write to what is read-only for others
        if "immutable" not in mode:
            raise apsw.CantOpenError("unable to open database file")
        return connect(store, mode)

    monkeypatch.setattr(Store, "connect", refuse)
    assert names(open_index(copied).search("night train", limit=1)) == ["Trip.md"]
    assert [path.name for path in copied.parent.iterdir()] == ["index.sqlite"]
    with pytest.raises(InputError, match="cannot be opened; choose another place"):
        open_index(copied).index(vault)


def test_notes_are_those_of_the_docstring(vault, tmp_path):
    with Index(tmp_path / "notes.sqlite") as index:
        assert index.index(vault).added == len(NOTES)
        assert index.search("how did we fix the boiler")[0].path.name == "Boiler.md"

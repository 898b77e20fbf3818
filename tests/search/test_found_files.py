"""Which files below a directory are read."""

import os
import sqlite3

import pytest
from search_files import archived_page, article, write_files

from asterisk.search.sources import find, read


def found_names(root):
    return [source.path.relative_to(root).as_posix() for source in find(root).sources]


def test_hidden_and_ignored_files_and_other_kinds_are_left_out(vault):
    write_files(
        vault,
        {
            ".obsidian/workspace.md": "x",
            ".trash/old.md": "x",
            "picture.png": "x",
            "build/out.md": "x",
            "draft-1.md": "x",
            ".asteriskignore": "build/\ndraft-*\n",
        },
    )
    assert found_names(vault) == ["Boiler.md", "Trip.md", "bread/Sourdough.md", "garden.txt"]


def test_symbolic_links_are_not_followed_but_named(vault, tmp_path):
    secret = write_files(tmp_path / "elsewhere", {"secret.md": "x"})
    (vault / "loop").symlink_to(vault, target_is_directory=True)
    (vault / "out").symlink_to(secret, target_is_directory=True)
    (vault / "secret.md").symlink_to(secret / "secret.md")
    (vault / "self.md").symlink_to(vault / "self.md")
    found = find(vault)
    assert len(found.sources) == 4
    assert {path.name for path in found.skipped} == {"loop", "out", "secret.md", "self.md"}
    assert set(found.skipped.values()) == {"symbolic link, not followed"}


def test_directory_named_like_a_file(tmp_path):
    root = write_files(tmp_path / "vault", {"notes.md/inside.md": "x", "paper.pdf/inside.txt": "x"})
    assert found_names(root) == ["notes.md/inside.md", "paper.pdf/inside.txt"]


def test_named_pipe_does_not_block(vault):
    os.mkfifo(vault / "pipe.md")
    assert len(find(vault).sources) == 4


BEST = article("Readable", "The readable text of the article is the one that a search should find, not the menu.")


@pytest.fixture
def archive(tmp_path):
    archive = tmp_path / "ArchiveBox"
    archived_page(
        archive,
        "1700000000.5",
        {"readability/content.html": BEST, "singlefile.html": article("Single", "x"), "output.html": "y"},
        url="https://example.org/a",
        title="From JSON",
        tags="news,Energy",
    )
    archived_page(archive, "1700000001", {"output.html": article("Dom", "Only the DOM dump is here.")})
    archived_page(archive, "1700000002", {"screenshot.png": "x"}, url="https://example.org/c")
    (archive / "sources").mkdir()
    (archive / "sources" / "import.txt").write_text("https://example.org/a")
    return archive


def test_archivebox_without_its_database(archive):
    sources = find(archive).sources
    assert [source.path.name for source in sources] == ["content.html", "output.html"]
    (page,) = read(sources[0], sources[0].content())
    assert (page.title, page.url, page.tags) == ("From JSON", "https://example.org/a", ["energy", "news"])
    assert page.date == 1700000000.5
    (dom,) = read(sources[1], sources[1].content())
    assert dom.title == "Dom"


def test_archivebox_with_its_database(archive):
    with sqlite3.connect(archive / "index.sqlite3") as database:
        database.executescript("""
            create table core_snapshot(id text, url text, timestamp text, title text);
            create table core_tag(id integer, name text);
            create table core_snapshot_tags(id integer, snapshot_id text, tag_id integer);
            insert into core_snapshot values('u1', 'https://example.org/a', '1700000000.5', 'From SQL'),
                ('u2', 'https://evil', '../../..', 'escapes'), ('u3', 'https://gone', '1600000000', null);
            insert into core_tag values(1, 'Heating');
            insert into core_snapshot_tags values(1, 'u1', 1);
        """)
    database.close()
    before = sorted(archive.rglob("*"))
    (source,) = find(archive.parent).sources  # found below any directory
    (page,) = read(source, source.content())
    assert (page.title, page.tags) == ("From SQL", ["heating"])
    assert sorted(archive.rglob("*")) == before


def test_archivebox_with_a_damaged_database(archive):
    (archive / "index.sqlite3").write_bytes(b"not a database at all" * 100)
    assert len(find(archive).sources) == 2

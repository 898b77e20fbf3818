"""The pages of an ArchiveBox: what it knows about each, and the best text it holds."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import apsw

from asterisk.files import read_json
from asterisk.search.documents import Document

DATABASE, PAGES = "index.sqlite3", "archive"
# From the text with the least beside the article to the page as it was.
OUTPUTS = ("readability/content.html", "mercury/content.html", "singlefile.html", "output.html")
SNAPSHOTS = """
    select timestamp, url, coalesce(title, ''), coalesce((
        select group_concat(name, ',') from core_snapshot_tags join core_tag on core_tag.id = tag_id
        where snapshot_id = core_snapshot.id), '')
    from core_snapshot
"""


@dataclass(frozen=True)
class Page:
    """What ArchiveBox knows about a page; tags are joined with commas."""

    timestamp: str
    url: str
    title: str
    tags: str

    def describe(self, document: Document) -> None:
        """Put title, address, date and tags into the document."""
        document.title = self.title or document.title
        document.named_by_file = False
        document.url = self.url
        document.tags = sorted({tag.strip().lower() for tag in self.tags.split(",")} - {""})
        try:
            document.date = datetime.datetime.fromtimestamp(float(self.timestamp)).timestamp()
        except (ValueError, OverflowError, OSError):  # a timestamp of its own making
            document.date = None


def is_archive(directory: Path) -> bool:
    """Tell whether ArchiveBox made this directory."""
    pages = directory / PAGES
    return (
        pages.is_dir()
        and not pages.is_symlink()
        and ((directory / DATABASE).is_file() or any(pages.glob("*/index.json")))
    )


def archived_pages(directory: Path) -> Iterator[tuple[Path, Page]]:
    """Yield the file with the best text of each page."""
    for page in known_pages(directory):
        folder = directory / PAGES / page.timestamp
        if page.timestamp != Path(page.timestamp).name or folder.is_symlink():
            continue  # it would lead out of the archive
        for name in OUTPUTS:
            file = folder / name
            if file.is_file() and not file.is_symlink() and not file.parent.is_symlink():
                yield file, page
                break


def known_pages(directory: Path) -> list[Page]:
    """Read the database, or each page's `index.json` where there is none or it cannot be read."""
    database = directory / DATABASE
    if database.is_file():
        # Immutable: reading must not leave files of SQLite's own in somebody else's directory.
        address = f"file:{quote(os.fsencode(database))}?mode=ro&immutable=1"
        try:
            connection = apsw.Connection(address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
            rows = connection.execute(SNAPSHOTS).fetchall()
            connection.close()
            return [Page(*map(str, row)) for row in rows]
        except apsw.Error:
            pass
    return [described(file) for file in sorted((directory / PAGES).glob("*/index.json"))]


def described(file: Path) -> Page:
    """Read a page's own index; its folder is named after its timestamp."""
    index = read_json(file)
    tags = index.get("tags") or ""
    return Page(
        file.parent.name,
        str(index.get("url") or ""),
        str(index.get("title") or ""),
        tags if isinstance(tags, str) else ",".join(map(str, tags)),
    )

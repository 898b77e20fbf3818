"""Find what to index below a directory: notes, pages, messages, and the pages of an ArchiveBox.

Nothing found there is executed or taken for configuration, apart from the patterns of `.asteriskignore`. Symbolic
links are not followed, so that no file outside the directory is read and none twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from asterisk.search.archivebox import Page, archived_pages, is_archive
from asterisk.search.documents import Document, Unreadable, decode, paragraphs

KINDS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".eml": "message",
    ".mbox": "mbox",
    ".pdf": "pdf",
}
IGNORE_FILE = ".asteriskignore"
# Larger ones are data rather than text. An mbox is read message by message and may have any size.
LARGEST = 20_000_000


@dataclass(frozen=True)
class Source:
    """A file to index.

    Attributes:
        path: Where it is.
        kind: Which reader it needs.
        stamp: Changes with the file.
        size: In bytes.
        modified: When, in seconds since 1970.
        page: What ArchiveBox knows about it.
    """

    path: Path
    kind: str
    stamp: str
    size: int
    modified: float
    page: Page | None = None

    def content(self) -> bytes:
        """Return what the file holds; of an mbox, which may be large, nothing."""
        if self.kind == "mbox":
            return b""
        if self.size > LARGEST:
            raise Unreadable(f"larger than {LARGEST // 1_000_000} MB")
        return self.path.read_bytes()


@dataclass
class Found:
    """What is below a root.

    Attributes:
        sources: The files to index.
        skipped: Files and directories left out, and why.
        unread: Directories that could not be listed; what is known of their files stays.
    """

    sources: list[Source] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    unread: list[Path] = field(default_factory=list)


def find(root: Path) -> Found:
    """Look through a directory, or at a single file."""
    found = Found()
    if root.is_dir():
        walk(root, root, ignore_patterns(root), found)
    else:
        add_file(root, found)
        if not found.sources:
            found.skipped.setdefault(root, "not a kind of file that can be read")
    return found


def ignore_patterns(root: Path) -> GitIgnoreSpec:
    """Read the patterns of `.asteriskignore`, which are like those of `.gitignore`."""
    try:
        lines = (root / IGNORE_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return GitIgnoreSpec.from_lines(lines)


def walk(directory: Path, root: Path, ignored: GitIgnoreSpec, found: Found) -> None:
    """Add the files of a directory and of those below, in the order of their names."""
    if is_archive(directory):
        for path, page in archived_pages(directory):
            add_file(path, found, page)
        return
    try:
        with os.scandir(directory) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        found.skipped[directory] = (error.strerror or "cannot be listed").lower()
        found.unread.append(directory)
        return
    for entry in children:
        path = Path(entry.path)
        relative = os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "replace")
        is_directory = entry.is_dir(follow_symlinks=False)
        if entry.name.startswith(".") or ignored.match_file(f"{relative}/" if is_directory else relative):
            continue  # hidden are `.obsidian`, `.trash` and the like
        if is_directory:
            walk(path, root, ignored, found)
        elif entry.is_symlink():
            if path.suffix.lower() in KINDS or path.is_dir():
                found.skipped[path] = "symbolic link, not followed"
        elif entry.is_file(follow_symlinks=False):
            add_file(path, found)


def add_file(path: Path, found: Found, page: Page | None = None) -> None:
    """Add a file if there is a reader for it."""
    kind = KINDS.get(path.suffix.lower()) or ("mbox" if looks_like_mbox(path) else None)
    if kind is None:
        return
    try:
        status = path.stat()
    except OSError as error:
        found.skipped[path] = (error.strerror or "cannot be read").lower()
        return
    stamp = f"{status.st_size} {status.st_mtime_ns} {page or ''}".strip()
    found.sources.append(Source(path, kind, stamp, status.st_size, status.st_mtime, page))


def looks_like_mbox(path: Path) -> bool:
    """Tell whether a file without a suffix begins as mail folders do."""
    if path.suffix:
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(5) == b"From "
    except OSError:
        return False


def read(source: Source, data: bytes) -> Iterator[Document]:
    """Read the documents of a file: one, or each message of an mbox.

    Raises:
        Unreadable: If it is broken.
    """
    name = os.fsencode(source.path.stem).decode("utf-8", "replace")
    try:
        for document in parse(source, data, name):
            if source.page:
                source.page.describe(document)
            yield document
    except (Unreadable, OSError):
        raise
    except Exception as error:  # a parser's own, for a file that nobody has foreseen
        raise Unreadable(f"damaged ({type(error).__name__})") from error


def parse(source: Source, data: bytes, name: str) -> Iterator[Document]:
    """Read with the parser of the file's kind, imported when it is needed: it takes longer than most files."""
    match source.kind:
        case "text":
            yield Document(name, list(paragraphs(decode(data))), named_by_file=True)
        case "markdown":
            from asterisk.search.markdown import read_markdown

            yield read_markdown(decode(data), name)
        case "html":
            from asterisk.search.html import read_html

            yield read_html(data, name)
        case "message":
            from asterisk.search.mail import read_message

            yield read_message(data, name)
        case "mbox":
            from asterisk.search.mail import read_mbox

            yield from read_mbox(source.path)
        case "pdf":
            from asterisk.search.pdf import read_pdf

            yield read_pdf(data, name)

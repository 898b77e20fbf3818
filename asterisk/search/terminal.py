"""Show hits and status to a person."""

from __future__ import annotations

import os
import shutil
import string
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from asterisk.search.index import Hit, Status
    from asterisk.search.indexing import Report

SNIPPET = 240


def printable(text: str) -> str:
    """Leave out what could steer the terminal: an indexed page may hold anything."""
    return "".join(character if character.isprintable() else " " for character in text)


def short(path: Path) -> str:
    """Return a path as one would type it here."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)


def snippet(text: str, query: str) -> str:
    """Return the part of a passage where the first word of the query is, or else its beginning."""
    text = " ".join(text.split())
    words = [word.strip(string.punctuation).lower() for word in query.split()]
    places = [text.lower().find(word) for word in words if len(word) > 3]
    start = min((place for place in places if place >= 0), default=0)
    if start > SNIPPET // 2:
        start = text.rfind(" ", 0, start - SNIPPET // 3) + 1
        return "… " + textwrap.shorten(text[start:], SNIPPET, placeholder=" …")
    return textwrap.shorten(text, SNIPPET, placeholder=" …")


def hit_lines(hit: Hit, query: str, colour: bool) -> Iterator[str]:
    """Lay out a hit: its place as editors open it, its headings and score, and what it says."""
    place = f"{printable(short(hit.path))}{f':{hit.line}' if hit.line else ''}"
    where = " > ".join(filter(None, (hit.title, hit.headings, hit.place)))
    yield f"{click.style(place, bold=True) if colour else place}  {hit.score:.2f}"
    if where:
        yield f"  {click.style(printable(where), dim=True) if colour else printable(where)}"
    width = shutil.get_terminal_size((100, 24)).columns
    yield from textwrap.wrap(
        printable(snippet(hit.text, query)), width, initial_indent="  ", subsequent_indent="  "
    )


def report_lines(report: Report) -> Iterator[str]:
    """Say what an update did."""
    counts = {
        "new": report.added,
        "changed": report.changed,
        "renamed": report.renamed,
        "deleted": report.removed,
        "unchanged": report.unchanged,
        "skipped": len(report.skipped),
    }
    files = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "no files"
    share = report.embedding_seconds / report.seconds if report.seconds else 0.0
    if report.embedded_again:
        yield f"another model: {report.embedded_again:,} passages embedded again in {report.again_seconds:.1f} s"
    yield f"{files}; {report.passages:,} passages in {report.seconds:.1f} s, {share:.0%} of it embedding"
    yield from skipped_lines(report.skipped)
    for root in report.missing:
        yield f"{printable(str(root))}: not there; what is known of it stays until `asterisk prune`"


def skipped_lines(skipped: dict[Path, str]) -> Iterator[str]:
    """Name the files that were left out."""
    for path, reason in sorted(skipped.items()):
        yield f"skipped {printable(short(path))}: {reason}"


def status_lines(status: Status) -> Iterator[str]:
    """Say what an index holds."""
    yield f"{status.path}: {status.bytes / 1e6:.1f} MB, made with {status.model}"
    yield f"{status.files:,} files, {status.documents:,} documents, {status.passages:,} passages"
    yield from (f"root {printable(str(root))}" for root in status.roots)
    yield from skipped_lines(status.skipped)

"""What readers make of a file: documents of blocks, each with its place in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


class Unreadable(Exception):
    """Why a file is left out, in a few words for the user."""


@dataclass(frozen=True)
class Block:
    """A paragraph, list item, row of a table or the like."""

    text: str
    headings: tuple[str, ...] = ()
    line: int | None = None
    place: str = ""


@dataclass
class Document:
    """A note, a page, a message.

    Attributes:
        title: What a person calls it.
        blocks: Its text in order.
        tags: Without `#`, in lower case.
        date: Seconds since 1970, None where it has none of its own.
        url: Where a page or message came from.
        named_by_file: Whether the title is the file's name.
    """

    title: str
    blocks: list[Block]
    tags: list[str] = field(default_factory=list)
    date: float | None = None
    url: str = ""
    named_by_file: bool = False


def decode(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 that begins with its mark.

    Raises:
        Unreadable: If it is neither.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable("binary" if b"\0" in data[:8192] else "not UTF-8") from error
    if "\0" in text:
        raise Unreadable("binary")
    return text


def paragraphs(text: str, place: str = "", numbered: bool = True) -> Iterator[Block]:
    """Yield what blank lines separate, with the number of the first line."""
    lines: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):  # an empty line ends the last paragraph too
        if line.strip():
            lines.append(line.strip())
        elif lines:
            yield Block("\n".join(lines), line=number - len(lines) if numbered else None, place=place)
            lines = []

"""Read the items of feeds: RSS, Atom, JSON Feed, OPML, JSON lines, CSV; from files, never from the net."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import sys
import textwrap
import warnings
from calendar import timegm
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urldefrag

import feedparser
from courlan import normalize_url
from dateutil import parser as date_parser
from dateutil.tz import UTC
from lxml import etree, html

from asterisk.errors import first_line
from asterisk.files import LONGEST_LINE, bounded_lines

Report = Callable[[str], None]
# By which names the columns of a table, or the keys of JSON objects, are known.
NAMES = {
    "title": ("title", "headline", "name"),
    "text": ("summary", "text", "content", "description", "body", "content_text", "content_html"),
    "url": ("url", "link", "external_url"),
    "published": (
        *("published", "published_at", "date", "date_published", "pubdate", "created", "updated"),
        *("timestamp", "datetime", "time"),
    ),
    "source": ("source", "feed", "site", "author"),
}
WORDS = 64  # that an item is compared by
SHOWN = 80  # characters of a text without a title
MARKUP = re.compile(r"</\w+>|<(br|p|img)\b", re.IGNORECASE)
BLANK = b"\xef\xbb\xbf \t\r\n"
MOST_SECONDS = 1e11  # the year 5138


@dataclass(frozen=True)
class Item:
    """One item of a feed.

    Attributes:
        title: Its title, plain text.
        text: Its summary or content, plain text; may be empty.
        url: Its address; may be empty.
        published: Seconds since 1970; None if the feed does not say.
        source: The title of the feed, or what the item calls its source.
    """

    title: str
    text: str = ""
    url: str = ""
    published: float | None = None
    source: str = ""

    @property
    def address(self) -> str:
        """The address without what does not tell pages apart: scheme, fragment, marks that track the reader."""
        url = self.url.strip()
        with suppress(ValueError):  # a name such as tag:example.org,2026:1, or damaged
            if "://" in url:
                url = str(normalize_url(urldefrag(url).url, trailing_slash=False)).partition("://")[2]
        return url

    @property
    def label(self) -> str:
        """The title, or the beginning of the text."""
        return self.title or textwrap.shorten(self.text, SHOWN, placeholder=" …")

    @property
    def beginning(self) -> str:
        """The words that tell which story it is; what follows is background that many share."""
        return " ".join(f"{self.title}. {self.text}".split()[:WORDS])

    @property
    def content(self) -> bytes:
        """A hash of title and text; case and white space do not count."""
        words = " ".join(f"{self.title} {self.text}".casefold().split())
        return hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=16).digest()


def read_items(names: Iterable[str], report: Report) -> Iterator[Item]:
    """Yield the items of files, or of standard input for `-`.

    Args:
        names: Files.
        report: Called with one line for what cannot be read; reading goes on behind it.

    Raises:
        OSError: If a file cannot be opened.
    """
    for name in names:
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as stream:
            yield from read_stream(stream, name, report)


def read_stream(stream: BinaryIO, name: str, report: Report) -> Iterator[Item]:
    """Yield the items of one file, whose first character tells what it is."""
    while (head := stream.peek(64)) and not head.strip(BLANK):  # type: ignore[attr-defined]
        stream.read(len(head))
    first = head.lstrip(BLANK)[:1]
    if first in (b"{", b"["):
        yield from read_json(stream, name, report)
    elif first in (b"<", b"\xff", b"\xfe"):
        data = stream.read()
        reader = read_opml if b"<opml" in data[:4096].lower() else read_feed
        yield from reader(data, name, report)
    elif first:
        yield from read_table(stream, name, report)
    else:
        report(f"{name}: empty")


def well_formed(text: Any) -> str:
    """Return text in which halves of surrogate pairs are replaced."""
    return str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain(text: Any) -> str:
    """Return what a reader sees of text or HTML, on one line."""
    text = "" if text is None else well_formed(text)
    if MARKUP.search(text) or "&" in text:
        with suppress(etree.ParserError, ValueError):  # nothing but comments; control characters
            text = " ".join(html.fromstring(f"<div>{text}</div>").itertext())
    return " ".join(text.split())


def as_time(value: Any) -> float | None:
    """Return seconds since 1970 of a date in any usual form, or of a number of seconds or milliseconds.

    Raises:
        ValueError: If it is no date.
    """
    if value is None or not str(value).strip():
        return None
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no date")
    if isinstance(value, str) and value.isdecimal() and len(value) > len("20260302"):
        value = int(value)
    try:
        if isinstance(value, int | float):
            seconds = value / 1000 if value > MOST_SECONDS else float(value)  # JavaScript counts milliseconds
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", date_parser.UnknownTimezoneWarning)
                date = date_parser.parse(str(value))
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except OverflowError as error:
        raise ValueError(f"{value!r} is no date") from error
    if not 0 <= seconds <= MOST_SECONDS:
        raise ValueError(f"{value!r} is no date")
    return seconds


def row_items(record: Any, source: str, where: str, report: Report) -> Iterator[Item]:
    """Yield the item of a row, or report why there is none."""
    if not isinstance(record, dict):
        report(f"{where}: not an object; left out")
        return
    known = {str(key).strip().lower(): value for key, value in record.items()}
    found = {
        field: next((known[name] for name in names if known.get(name)), None) for field, names in NAMES.items()
    }
    title, text = plain(found["title"]), plain(found["text"])
    if not (title or text):
        report(f"{where}: neither a title nor a text; left out")
        return
    published = None
    try:
        published = as_time(found["published"])
    except ValueError:
        report(f"{where}: {found['published']!r} is no date; taken as of now")
    yield Item(title, text, well_formed(found["url"] or ""), published, plain(found["source"]) or source)


def read_feed(data: bytes, name: str, report: Report) -> Iterator[Item]:
    """Yield the items of an RSS or Atom feed; those before a damaged place, too."""
    feed = feedparser.parse(io.BytesIO(data))
    if not feed.version and not feed.entries:
        report(f"{name}: neither a feed nor OPML, JSON lines or CSV")
        return
    if feed.bozo and not isinstance(feed.bozo_exception, feedparser.CharacterEncodingOverride):
        report(f"{name}: damaged ({first_line(feed.bozo_exception)}); read as far as possible")
    for number, entry in enumerate(feed.entries, start=1):
        content = max((part.get("value", "") for part in entry.get("content", ())), key=len, default="")
        time = entry.get("published_parsed") or entry.get("updated_parsed")
        item = Item(
            title=plain(entry.get("title")),
            text=plain(entry.get("summary") or content),
            url=entry.get("link") or entry.get("id", ""),
            published=timegm(time) if time else None,
            source=plain(entry.get("source", {}).get("title") or feed.feed.get("title")),
        )
        if item.title or item.text:
            yield item
        else:
            report(f"{name} item {number}: neither a title nor a text; left out")


def read_opml(data: bytes, name: str, report: Report) -> Iterator[Item]:
    """Yield the links in an outline, and the items of the feeds that it names by files beside it."""
    try:
        root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError as error:
        report(f"{name}: damaged ({first_line(error)})")
        return
    directory, remote = (Path() if name == "-" else Path(name).parent).resolve(), 0
    for outline in root.iter("outline"):
        title = outline.get("title") or outline.get("text", "")
        feed, url = outline.get("xmlUrl"), outline.get("url")
        if feed and "://" in feed:
            remote += 1
        elif feed and not (path := (directory / feed).resolve()).is_relative_to(directory):
            report(f"{name}: {feed} is outside of the file's directory; left out")
        elif feed and not path.is_file():
            report(f"{name}: {path}: no such file; left out")
        elif feed:
            with path.open("rb") as stream:
                yield from read_feed(stream.read(), str(path), report)
        elif url:
            record = {"title": title, "url": url, "published": outline.get("created")}
            yield from row_items(record, outline.get("category", ""), f"{name} line {outline.sourceline}", report)
    if remote:
        report(f"{name}: {remote:,} feeds on the net were not fetched; save them and name the files")


def decoded(lines: Iterable[bytes], name: str, report: Report) -> Iterator[str]:
    """Decode lines of UTF-8; in the place of one that is not is an empty one."""
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").replace("\0", "")
        except UnicodeDecodeError:
            report(f"{name} line {number}: not UTF-8; left out")
            yield "\n"


def items_of(record: Any, name: str, where: str, report: Report) -> Iterator[Item]:
    """Yield the items of a JSON Feed or a list, or the one that a JSON object is."""
    feed = isinstance(record, dict) and isinstance(record.get("items"), list)
    if not feed and not isinstance(record, list):
        yield from row_items(record, "", where, report)
        return
    source = plain(record.get("title")) if feed else ""
    for place, row in enumerate(record["items"] if feed else record, start=1):
        yield from row_items(row, source, f"{name} item {place}", report)


def read_json(stream: BinaryIO, name: str, report: Report) -> Iterator[Item]:
    """Yield the items of a JSON Feed or a list of objects, or of one JSON object a line."""
    lines: Iterator[str] = decoded(bounded_lines(stream), name, report)
    first = next(lines, "")
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        rest = list(lines)
        try:
            record = json.loads(first + "".join(rest))  # over several lines
            rest = []
        except (ValueError, RecursionError):
            rest.insert(0, first)
        lines = iter(rest)
    else:
        rest = []
    if not rest:
        yield from items_of(record, name, f"{name} line 1", report)
    for number, line in enumerate(lines, start=1 if rest else 2):
        if line.strip():
            where = f"{name} line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                report(f"{where}: not JSON ({first_line(error)}); left out")
            else:
                yield from items_of(record, name, where, report)


def read_table(stream: BinaryIO, name: str, report: Report) -> Iterator[Item]:
    """Yield the rows of a table under a header line, with commas or semicolons, or with tabs and no quotes."""
    lines = decoded(bounded_lines(stream), name, report)
    header = next(lines, "")
    delimiter = max(",\t;", key=header.count)
    style: dict[str, Any] = {"strict": True} if delimiter != "\t" else {"quoting": csv.QUOTE_NONE}
    csv.field_size_limit(LONGEST_LINE)
    try:
        columns = next(csv.reader([header], delimiter=delimiter, **style), [])
    except csv.Error:  # line ends of another kind
        columns = []
    if not {*NAMES["title"], *NAMES["text"]} & {column.strip().lower() for column in columns}:
        report(f"{name} line 1: no header with a column title or text; left out")
        return
    rows = csv.reader(lines, delimiter=delimiter, **style)
    while True:
        where = f"{name} line {rows.line_num + 2}"
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            report(f"{where}: not a row of cells ({error}); left out")
            continue
        if len(cells) == len(columns):
            yield from row_items(dict(zip(columns, cells, strict=True)), "", where, report)
        elif cells:
            report(f"{where}: {len(cells)} cells instead of {len(columns)}; left out")

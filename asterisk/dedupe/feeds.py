"""Read the items of feeds: RSS, Atom, JSON Feed, OPML, JSON lines, CSV; from files, never from the net."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from calendar import timegm
from collections.abc import Callable, Iterable, Iterator, Mapping
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

Report = Callable[[str], None]
# By which names the columns of a table, or the keys of JSON objects, are known.
NAMES = {
    "title": ("title", "headline", "name"),
    "text": ("summary", "text", "content", "description", "body", "content_text", "content_html"),
    "url": ("url", "link", "external_url", "id"),
    "published": ("published", "date", "date_published", "pubdate", "created", "time"),
    "source": ("source", "feed", "site", "author"),
}
LONGEST_LINE = 1 << 24
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
    first = stream.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]  # type: ignore[attr-defined]
    if first == b"{":
        yield from read_json(stream, name, report)
    elif first == b"<" or first in (b"\xff", b"\xfe"):
        data = stream.read()
        reader = read_opml if b"<opml" in data[:4096].lower() else read_feed
        yield from reader(data, name, report)
    elif first:
        yield from read_table(stream, name, report)
    else:
        report(f"{name}: empty")


def plain(text: Any) -> str:
    """Return what a reader sees of text or HTML, on one line."""
    text = "" if text is None else str(text)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "<" in text or "&" in text:
        with suppress(etree.ParserError, ValueError):  # nothing but comments; control characters
            text = " ".join(html.fromstring(f"<div>{text}</div>").itertext())
    return " ".join(text.split())


def as_time(value: Any) -> float | None:
    """Return seconds since 1970 of a date in any usual form, or of a number of seconds or milliseconds.

    Raises:
        ValueError: If it is no date.
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, int | float):
            seconds = value / 1000 if value > MOST_SECONDS else float(value)  # JavaScript counts milliseconds
        else:
            date = date_parser.parse(str(value))
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except OverflowError as error:
        raise ValueError(f"{value!r} is no date") from error
    if not 0 <= seconds <= MOST_SECONDS:
        raise ValueError(f"{value!r} is no date")
    return seconds


def as_item(record: Mapping[str, Any], source: str = "") -> Item:
    """Make an item of a row.

    Raises:
        ValueError: If it has neither title nor text, or its date is none.
    """
    known = {str(key).strip().lower(): value for key, value in record.items()}
    found = {
        field: next((known[name] for name in names if known.get(name)), None) for field, names in NAMES.items()
    }
    title, text = plain(found["title"]), plain(found["text"])
    if not (title or text):
        raise ValueError("neither a title nor a text")
    try:
        published = as_time(found["published"])
    except ValueError as error:
        raise ValueError(f"{found['published']!r} is no date") from error
    return Item(title, text, str(found["url"] or ""), published, plain(found["source"]) or source)


def tried(record: Any, source: str, where: str, report: Report) -> Iterator[Item]:
    """Yield the item of a row, or report why there is none."""
    try:
        if not isinstance(record, dict):
            raise ValueError("not an object")
        yield as_item(record, source)
    except ValueError as error:
        report(f"{where}: {first_line(error)}; left out")


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
            yield from tried(record, outline.get("category", ""), f"{name} line {outline.sourceline}", report)
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


def read_json(stream: BinaryIO, name: str, report: Report) -> Iterator[Item]:
    """Yield the items of a JSON Feed, or of one JSON object a line."""
    lines = decoded(iter(lambda: stream.readline(LONGEST_LINE), b""), name, report)
    for number, line in enumerate(lines, start=1):
        where = f"{name} line {number}"
        if not line.strip():
            continue
        try:
            try:
                record = json.loads(line)
            except ValueError:
                if number > 1:
                    raise
                record = json.loads(line + "".join(lines))  # a JSON Feed over several lines
        except (ValueError, RecursionError) as error:
            report(f"{where}: not JSON ({first_line(error)}); left out")
            continue
        if isinstance(record, dict) and isinstance(record.get("items"), list):
            for place, row in enumerate(record["items"], start=1):
                yield from tried(row, plain(record.get("title")), f"{name} item {place}", report)
        else:
            yield from tried(record, "", where, report)


def read_table(stream: BinaryIO, name: str, report: Report) -> Iterator[Item]:
    """Yield the rows of a CSV file, or of one with tabs and no quotes, under a header line."""
    lines = decoded(stream, name, report)
    header = next(lines, "")
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if "\t" in header else {}
    columns = next(csv.reader([header], **style), [])
    if not {*NAMES["title"], *NAMES["text"]} & {column.strip().lower() for column in columns}:
        report(f"{name} line 1: no header with a column title or text; left out")
        return
    csv.field_size_limit(LONGEST_LINE)
    rows = csv.reader(lines, **style)
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
            yield from tried(dict(zip(columns, cells, strict=True)), "", where, report)
        elif cells:
            report(f"{where}: {len(cells)} cells instead of {len(columns)}; left out")

"""Markdown, as Obsidian writes it: front matter, wiki-links, embeds and tags."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import frontmatter
import yaml
from frontmatter.default_handlers import YAMLHandler
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from asterisk.search.documents import Block, Document

# In characters. The time to parse them grows with the square of their length.
LONGEST_FRONT_MATTER, LONGEST_PARAGRAPH = 20_000, 10_000


def long_paragraph(state: StateInline, silent: bool) -> bool:
    """Take a paragraph that nobody wrote by hand as it is."""
    if state.posMax <= LONGEST_PARAGRAPH:
        return False
    if not silent:
        state.push("text", "", 0).content = state.src[state.pos : state.posMax]
    state.pos = state.posMax
    return True


def wiki_link(state: StateInline, silent: bool) -> bool:
    """Read `[[note#heading|alias]]` as its alias or target, and `![[...]]` as the name of a note or as nothing."""
    embed = state.src.startswith("![[", state.pos)
    if not embed and not state.src.startswith("[[", state.pos):
        return False
    start = state.pos + (3 if embed else 2)
    end = state.src.find("]]", start, state.posMax)
    if end < 0 or "\n" in state.src[start:end]:
        return False
    if not silent:
        target, _, alias = state.src[start:end].partition("|")
        token = state.push("text", "", 0)
        # What is embedded and has a suffix is a picture or another file, and its alias a width.
        token.content = "" if embed and PurePath(target).suffix else (alias or target).strip()
    state.pos = end + 2
    return True


def tag(state: StateInline, silent: bool) -> bool:
    """Read `#tag` behind a space or at the beginning; digits alone are no tag."""
    if state.src[state.pos] != "#" or (state.pos and not state.src[state.pos - 1].isspace()):
        return False
    end = state.pos + 1
    while end < state.posMax and (state.src[end].isalnum() or state.src[end] in "_-/"):
        end += 1
    name = state.src[state.pos + 1 : end].strip("/")
    if not name or name.isdigit():
        return False
    if not silent:
        token = state.push("tag", "", 0)
        token.content = name
    state.pos = end
    return True


PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PARSER.inline.ruler.before("text", "long_paragraph", long_paragraph)
PARSER.inline.ruler.before("link", "wiki_link", wiki_link)
PARSER.inline.ruler.before("link", "tag", tag)


class FrontMatter(YAMLHandler):
    """YAML in pure Python: deeply nested, it is an error there, and the end of the process in C."""

    def load(self, fm: str, **_: Any) -> Any:
        """Return what the front matter says.

        Raises:
            ValueError: If it is so long that it can only be text between two lines.
        """
        if len(fm) > LONGEST_FRONT_MATTER:
            raise ValueError("too long for front matter")
        return yaml.load(fm, yaml.SafeLoader)


def inline_text(tokens: Iterable[Token]) -> str:
    """Return what a reader sees of inline tokens."""
    parts = []
    for token in tokens:
        if token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif token.type == "image":
            parts.append(inline_text(token.children or []))
        elif token.type in ("text", "code_inline", "tag"):
            parts.append(token.content)
    return "".join(parts).strip()


def find_blocks(text: str, first_line: int | None = 1) -> tuple[list[Block], list[str]]:
    """Return blocks and tags of Markdown without front matter.

    Args:
        text: The Markdown.
        first_line: The number of its first line in the file; None leaves lines out.
    """
    headings: list[tuple[int, str]] = []
    blocks: list[Block] = []
    tags: list[str] = []
    cells: list[str] = []
    level, row = 0, None

    def add(content: str, lines: list[int] | None) -> None:
        line = lines[0] + first_line if lines and first_line is not None else None
        if content:
            blocks.append(Block(content, tuple(heading for _, heading in headings), line))

    for token in PARSER.parse(text):
        if token.type == "heading_open":
            level = int(token.tag[1])
            headings = [(above, heading) for above, heading in headings if above < level]
        elif token.type == "heading_close":
            level = 0
        elif token.type == "tr_open":
            row, cells = token.map, []
        elif token.type == "tr_close":
            add(" | ".join(filter(None, cells)), row)
            row = None
        elif token.type in ("fence", "code_block"):
            add(token.content.strip(), token.map)
        elif token.type == "inline":
            children = token.children or []
            tags += [child.content for child in children if child.type == "tag"]
            content = inline_text(children)
            if level:
                headings.append((level, content))
            elif row is not None:
                cells.append(content)
            else:
                add(content, token.map)
    return blocks, tags


def first_heading(text: str) -> str | None:
    """Return the heading of the first level that a text begins with."""
    tokens = PARSER.parse(text[:10_000])
    if len(tokens) > 1 and tokens[0].tag == "h1":
        return inline_text(tokens[1].children or [])
    return None


def as_text(value: Any) -> str:
    """Return a text, number or date of front matter; of what is nested nothing.

    Ten lines of YAML can stand for a list of a thousand million items, which is harmless until it is written out.
    """
    return str(value).strip() if isinstance(value, str | int | float | datetime.date) else ""


def as_list(value: Any) -> list[str]:
    """Return the tags of front matter, which are a list, or a text with commas or spaces."""
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    return [as_text(item) for item in value] if isinstance(value, list) else []


def as_time(value: Any) -> float | None:
    """Return seconds since 1970 of a date in front matter."""
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    try:
        return value.timestamp() if isinstance(value, datetime.datetime) else None
    except (OverflowError, ValueError, OSError):  # the year 1, say
        return None


def read_markdown(text: str, name: str) -> Document:
    """Read a note; its title is in its front matter, the heading that it begins with, or else `name`."""
    try:
        metadata, content = frontmatter.parse(text, handler=FrontMatter())
    except (yaml.YAMLError, ValueError, RecursionError):  # such front matter is text like any other
        metadata, content = {}, text
    start = text.rfind(content)
    blocks, tags = find_blocks(content, text.count("\n", 0, max(start, 0)) + 1)
    title = as_text(metadata.get("title")) or first_heading(content)
    tags += as_list(metadata.get("tags")) + as_list(metadata.get("tag"))
    dates = (as_time(metadata.get(key)) for key in ("date", "updated", "created"))
    return Document(
        title=title or name,
        blocks=blocks,
        tags=sorted({name.strip().lstrip("#").lower() for name in tags} - {""}),
        date=next((date for date in dates if date is not None), None),
        named_by_file=not title,
    )

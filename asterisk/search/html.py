"""Web pages: the article without navigation and advertisements, as trafilatura finds it."""

from __future__ import annotations

import logging

import trafilatura

from asterisk.search.documents import Block, Document, Unreadable, paragraphs
from asterisk.search.markdown import as_time, find_blocks

# It tells of pages without an article, which are read nevertheless.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)


def read_html(data: bytes, name: str) -> Document:
    """Read a page; without a title it is called `name`.

    Raises:
        Unreadable: If it is binary or no HTML.
    """
    if b"\0" in data[:8192]:
        raise Unreadable("binary")
    data = whole_page(data)
    tree = trafilatura.load_html(data)
    if tree is None:
        raise Unreadable("not HTML")
    metadata = trafilatura.extract_metadata(tree)
    tags = [tag.strip().lower() for text in metadata.tags or [] for tag in text.split(",")]
    return Document(
        title=metadata.title or name,
        blocks=html_blocks(data),
        tags=sorted(set(tags) - {""}),
        date=as_time(metadata.date),
        url=metadata.url or "",
        named_by_file=not metadata.title,
    )


def whole_page(data: bytes) -> bytes:
    """Return a fragment as a page: trafilatura takes no less."""
    return data if b"<body" in data.lower() else b"<html><body>" + data + b"</body></html>"


def html_blocks(data: bytes | str) -> list[Block]:
    """Return the article's text under its headings, or all text of a page that has no article."""
    text = trafilatura.extract(data, output_format="markdown", favor_recall=True)
    if text:
        blocks, _ = find_blocks(text, first_line=None)
        return blocks
    return list(paragraphs(trafilatura.html2txt(data), numbered=False))

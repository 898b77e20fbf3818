"""The text layer of PDF files."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

from pypdf import PdfReader

from asterisk.search.documents import Block, Document, Unreadable, paragraphs

# It warns about every flaw of a file that it can read nevertheless.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def read_pdf(data: bytes, name: str) -> Document:
    """Read a file page by page; without a title it is called `name`.

    Raises:
        Unreadable: If it asks for a password or has no text.
    """
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("asks for a password")
    blocks = list(page_blocks(reader))
    if not blocks:
        raise Unreadable("no text in it; a scan needs OCR first")
    title = str((reader.metadata and reader.metadata.title) or "").strip()
    return Document(title or name, blocks, named_by_file=not title)


def page_blocks(reader: PdfReader) -> Iterator[Block]:
    """Yield the paragraphs of each page."""
    for number, page in enumerate(reader.pages, start=1):
        yield from paragraphs(page.extract_text(), f"page {number}", numbered=False)

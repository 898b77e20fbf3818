"""Messages: one in an `.eml` file, many in an mbox."""

from __future__ import annotations

import email
import mailbox
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path

from asterisk.search.documents import Block, Document, Unreadable, paragraphs

LARGEST = 20_000_000  # of a message in an mbox, so many bytes are read


def read_message(data: bytes, name: str, place: str = "") -> Document:
    """Read a message; without a subject it is called `name`.

    Raises:
        Unreadable: If it has no header.
    """
    message = email.message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    if not message.keys():
        raise Unreadable("not a message: it has no header")
    try:
        date = parsedate_to_datetime(str(message["Date"])).timestamp()
    except (TypeError, ValueError, OverflowError):
        date = None
    people = [f"{key}: {message[key]}" for key in ("From", "To") if message[key]]
    blocks = [Block("\n".join(people), place=place)] if people else []
    return Document(
        title=str(message["Subject"] or name).strip(),
        blocks=blocks + list(body_blocks(message, place)),
        date=date,
        named_by_file=not message["Subject"],
    )


def body_blocks(message: EmailMessage, place: str) -> Iterator[Block]:
    """Yield the paragraphs of the plain text, else of the HTML."""
    body = message.get_body(("plain", "html"))
    if body is None:
        return
    try:
        text = str(body.get_content())
    except (LookupError, UnicodeError):  # a character set that Python does not know
        text = (body.get_payload(decode=True) or b"").decode("utf-8", "replace")  # type: ignore[union-attr]
    if body.get_content_subtype() == "html":
        from asterisk.search.html import html_blocks, whole_page

        blocks = html_blocks(whole_page(text.encode("utf-8", "replace")).decode())
        yield from (Block(block.text, block.headings, place=place) for block in blocks)
    else:
        yield from paragraphs(text, place, numbered=False)


def read_mbox(path: Path) -> Iterator[Document]:
    """Read the messages of an mbox one after the other."""
    box = mailbox.mbox(path, create=False)
    try:
        for number, key in enumerate(box.iterkeys(), start=1):
            place = f"message {number}"
            try:
                yield read_message(box.get_file(key).read(LARGEST), f"{path.stem}, {place}", place)
            except Unreadable:
                continue
    finally:
        box.close()

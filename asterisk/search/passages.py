"""Cut documents into passages that one vector can stand for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from tokenizers import Tokenizer

from asterisk.search.documents import Block, Document

TOKENS = 128
# Of a long text, so much is tokenised to find where its first passage ends.
WINDOW = 3000
SENTENCE_ENDS = (". ", "! ", "? ", ".\n", "\n")


@dataclass(frozen=True)
class Passage:
    """Some `TOKENS` tokens of a document under one heading."""

    text: str
    headings: str
    line: int | None
    place: str
    embedded: str  # the text behind title and headings

    @cached_property
    def hash(self) -> int:
        """A hash of what is embedded; the number fits into SQLite's integers."""
        digest = hashlib.blake2b(self.embedded.encode("utf-8", "replace"), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


def cut(document: Document, tokenizer: Tokenizer, tokens: int = TOKENS) -> list[Passage]:
    """Join short blocks under the same heading, and cut long ones behind a sentence or word.

    A document without text becomes one passage, so that its title can be found.
    """
    passages: list[Block] = []
    for _, blocks in groupby(document.blocks, key=lambda block: (block.headings, block.place)):
        passages += join((piece for block in blocks for piece in split(block, tokenizer, tokens)), tokens)
    return [as_passage(block, document.title) for block in passages or [Block("")]]


def as_passage(block: Block, title: str) -> Passage:
    """Leave out the first heading where it repeats the title."""
    headings = block.headings[1:] if block.headings[:1] == (title,) else block.headings
    path = " > ".join(filter(None, headings))
    return Passage(block.text, path, block.line, block.place, embedded_text(title, path, block.text))


def embedded_text(title: str, headings: str, text: str) -> str:
    """Return what is embedded of a passage."""
    return "\n".join(filter(None, (title, headings, text)))


def split(block: Block, tokenizer: Tokenizer, tokens: int) -> Iterator[tuple[Block, int]]:
    """Yield pieces of at most `tokens` tokens, and how many each has."""
    text, line = block.text, block.line
    while True:
        encoding = tokenizer.encode(text[:WINDOW], add_special_tokens=False)
        if len(encoding) <= tokens and len(text) <= WINDOW:
            yield replace(block, text=text, line=line), len(encoding)
            return
        last = min(tokens, len(encoding)) - 1
        end = encoding.offsets[last][1] if last >= 0 else WINDOW
        end = good_end(text, end)
        piece, rest = text[:end], text[end:]
        yield replace(block, text=piece.strip(), line=line), last + 1
        if line is not None:
            line += piece.count("\n") + rest[: len(rest) - len(rest.lstrip())].count("\n")
        text = rest.lstrip()
        if not text:
            return


def good_end(text: str, end: int) -> int:
    """Return the end of the last sentence in the second half of `text[:end]`, else of a word, else `end`."""
    ends = [text.rfind(mark, end // 2, end) + 1 for mark in SENTENCE_ENDS]
    return max(ends) or text.rfind(" ", end // 2, end) + 1 or end


def join(pieces: Iterator[tuple[Block, int]], tokens: int) -> Iterator[Block]:
    """Join neighbours as long as they stay within `tokens` tokens together."""
    joined: Block | None = None
    size = 0
    for piece, length in pieces:
        if joined is not None and size + length <= tokens:
            joined, size = replace(joined, text=f"{joined.text}\n{piece.text}"), size + length
            continue
        if joined is not None:
            yield joined
        joined, size = piece, length
    if joined is not None:
        yield joined

"""Somebody's own archive as text to learn from: passages as an index embeds them, their sentences and headings."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer
from tqdm import tqdm

from asterisk.data.sources import Seen, Selection, Tally, clean, file_type, kept_pairs, source_state
from asterisk.errors import InputError

if TYPE_CHECKING:
    from asterisk.search.documents import Document

DATASET_FILES = ("state.json", "dataset_dict.json")  # of a directory that `datasets` has written
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
MIN_CHARS = 8
SHORT_TEXTS = 2  # for each passage
FEW_DOCUMENTS = 20  # of fewer, single texts are held out
Text = tuple[int, str]  # number of its document, text


@dataclass
class Sample:
    """At most `size` texts of a stream, each as likely as any other (reservoir sampling, algorithm R)."""

    size: int
    random: random.Random
    seen: int = 0
    items: list[Text] = field(default_factory=list)

    def add(self, item: Text) -> None:
        """Keep the text, perhaps in the place of another."""
        self.seen += 1
        if len(self.items) < self.size:
            self.items.append(item)
        elif (place := self.random.randrange(self.seen)) < self.size:
            self.items[place] = item


@dataclass
class Archive:
    """Texts drawn from an archive; `counts` says of how many."""

    passages: list[Text]
    short_texts: list[Text]
    counts: dict[str, int]

    def split(self, share: float, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return rows (short text, passage) to train on, and rows held out: all texts of a share of the documents.

        The texts of a row may be from two documents. Where one kind is left over, rows have a single text.
        """
        rng = random.Random(seed)
        numbers = sorted({number for number, _ in [*self.passages, *self.short_texts]})
        held_out = set(rng.sample(numbers, max(1, round(share * len(numbers)))))
        parts: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
        for chosen, rows in zip((False, True), parts, strict=True):
            kinds = [
                [text for number, text in texts if (number in held_out) is chosen]
                for texts in (self.short_texts, self.passages)
            ]
            for texts in kinds:
                rng.shuffle(texts)
            rows += [
                (first or second, second if first else "") for first, second in zip_longest(*kinds, fillvalue="")
            ]
        return parts


def read_documents(dataset: str) -> Iterator[Document]:
    """Read a folder with the readers of `asterisk index`, any other source with those of `prepare_data.py`.

    Raises:
        InputError: If there is no such source, or it cannot be read.
    """
    from asterisk.search.documents import Block, Document, Unreadable
    from asterisk.search.sources import find, read

    path = Path(dataset).expanduser()
    folder = path.is_dir() and not any((path / name).is_file() for name in DATASET_FILES)
    if not folder and (not path.is_file() or file_type(dataset)):
        source_state(dataset)
        for summary, article in kept_pairs(Selection([dataset]), Tally()):
            yield Document(summary, [Block(article)]) if article else Document("", [Block(summary)])
        return
    found = find(path.resolve())
    for source in tqdm(found.sources, desc="reading", unit=" files", disable=None):
        try:
            yield from read(source, source.content())
        except (Unreadable, OSError) as error:
            tqdm.write(f"{source.path}: {error}; left out", file=sys.stderr)


def texts_of(document: Document, tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """Return the passages of a document, and its title, headings and sentences."""
    from asterisk.search.passages import cut

    passages = [passage.embedded for passage in cut(document, tokenizer)]
    short_texts = [document.title, *(heading for block in document.blocks for heading in block.headings)]
    for block in document.blocks:
        short_texts += SENTENCE_END.split(" ".join(block.text.split()))
    return passages, short_texts


def read_archive(datasets: list[str], tokenizer: Tokenizer, limit: int, seed: int) -> Archive:
    """Draw up to `limit` passages, and twice as many short texts, from folders or other sources.

    Memory is bounded by the limit, not by the archive. Texts that occur twice are taken once.

    Raises:
        InputError: If a source cannot be read, or all of them have hardly any text.
    """
    rng, seen = random.Random(seed), Seen()
    passages, short_texts = Sample(limit, rng), Sample(SHORT_TEXTS * limit, rng)
    documents = 0
    for dataset in datasets:
        for document in read_documents(dataset):
            for sample, texts in zip((passages, short_texts), texts_of(document, tokenizer), strict=True):
                for text in map(clean, texts):
                    if len(text) >= MIN_CHARS and seen.add(text.casefold()):
                        sample.add((documents, text))
            documents += 1
    if len(passages.items) + len(short_texts.items) < FEW_DOCUMENTS:
        raise InputError(f"{' '.join(datasets)}: hardly any text to learn from; name a folder that has more")
    if documents < FEW_DOCUMENTS:  # a few long ones
        for sample in (passages, short_texts):
            sample.items = [(number, text) for number, (_, text) in enumerate(sample.items)]
    counts = {"documents": documents, "passages": passages.seen, "short_texts": short_texts.seen}
    return Archive(passages.items, short_texts.items, counts)

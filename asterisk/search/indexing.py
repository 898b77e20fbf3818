"""Bring an index up to date: read what changed, embed it in large batches, write each file in one transaction."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asterisk.encoder import AsteriskEncoder
from asterisk.search.documents import Document, Unreadable
from asterisk.search.passages import Passage, cut
from asterisk.search.sources import Found, Source, find, read
from asterisk.search.store import Known, State, Store, entry, new_attempt

# So many passages are embedded together: enough for batches of like length, few enough for any memory.
BLOCK = 1024


@dataclass
class Report:
    """What an update did.

    Attributes:
        added: Files read that were new.
        changed: Files read again.
        renamed: Files found in another place, with their vectors.
        removed: Files forgotten.
        unchanged: Files that were up to date.
        passages: Passages written.
        embedded: Passages that the model embedded; the others' texts were known.
        seconds: The time of all.
        embedding_seconds: The part of it in the model.
        embedded_again: Passages that had vectors of another model.
        again_seconds: What those took.
        skipped: What was left out, and why.
        missing: Roots that are not there; what is known of them stays.
    """

    added: int = 0
    changed: int = 0
    renamed: int = 0
    removed: int = 0
    unchanged: int = 0
    passages: int = 0
    embedded: int = 0
    seconds: float = 0.0
    embedding_seconds: float = 0.0
    embedded_again: int = 0
    again_seconds: float = 0.0
    skipped: dict[Path, str] = field(default_factory=dict)
    missing: list[Path] = field(default_factory=list)

    @property
    def touched(self) -> bool:
        """Whether anything was written apart from skipped files."""
        return bool(self.added or self.changed or self.renamed or self.removed)


@dataclass
class Reading:
    """A file that is being read, and its documents that wait to be embedded."""

    source: Source
    state: State
    attempt: int = field(default_factory=new_attempt)
    waiting: list[tuple[Document, list[Passage]]] = field(default_factory=list)
    written: int = 0  # documents of it
    done: bool = False


class Indexer:
    """Updates an index."""

    def __init__(self, store: Store, encoder: AsteriskEncoder) -> None:
        self.store, self.encoder = store, encoder
        self.report = Report()
        self.readings: list[Reading] = []

    def update(self, roots: list[Path], progress: bool = False) -> Report:
        """Update what is below the roots."""
        start = time.perf_counter()
        for root in roots:
            if root.exists():
                self.update_root(root, progress)
            else:  # a disk that is not plugged in, perhaps
                self.report.missing.append(root)
        self.report.seconds = time.perf_counter() - start
        return self.report

    def change_model(self, facts: dict[str, str], progress: bool = False) -> None:
        """Embed every passage of an index that another model made, and write down the facts of this one."""
        start = time.perf_counter()
        ((count,),) = self.store.rows("select count(*) from passages")
        with tqdm(total=count, desc="another model", unit=" passages", disable=not progress) as bar:

            def embed(texts: list[str]) -> np.ndarray:
                vectors = self.encoder.encode(texts)
                bar.update(len(texts))
                return vectors

            self.store.replace_vectors(embed, self.encoder.dim, facts)
        self.report.embedded_again = count
        self.report.again_seconds = time.perf_counter() - start

    def update_root(self, root: Path, progress: bool) -> None:
        """Update what is below a root."""
        self.store.add_root(root)
        found, known = find(root), self.store.known()
        self.report.skipped |= found.skipped
        changed = []
        for source in found.sources:
            before = known.get(source.path)
            if before is None or before.stamp != source.stamp:
                changed.append(source)
            elif before.reason:
                self.report.skipped[source.path] = before.reason
            else:
                self.report.unchanged += 1
        gone = gone_files(root, found, known)
        for source in tqdm(changed, desc=root.name, unit=" files", disable=not progress):
            self.add(source, known.get(source.path), gone)
        self.flush()
        self.store.remove_files(gone.values())
        self.report.removed += len(gone)

    def add(self, source: Source, before: Known | None, gone: dict[bytes | int, Known]) -> None:
        """Read a file, unless its content is known; its passages wait to be embedded."""
        try:
            data = source.content()
            digest = hash_of(source, data)
            state = State(source.stamp, source.modified, digest)
            if before is not None and before.hash == digest:
                self.store.move(before, source.path, state)
                self.report.unchanged += 1
            elif before is None and (former := gone.pop(digest, None)):
                self.store.move(former, source.path, state)
                self.report.renamed += 1
            else:
                self.read(Reading(source, state), data)
                self.report.added += before is None
                self.report.changed += before is not None
        except (Unreadable, OSError) as error:
            self.skip(source, error)

    def read(self, reading: Reading, data: bytes) -> None:
        """Cut a file's documents into passages; embed those that wait once they are enough."""
        self.readings.append(reading)
        for document in read(reading.source, data):
            passages = cut(document, self.encoder.tokenizer)
            if sum(len(waiting) for other in self.readings for _, waiting in other.waiting) >= BLOCK:
                self.flush()
            reading.waiting.append((document, passages))
        reading.done = True

    def skip(self, source: Source, error: Unreadable | OSError) -> None:
        """Leave a file out; what could not be opened is tried again next time."""
        self.readings = [reading for reading in self.readings if reading.source is not source]
        if isinstance(error, OSError):
            state = State(reason=(error.strerror or "cannot be read").lower())
        else:
            state = State(source.stamp, source.modified, reason=str(error))
        self.report.skipped[source.path] = state.reason or ""
        self.store.skip(source.path, state)

    def flush(self) -> None:
        """Embed and write what waits."""
        vectors = self.embed(
            {
                passage.hash: passage.embedded
                for reading in self.readings
                for _, passages in reading.waiting
                for passage in passages
            }
        )
        for reading in self.readings:
            documents = [
                (document, [entry(passage, vectors[passage.hash]) for passage in passages])
                for document, passages in reading.waiting
            ]
            self.report.passages += sum(len(entries) for _, entries in documents)
            state = reading.state if reading.done else None
            self.store.write(reading.source.path, reading.attempt, reading.written, documents, state)
            reading.written += len(documents)
            reading.waiting = []
        self.readings = [reading for reading in self.readings if not reading.done]

    def embed(self, texts: dict[int, str]) -> dict[int, np.ndarray | bytes]:
        """Return the vectors of texts by their hashes; those that the index has are taken from it."""
        stored = {hash: self.store.vector_of(hash) for hash in texts}
        vectors: dict[int, np.ndarray | bytes] = {hash: vector for hash, vector in stored.items() if vector}
        new = {hash: text for hash, text in texts.items() if hash not in vectors}
        start = time.perf_counter()
        vectors |= zip(new, self.encoder.encode(new.values()), strict=True)
        self.report.embedding_seconds += time.perf_counter() - start
        self.report.embedded += len(new)
        return vectors


def gone_files(root: Path, found: Found, known: dict[Path, Known]) -> dict[bytes | int, Known]:
    """Return the known files below a root that are no longer there, by content, or number where two are equal.

    Left out are those in directories that could not be listed.
    """
    present = {source.path for source in found.sources} | found.skipped.keys()
    gone: dict[bytes | int, Known] = {}
    for path, file in known.items():
        if path in present or not path.is_relative_to(root):
            continue
        if not any(path.is_relative_to(directory) for directory in found.unread):
            gone[file.id if file.hash is None or file.hash in gone else file.hash] = file
    return gone


def hash_of(source: Source, data: bytes) -> bytes:
    """Return a hash of a file's content and of what ArchiveBox knows about it."""
    digest = hashlib.blake2b(repr(source.page).encode("utf-8", "replace"), digest_size=16)
    digest.update(source.kind.encode())
    if source.kind == "mbox":
        with source.path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    digest.update(data)
    return digest.digest()

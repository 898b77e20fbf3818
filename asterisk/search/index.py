"""`Index`: what the commands `asterisk index`, `search`, `similar`, `status` and `prune` do, for Python."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from platformdirs import user_data_path

from asterisk.encoder import AsteriskEncoder
from asterisk.errors import InputError
from asterisk.released import released_model
from asterisk.search.ranking import DEPTH, Mode, Ranked, best_passages, fuse, rank_by_vector, rank_by_words
from asterisk.search.store import MOST_NEIGHBOURS, Filter, Store
from asterisk.search.vectors import mean

if TYPE_CHECKING:
    from asterisk.search.indexing import Report

SNIPPET_TOKENS = 40
HIT = """
    select files.path, line, place, documents.title, words.headings, words.text, tags,
    coalesce(date, modified), url
    from passages join documents on documents.id = document join files on files.id = file
    join words on words.rowid = passages.id where passages.id = ?
"""


@dataclass(frozen=True)
class Hit:
    """A document that answers a query, with its best passage.

    Attributes:
        path: The file.
        line: Where the passage begins, in files that have lines.
        place: The page of a PDF, the message of an mbox; else empty.
        title: The document's title.
        headings: The headings above the passage, joined by " > ".
        text: The passage.
        score: 1 where a document is first in every ranking; the cosine where only vectors rank; of words
            alone, BM25.
        cosine: Of query and passage; None where the vectors did not find the document.
        tags: Of the document.
        date: Of the document or file, in seconds since 1970.
        url: Where a page came from, else empty.
    """

    path: Path
    line: int | None
    place: str
    title: str
    headings: str
    text: str
    score: float
    cosine: float | None
    tags: list[str]
    date: float
    url: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True)
class Status:
    """What an index holds."""

    path: Path
    bytes: int
    model: str
    roots: list[Path]
    files: int
    documents: int
    passages: int
    skipped: dict[Path, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self) | {
            "path": str(self.path),
            "roots": [str(root) for root in self.roots],
            "skipped": {str(path): reason for path, reason in self.skipped.items()},
        }


def default_path() -> Path:
    """Return where the index is: $ASTERISK_INDEX, or a file among the user's data."""
    return Path(os.environ.get("ASTERISK_INDEX") or user_data_path("asterisk") / "index.sqlite")


def depth(limit: int) -> int:
    """Return how many passages hold the best `limit` documents: some have several."""
    return min(max(DEPTH, 5 * limit), MOST_NEIGHBOURS)


def hit(store: Store, ranked: Ranked) -> Hit:
    """Look up what is shown of a document."""
    ((path, line, place, title, headings, text, tags, date, url),) = store.rows(HIT, (ranked.passage,))
    return Hit(
        Path(os.fsdecode(path)),
        line,
        place,
        title,
        headings,
        text,
        ranked.score,
        ranked.cosine,
        json.loads(tags),
        date,
        url,
    )


class Index:
    """An index of notes, pages and messages: one file, which several processes may read and write at once.

    Args:
        path: The file; by default the one of the command line.
        model: A model directory or Hub id; by default the released model. If it is named, `index` embeds anew what
            another model has embedded.
        threads: Threads to embed files with; 0 means all cores.

    Example:
        >>> from asterisk.search import Index
        >>> index = Index("notes.sqlite")
        >>> report = index.index("~/Notes")
        >>> for hit in index.search("how did we fix the boiler"):
        ...     print(hit.path, hit.line, hit.score)
    """

    def __init__(self, path: str | Path | None = None, model: str | None = None, threads: int = 0) -> None:
        self.path = Path(path).expanduser() if path else default_path()
        self.model, self.threads = model or released_model(), threads
        self.model_named = model is not None
        self.opened: Store | None = None

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self.opened:
            self.opened.close()
            self.opened = None

    @cached_property
    def encoder(self) -> AsteriskEncoder:
        """The model for many texts, loaded when it is first needed."""
        return AsteriskEncoder(self.model, threads=self.threads)

    @cached_property
    def query_encoder(self) -> AsteriskEncoder:
        """The model for one text: other threads would wait in a busy loop, while SQLite wants a core."""
        return AsteriskEncoder(self.model, threads=1)

    def store(self, writable: bool = False, need_model: bool = True, any_model: bool = False) -> Store:
        """Open the file, and check that its vectors are of this model.

        Raises:
            FileNotFoundError: If there is no index.
            ValueError: If it belongs to another model, or is damaged.
        """
        if self.opened and writable and not self.opened.writable:
            self.close()
        if not self.opened:
            self.opened = Store(self.path, writable, self.query_encoder.dim if writable and need_model else None)
        if need_model:
            if writable:
                self.opened.set_facts(fingerprint=self.query_encoder.fingerprint, model=self.model)
            if self.opened.fact("fingerprint") != self.query_encoder.fingerprint and not any_model:
                raise InputError(
                    f"{self.path}: made with another model ({self.opened.fact('model')}); name that with --model, "
                    f"or embed all of it anew with `asterisk index --model {self.model}`"
                )
        return self.opened

    def index(self, *roots: str | Path, progress: bool = False) -> Report:
        """Read what is new or changed below the roots, and forget what was deleted there.

        Args:
            roots: Directories or files, remembered for later; none means all that are remembered.
            progress: Whether to show rate and time left.

        Returns:
            What was done, and which files were left out.

        Raises:
            FileNotFoundError: If a root is not there.
            ValueError: If there is no root.
        """
        from asterisk.search.indexing import Indexer

        paths = [Path(root).expanduser().resolve() for root in roots]
        for path in paths:
            if not path.exists():
                raise FileNotFoundError(f"{path}: no such file or directory")
        store = self.store(writable=True, any_model=self.model_named)
        if not (paths or store.roots()):
            raise InputError("nothing to index: name a directory, as in `asterisk index ~/Notes`")
        indexer = Indexer(store, self.encoder)
        if store.fact("fingerprint") != self.query_encoder.fingerprint:
            indexer.change_model({"fingerprint": self.query_encoder.fingerprint, "model": self.model}, progress)
        return indexer.update(paths or store.roots(), progress)

    def search(
        self,
        query: str,
        limit: int = 10,
        mode: Mode = "hybrid",
        paths: tuple[str, ...] = (),
        tags: tuple[str, ...] = (),
        since: float | None = None,
    ) -> list[Hit]:
        """Find documents, the best first.

        Args:
            query: Words, or a question.
            limit: How many documents.
            mode: By meaning ("semantic"), by words, or both.
            paths: Only files whose path contains one of these.
            tags: Only documents with all of these.
            since: Only documents of this time or later, in seconds since 1970.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}: it must be 1 or more")
        if not query.strip():
            raise ValueError("the query is empty")
        store = self.store(need_model=mode != "words")
        chosen, passages = Filter(paths, tags, since), depth(limit)
        vector = None if mode == "words" else self.query_encoder.encode(query)
        by_words, by_vector = [], []
        with store.snapshot():
            if mode != "semantic":
                by_words = best_passages(rank_by_words(store, query, passages, chosen))
            if vector is not None:
                by_vector = best_passages(rank_by_vector(store, vector, passages, chosen))
            ranked = fuse(by_words, by_vector) if mode == "hybrid" else by_words or by_vector
            return [hit(store, found) for found in ranked[:limit]]

    def similar(self, file: str | Path, limit: int = 10) -> list[Hit]:
        """Find the documents nearest to one in the index, by the mean of its vectors.

        Raises:
            ValueError: If the file is not in the index.
        """
        path = Path(file).expanduser().resolve()
        store = self.store(need_model=False)
        with store.snapshot():
            rows = store.rows(
                """select document, vectors.vector from files join documents on file = files.id
                join passages on document = documents.id join vectors on vectors.id = passages.id
                where path = ?""",
                (os.fsencode(path),),
            )
            if not rows:
                raise InputError(f"{path}: not in the index; `asterisk index {path}` adds it")
            own = {document for document, _ in rows}
            middle = mean([vector for _, vector in rows])
            ranked = rank_by_vector(store, middle, depth(limit + len(rows)), Filter())
            others = [found for found in best_passages(ranked) if found.document not in own]
            return [hit(store, found) for found in others[:limit]]

    def status(self) -> Status:
        """Count what is in the index."""
        store = self.store(need_model=False)
        ((documents, passages),) = store.rows(
            "select (select count(*) from documents), (select count(*) from passages)"
        )
        known = store.known().values()
        skipped = {file.path: file.reason for file in known if file.reason}
        size = sum(
            file.stat().st_size
            for suffix in ("", "-wal")
            if (file := self.path.with_name(self.path.name + suffix)).exists()
        )
        return Status(
            self.path,
            size,
            store.fact("model") or "",
            store.roots(),
            len(known) - len(skipped),
            documents,
            passages,
            skipped,
        )

    def prune(self, *roots: str | Path) -> int:
        """Forget files that are gone, also with a whole root, and give back their space.

        Args:
            roots: Forget these directories or files, too, though they are there.

        Returns:
            How many files were forgotten, without those that had been left out.

        Raises:
            ValueError: If one of the roots was never indexed.
        """
        store = self.store(writable=True, need_model=False)
        named = [Path(root).expanduser().resolve() for root in roots]
        for root in named:
            if root not in store.roots():
                raise InputError(f"{root}: not a root of this index; `asterisk status` lists them")
        forgotten = [root for root in store.roots() if root in named or not root.exists()]
        for root in forgotten:
            store.remove_root(root)
        kept = store.roots()
        gone = [
            file
            for file in store.known().values()
            if not file.path.exists() or not any(file.path.is_relative_to(root) for root in kept)
        ]
        store.remove_files(gone)
        store.tidy()
        return sum(file.reason is None for file in gone)

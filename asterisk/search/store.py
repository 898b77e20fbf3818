"""The index: one SQLite file with the text in FTS5 and the vectors in sqlite-vec.

A file that has been read is written in one transaction, with its stamp; the parts of an mbox are written as they
come, and its stamp with the last. A kill leaves a whole index, and a file without a stamp is read again.

apsw brings its own SQLite: Python's is often built without extensions.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import numpy as np
import sqlite_vec

from asterisk.errors import InputError
from asterisk.search.documents import Document
from asterisk.search.passages import Passage, embedded_text
from asterisk.search.vectors import quantise

VERSION = 1
WAIT_MS = 60_000
MAPPED_BYTES = 1 << 32
MOST_NEIGHBOURS = 4096  # of sqlite-vec
REPLACED = 1024  # vectors replaced together
SCHEMA = """
create table facts(name text primary key, value text not null) without rowid;
create table roots(path blob primary key) without rowid;
create table files(
    id integer primary key,
    path blob not null unique,
    stamp text,     -- changes with the file; null: to be read again
    modified real,  -- seconds since 1970
    hash blob,      -- of its content
    reason text     -- why it was left out
);
create table documents(
    id integer primary key,
    file integer not null references files(id),
    attempt integer not null,        -- which reading of the file it comes from
    title text not null,
    named_by_file integer not null,  -- whether the title is the file's name
    tags text not null,              -- a JSON list
    date real,                       -- null: that of the file
    url text not null
);
create index documents_file on documents(file);
create table passages(
    id integer primary key,
    document integer not null references documents(id),
    line integer,
    place text not null,
    hash integer not null  -- of the text that was embedded
);
create index passages_document on passages(document);
create index passages_hash on passages(hash);
create virtual table words using fts5(title, headings, text, tokenize='porter unicode61 remove_diacritics 2');
"""
VECTORS = "create virtual table vectors using vec0(id integer primary key, vector int8[{dim}])"


@dataclass(frozen=True)
class State:
    """What is known of a file when it has been read or left out; a file without a stamp is read again."""

    stamp: str | None = None
    modified: float | None = None
    hash: bytes | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Known:
    """A file in the index."""

    id: int
    path: Path
    stamp: str | None
    hash: bytes | None
    reason: str | None


@dataclass(frozen=True)
class Entry:
    """A passage to write, with its vector in int8."""

    passage: Passage
    vector: bytes


@dataclass(frozen=True)
class Filter:
    """Which documents to search; a path must contain one of `paths`, and the document have all `tags`."""

    paths: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    since: float | None = None

    def conditions(self) -> tuple[str, list[Any]]:
        """Return SQL about `documents` and `files`, and the values in it."""
        conditions: list[str] = ["true"]
        values: list[Any] = []
        if self.paths:
            conditions.append("(" + " or ".join(["instr(files.path, ?)"] * len(self.paths)) + ")")
            values += [os.fsencode(path) for path in self.paths]
        for tag in self.tags:
            name = tag.lstrip("#").lower()
            conditions.append(
                "exists(select 1 from json_each(documents.tags) where value = ? or substr(value, 1, ?) = ?)"
            )
            values += [name, len(name) + 1, f"{name}/"]  # Obsidian's tags are nested
        if self.since is not None:
            conditions.append("coalesce(documents.date, files.modified) >= ?")
            values.append(self.since)
        return " and ".join(conditions), values


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors that a user can do something about into one line."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise InputError(f"{path}: not an index, or a damaged one; name another with --index") from error
    except apsw.FullError as error:
        raise InputError(f"{path}: the disk is full; free some space and run the same command again") from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError) as error:
        raise InputError(f"{path}: may only be read; choose another place with --index") from error
    except apsw.CantOpenError as error:
        raise InputError(f"{path}: cannot be opened; choose another place with --index") from error
    except apsw.IOError as error:
        raise InputError(f"{path}: cannot be read or written ({error})") from error
    except apsw.BusyError as error:
        raise InputError(f"{path}: another program has been writing to it for a minute; try again") from error


class Store:
    """An open index.

    Args:
        path: The file.
        writable: Whether to write.
        dim: Width of the vectors of an index that is made if it is not there; None makes none.

    Raises:
        FileNotFoundError: If it is not there and without `dim`.
        ValueError: If the file is no index, or one of another version, or cannot be opened.
    """

    def __init__(self, path: Path, writable: bool = False, dim: int | None = None) -> None:
        self.path, self.writable = path, writable
        if dim is None and not path.exists():
            raise FileNotFoundError(f"{path}: no such index; make one with `asterisk index DIRECTORY`")
        with plain_errors(path):
            if writable:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    path.touch(mode=0o600)  # it holds the text of private files
                self.connection = self.connect("rwc")
                self.create(dim)
            else:
                try:
                    self.connection = self.connect("ro")
                    self.connection.execute("select * from facts")
                except (apsw.CantOpenError, apsw.ReadOnlyError):
                    # Readers of a WAL write beside the file. Where they may not, nobody else writes either.
                    self.connection = self.connect("ro&immutable=1")
                except apsw.SQLError:
                    pass
        if (version := self.fact("version")) != str(VERSION):
            self.connection.close()
            if version is None:
                raise InputError(f"{path}: not an index; name another with --index")
            raise InputError(
                f"{path}: has version {version}, not {VERSION}; delete it and index again, "
                "or name another with --index"
            )

    def connect(self, mode: str) -> apsw.Connection:
        """Open the file and load sqlite-vec."""
        address = f"file:{quote(os.fsencode(self.path.absolute()))}?mode={mode}"
        writing = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        flags = writing if mode == "rwc" else apsw.SQLITE_OPEN_READONLY
        connection = apsw.Connection(address, flags=flags | apsw.SQLITE_OPEN_URI)
        connection.set_busy_timeout(WAIT_MS)
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)
        connection.execute(f"pragma mmap_size={MAPPED_BYTES}")
        return connection

    def create(self, dim: int | None) -> None:
        """Prepare for writing; make the tables of a new index."""
        self.connection.execute("pragma journal_mode=wal")
        self.connection.execute("pragma synchronous=normal")
        with self.transaction():
            if dim is not None and not self.connection.execute("select count(*) from sqlite_schema").get:
                self.connection.execute(SCHEMA + VECTORS.format(dim=dim))
                self.connection.execute("insert into facts values('version', ?)", (str(VERSION),))

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """Write all of it or nothing; another writer is waited for."""
        with plain_errors(self.path):
            self.connection.execute("begin immediate")
            try:
                yield self.connection
                self.connection.execute("commit")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("rollback")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See the index as it is now, whatever others write meanwhile."""
        with plain_errors(self.path):
            self.connection.execute("begin")
            try:
                yield
            finally:
                self.connection.execute("rollback")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a query."""
        with plain_errors(self.path):
            return self.connection.execute(sql, tuple(values)).fetchall()

    def fact(self, name: str) -> str | None:
        """Return what the index says of itself."""
        try:
            rows = self.rows("select value from facts where name = ?", (name,))
        except apsw.SQLError:  # no such table
            return None
        return rows[0][0] if rows else None

    def set_facts(self, **facts: str) -> None:
        """Write down facts that are not there yet."""
        with self.transaction() as connection:
            connection.executemany("insert or ignore into facts values(?, ?)", facts.items())

    # Files

    def add_root(self, root: Path) -> None:
        """Remember a directory or file, to be updated later without being named."""
        with self.transaction() as connection:
            connection.execute("insert or ignore into roots values(?)", (os.fsencode(root),))

    def roots(self) -> list[Path]:
        """Return the directories and files that were indexed by name."""
        return [Path(os.fsdecode(path)) for (path,) in self.rows("select path from roots order by path")]

    def known(self) -> dict[Path, Known]:
        """Return the files in the index."""
        rows = self.rows("select id, path, stamp, hash, reason from files")
        found = (Known(id, Path(os.fsdecode(path)), *rest) for id, path, *rest in rows)
        return {known.path: known for known in found}

    def set_state(self, path: Path, state: State) -> int:
        """Write down the state of a file, known or new; return its number. Runs in the caller's transaction."""
        sql = """
            insert into files(path, stamp, modified, hash, reason) values(?, ?, ?, ?, ?)
            on conflict(path) do update set
                stamp = excluded.stamp, modified = excluded.modified,
                hash = excluded.hash, reason = excluded.reason
            returning id
        """
        values = (os.fsencode(path), state.stamp, state.modified, state.hash, state.reason)
        return int(self.connection.execute(sql, values).get)

    def skip(self, path: Path, state: State) -> None:
        """Write down why a file is left out, and forget what it held."""
        with self.transaction():
            self.delete_documents("file = ?", (self.set_state(path, state),))

    def move(self, known: Known, path: Path, state: State) -> None:
        """Write down the new place or time of a file with the same content; its vectors stay."""
        name = os.fsencode(path.stem).decode("utf-8", "replace")
        with self.transaction() as connection:
            connection.execute(
                "update files set path = ?, stamp = ?, modified = ? where id = ?",
                (os.fsencode(path), state.stamp, state.modified, known.id),
            )
            connection.execute(
                """update words set title = ? where rowid in (
                    select passages.id from passages join documents on documents.id = document
                    where file = ? and named_by_file)""",
                (name, known.id),
            )
            connection.execute("update documents set title = ? where file = ? and named_by_file", (name, known.id))

    def remove_files(self, files: Iterable[Known]) -> None:
        """Forget files, each in a transaction of its own."""
        for known in files:
            with self.transaction() as connection:
                self.delete_documents("file = ?", (known.id,))
                connection.execute("delete from files where id = ?", (known.id,))

    def remove_root(self, root: Path) -> None:
        """Forget a root; its files are another matter."""
        with self.transaction() as connection:
            connection.execute("delete from roots where path = ?", (os.fsencode(root),))

    # Documents

    def write(
        self,
        path: Path,
        attempt: int,
        earlier: int,
        documents: list[tuple[Document, list[Entry]]],
        state: State | None,
    ) -> None:
        """Add documents of a file, in one transaction.

        If another process has finished the same file meanwhile, its documents stay and those of this attempt go.

        Args:
            path: The file.
            attempt: A number that the parts of one reading share.
            earlier: How many documents the earlier parts of it had.
            documents: The documents and their passages.
            state: The state of the file, with its last part; before that None.
        """
        with self.transaction() as connection:
            before = connection.execute(
                "select id, stamp, hash from files where path = ?", (os.fsencode(path),)
            ).fetchone()
            own = (before and before[0], attempt)
            count = connection.execute("select count(*) from documents where file = ? and attempt = ?", own).get
            if count != earlier or (state and before and before[1:] == (state.stamp, state.hash)):
                self.delete_documents("file = ? and attempt = ?", own)
                return
            begun = before[0] if before and earlier and not state else None
            file = begun or self.set_state(path, state or State())
            for document, entries in documents:
                self.insert_document(file, attempt, document, entries)
            if state:
                self.delete_documents("file = ? and attempt <> ?", (file, attempt))

    def insert_document(self, file: int, attempt: int, document: Document, entries: list[Entry]) -> None:
        """Add a document and its passages."""
        execute = self.connection.execute
        tags = json.dumps(document.tags, ensure_ascii=False)
        number = execute(
            """insert into documents(file, attempt, title, named_by_file, tags, date, url)
            values(?, ?, ?, ?, ?, ?, ?) returning id""",
            (file, attempt, document.title, document.named_by_file, tags, document.date, document.url),
        ).get
        for entry in entries:
            passage = entry.passage
            row = execute(
                "insert into passages(document, line, place, hash) values(?, ?, ?, ?) returning id",
                (number, passage.line, passage.place, passage.hash),
            ).get
            execute("insert into vectors(id, vector) values(?, vec_int8(?))", (row, entry.vector))
            execute(
                "insert into words(rowid, title, headings, text) values(?, ?, ?, ?)",
                (row, document.title, passage.headings, passage.text),
            )

    def delete_documents(self, condition: str, values: tuple[Any, ...]) -> None:
        """Delete documents and their passages. Runs in the caller's transaction."""
        execute = self.connection.execute
        chosen = f"select id from documents where {condition}"
        passages = execute(f"select id from passages where document in ({chosen})", values).fetchall()
        for table, key in (("vectors", "id"), ("words", "rowid"), ("passages", "id")):
            self.connection.executemany(f"delete from {table} where {key} = ?", passages)
        execute(f"delete from documents where {condition}", values)

    def vector_of(self, hash: int) -> bytes | None:
        """Return the vector of a text that was embedded before."""
        rows = self.rows(
            "select vector from vectors where id = (select id from passages where hash = ? limit 1)", (hash,)
        )
        return rows[0][0] if rows else None

    def replace_vectors(
        self, embed: Callable[[list[str]], Iterable[np.ndarray]], dim: int, facts: dict[str, str]
    ) -> None:
        """Give every passage a vector of another model, and write down the facts of that: all of it or nothing.

        Args:
            embed: Returns unit vectors of texts, in their order.
            dim: Width of the vectors.
            facts: New values of facts.
        """
        with self.transaction() as connection:
            connection.execute(f"drop table vectors; {VECTORS.format(dim=dim)}")
            last = -1
            sql = "select rowid, title, headings, text from words where rowid > ? order by rowid limit ?"
            while rows := self.rows(sql, (last, REPLACED)):
                vectors = embed([embedded_text(*texts) for _, *texts in rows])
                connection.executemany(
                    "insert into vectors(id, vector) values(?, vec_int8(?))",
                    [(row[0], quantise(vector).tobytes()) for row, vector in zip(rows, vectors, strict=True)],
                )
                last = rows[-1][0]
            connection.executemany("insert or replace into facts values(?, ?)", facts.items())

    def tidy(self) -> None:
        """Give back what deleted passages took: sqlite-vec does not by itself."""
        ((declaration,),) = self.rows("select sql from sqlite_schema where name = 'vectors'")
        with self.transaction() as connection:
            connection.execute("create temp table kept as select id, vector from vectors order by id")
            connection.execute(f"drop table vectors; {declaration}")
            connection.execute("insert into vectors(id, vector) select id, vec_int8(vector) from kept")
            connection.execute("drop table kept")
            connection.execute("insert into words(words) values('optimize')")
        with plain_errors(self.path):
            self.connection.execute("vacuum")
            self.connection.execute("pragma wal_checkpoint(truncate)")


def new_attempt() -> int:
    """Return a number that no other reading of a file has."""
    return secrets.randbits(62)


def entry(passage: Passage, vector: np.ndarray | bytes) -> Entry:
    """Make the row of a passage from a unit vector, or from one that is stored already."""
    return Entry(passage, vector if isinstance(vector, bytes) else quantise(vector).tobytes())

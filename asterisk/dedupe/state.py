"""What is known of the items seen so far: an SQLite file, or the same in memory for one run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from asterisk.dedupe.feeds import Item
from asterisk.errors import InputError

MemberRow = tuple[int, int, int, str, str, str, float]
VERSION = "dedupe 1"
WAIT_SECONDS = 5.0
SCHEMA = """
create table facts(name text primary key, value text not null) without rowid;
create table items(
    id integer primary key,
    address text not null,
    content blob not null,    -- a hash of title and text
    title text not null,
    url text not null,
    source text not null,
    published real not null,  -- seconds since 1970
    twin integer,             -- an item with the same content; then there is no vector
    text text not null,       -- the beginning of title and text, what was embedded
    vector blob,              -- int8
    story integer             -- number of the group; null until it has been reported
);
create index items_address on items(address) where address != '';
create index items_content on items(content);
create index items_published on items(published);
create index items_story on items(story);
"""


class State:
    """The items seen so far.

    One process works with a file at a time; each block of items is one transaction, so that a kill loses no more
    than the last block.

    Args:
        path: The file, made if it is not there; None keeps all in memory.
        model: Fingerprint of the model that the vectors are from.

    Raises:
        InputError: If the file is none of these, or belongs to another model, or another process has it.
    """

    def __init__(self, path: Path | None, model: str) -> None:
        self.path = path
        if path and not path.exists():
            path.touch(mode=0o600)  # it holds the text of private feeds
        with self.plain_errors():
            self.connection = sqlite3.connect(path or ":memory:", timeout=WAIT_SECONDS, isolation_level=None)
            self.connection.execute("pragma locking_mode=exclusive")
            with self.transaction():
                if not self.rows("select 1 from sqlite_master"):
                    for statement in SCHEMA.split(";\n"):
                        self.connection.execute(statement)
                    own = (("version", VERSION), ("model", model))
                    self.connection.executemany("insert into facts values(?, ?)", own)
            facts = {}
            if self.rows("select 1 from sqlite_master where name = 'facts'"):
                facts = dict(self.rows("select name, value from facts"))
        if facts.get("version") != VERSION:
            raise InputError(
                f"{path}: not the state of `asterisk dedupe`, or of another version; name another file"
            )
        if facts.get("model") != model:
            raise InputError(f"{path}: made with another model; name that with --model, or delete the file")

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Turn SQLite's errors that a user can do something about into one line."""
        try:
            yield
        except sqlite3.OperationalError as error:
            hint = "another process is using it; try again" if "locked" in str(error) else str(error)
            raise InputError(f"{self.path}: {hint}") from error
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.path}: damaged, or no state of `asterisk dedupe` ({error})") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all of it or nothing."""
        with self.plain_errors():
            self.begin()
            try:
                yield
                self.connection.execute("commit")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("rollback")
                raise

    def begin(self) -> None:
        """Begin a transaction; what another has not kept is gone."""
        if self.connection.in_transaction:
            self.connection.execute("rollback")
        self.connection.execute("begin immediate")

    def rows(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """Run a query."""
        with self.plain_errors():
            return self.connection.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def knows(self, item: Item) -> bool:
        """Say whether an item was seen: its title at its address, or without an address title and text."""
        if address := item.address:
            same = "select 1 from items where address = ? and address != '' and title = ?"
            return bool(self.rows(same, (address, item.label)))
        same = "select 1 from items where content = ? and address = '' and source = ?"
        return bool(self.rows(same, (item.content, item.source)))

    def twin(self, item: Item, published: float, window: float) -> int | None:
        """Return the number of the item with the same content within the window, if there is one."""
        found = self.rows(
            """select id from items where content = ? and twin is null and abs(published - ?) <= ?
            order by id limit 1""",
            (item.content, published, window),
        )
        return found[0][0] if found else None

    def add(self, item: Item, published: float, twin: int | None) -> int:
        """Add an item, still without vector and group; return its number."""
        values = (item.address, item.content, item.label, item.url, item.source, published, twin, item.beginning)
        columns = "address, content, title, url, source, published, twin, text"
        sql = f"insert into items({columns}) values(?, ?, ?, ?, ?, ?, ?, ?)"
        return int(self.connection.execute(sql, values).lastrowid or 0)

    def set_vectors(self, numbers: Iterable[int], vectors: np.ndarray) -> None:
        """Write down the vectors of items, `[n, dim]` int8."""
        rows = ((vector.tobytes(), number) for number, vector in zip(numbers, vectors, strict=True))
        self.connection.executemany("update items set vector = ? where id = ?", rows)

    def candidates(self, window: float) -> list[tuple[int, int | None, float, bytes, str]]:
        """Return number, story, time, vector and text of unreported items, and of those that they may belong to.

        They are in the order of time, whatever the order in which they came.
        """
        return self.rows(
            """with near as (select id, story from items where published between
                (select min(published) - :window from items where story is null) and
                (select max(published) + :window from items where story is null))
            select id, story, published, vector, text from items where twin is null and
                (id in (select id from near) or story in (select story from near)
                or id in (select twin from items where story is null))
                order by published, content, address, id""",
            {"window": window},
        )

    def unreported(self) -> list[tuple[int, int]]:
        """Return the numbers of the items that were not reported, each with the one that has its vector."""
        return self.rows("select id, coalesce(twin, id) from items where story is null")

    def last_story(self) -> int:
        """Return the highest number of a story."""
        return int(self.rows("select coalesce(max(story), 0) from items")[0][0])

    def assign(self, stories: dict[int, int]) -> list[tuple[int, int, int, str, str, str, float]]:
        """Write down the stories of items, for good once `keep` is called; return all members of these stories.

        Returns:
            Story, number, number of the item that has the vector, title, address, source and time of each.
        """
        with self.plain_errors():
            self.begin()
            rows = ((story, number) for number, story in stories.items())
            self.connection.executemany("update items set story = ? where id = ?", rows)
        return self.rows(
            """select story, id, coalesce(twin, id), title, url, source, published from items
            where story in (select value from json_each(?)) order by story, published, content, address, id""",
            (json.dumps(list(set(stories.values()))),),
        )

    def keep(self) -> None:
        """Keep what `assign` has written."""
        with self.plain_errors():
            self.connection.execute("commit")

    def titles(self, numbers: Iterable[int]) -> dict[int, tuple[str, int]]:
        """Return the titles and stories of items."""
        sql = "select title, story from items where id = ?"
        return {number: self.rows(sql, (number,))[0] for number in set(numbers)}

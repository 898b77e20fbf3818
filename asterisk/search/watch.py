"""Wait for changes below the indexed directories."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import click
from watchfiles import Change, watch

from asterisk.search.index import Index

NICENESS = 10
# It tells of Ctrl-C, which is how a watch ends.
logging.getLogger("watchfiles").setLevel(logging.ERROR)


def changed_roots(index: Index) -> Iterator[list[Path]]:
    """Yield the roots below which files have changed, until Ctrl-C; other programs go first."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    roots = [root for root in index.store(need_model=False).roots() if root.exists()]
    click.echo(f"watching {len(roots)} places; Ctrl-C ends it")
    own = os.fspath(index.path.resolve())

    def wanted(_change: Change, path: str) -> bool:
        return not path.startswith(own)  # with it its -wal and -shm

    due = roots  # what changed before the watch began
    for changes in watch(*roots, watch_filter=wanted, yield_on_timeout=True, raise_interrupt=False):
        paths = [Path(path) for _, path in changes]
        due += [root for root in roots if any(path.is_relative_to(root) for path in paths)]
        if due:
            yield list(dict.fromkeys(due))
        due = []

"""Wait for changes below the indexed directories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from watchfiles import Change, watch

from asterisk.search.index import Index

NICENESS = 10


def changed_roots(index: Index) -> Iterator[list[Path]]:
    """Yield the roots below which files have changed, until Ctrl-C; other programs go first."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    roots = [root for root in index.store(need_model=False).roots() if root.exists()]
    own = os.fspath(index.path.resolve())

    def wanted(_change: Change, path: str) -> bool:
        return not path.startswith(own)  # with it its -wal and -shm

    for changes in watch(*roots, watch_filter=wanted, raise_interrupt=False):
        paths = [Path(path) for _, path in changes]
        yield [root for root in roots if any(path.is_relative_to(root) for path in paths)]

"""The text pairs of `data/pairs`: a `datasets` directory with the columns `summary` and `article`."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from numpy.typing import NDArray

from asterisk.errors import InputError
from asterisk.files import fingerprint, read_json
from asterisk.hub import public_name

COLUMNS = ("summary", "article")
FEATURES = datasets.Features({column: datasets.Value("string") for column in COLUMNS})
STATE = "prepare_state.json"


def load_pairs(directory: Path) -> tuple[Dataset, str]:
    """Open `data/pairs` memory-mapped; return it with the fingerprint of its text.

    Raises:
        InputError: If the directory is missing, damaged, or has other columns.
    """
    try:
        pairs = datasets.load_from_disk(str(directory))
        missing = [column for column in COLUMNS if column not in pairs.column_names]
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{directory}: no text pairs here; run scripts/prepare_data.py") from error
    if missing:
        raise InputError(f"{directory}: column {missing[0]!r} is missing; run scripts/prepare_data.py")
    return pairs, fingerprint(*sorted(directory.glob("data-*.arrow")))


def pairs_provenance(directory: Path) -> dict[str, Any]:
    """Return where the pairs came from and how many were read, kept and dropped; empty if nobody noted it."""
    state = read_json(directory / STATE)
    if not state:
        return {}
    return {"dataset": [public_name(name) for name in state["arguments"]["dataset"]], "counts": state["counts"]}


@dataclass
class PairTexts:
    """Every text of the pairs, a thousand rows in memory at a time; can be iterated over repeatedly."""

    pairs: Dataset

    def __iter__(self) -> Iterator[str]:
        for batch in self.pairs.iter(1000):
            for column in COLUMNS:
                yield from (text for text in batch[column] if text is not None)


def split_rows(rows: int, val_split: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row numbers of the training part and of the held-out part, both sorted.

    Raises:
        InputError: If there is nothing to split.
    """
    if rows < 2:
        raise InputError(f"{rows} pair cannot be split into a training and a held-out part; prepare more of them")
    order = np.random.default_rng(seed).permutation(rows)
    held_out = min(max(1, round(rows * val_split)), rows - 1)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def write_pairs(pairs: Iterable[tuple[str, str]], directory: Path) -> None:
    """Stream pairs into the layout of `Dataset.save_to_disk`.

    Saving a written dataset would map all of it into memory. So the library saves one row, under the
    fingerprint of all, and the Arrow file with all rows takes the place of that row's.
    """
    digest = hashlib.blake2b(digest_size=8)
    rows = directory / "rows.arrow"
    with ArrowWriter(features=FEATURES, path=str(rows)) as writer:
        for summary, article in pairs:
            digest.update(f"{summary}\0{article}\0".encode())
            writer.write({"summary": summary, "article": article or None})
        writer.finalize()
    datasets.disable_progress_bars()
    layout = datasets.Dataset.from_dict({column: [""] for column in COLUMNS}, features=FEATURES)
    layout.select_columns(list(COLUMNS), new_fingerprint=digest.hexdigest()).save_to_disk(str(directory))
    rows.replace(directory / "data-00000-of-00001.arrow")

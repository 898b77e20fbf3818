"""Batches of tokens from memory maps.

Tokenised once, a column lies end to end in a file, and a batch is gathered by array operations alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from asterisk.data.pairs import COLUMNS
from asterisk.files import atomic_path

if TYPE_CHECKING:
    from datasets import Dataset
    from tokenizers import Tokenizer


@dataclass
class TokenColumn:
    """The tokens of one column, end to end, with the place where each row's begin.

    Attributes:
        ids: Token ids of all rows, `[tokens]` int32, memory-mapped.
        offsets: Row `i` is `ids[offsets[i]:offsets[i + 1]]`, `[rows + 1]` int64. A missing text has no token.
    """

    ids: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens in each row, `[rows]`."""
        return np.diff(self.offsets)

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of tokens in each of `rows`, `[len(rows)]`."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def batch(self, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Gather `input_ids` and `attention_mask` of `rows`, int64 `[len(rows), width]`, padded with 0."""
        places = np.arange(width)
        mask = places < self.lengths_of(rows)[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = self.ids[(self.offsets[rows][:, None] + places)[mask]]
        return ids, mask.astype(np.int64)


def tokenize_texts(texts: list[str], tokenizer: Tokenizer, max_length: int) -> TokenColumn:
    """Tokenise a few texts, cut at `max_length` tokens, into memory."""
    backend = type(tokenizer).from_str(tokenizer.to_str())
    backend.no_padding()
    backend.enable_truncation(max_length)
    ids = [np.array(encoding.ids, dtype=np.int32) for encoding in backend.encode_batch_fast(texts)]
    return TokenColumn(np.concatenate(ids), np.cumsum([0, *map(len, ids)]))


def tokenize_pairs(
    pairs: Dataset, tokenizer: Tokenizer, max_length: int, cache: Path, progress: bool = True
) -> dict[str, TokenColumn]:
    """Tokenise both columns once, in parallel threads, into memory-mapped files under `cache`.

    Args:
        pairs: The text pairs.
        tokenizer: Backend tokenizer.
        max_length: Texts are cut at so many tokens, the appended special token included.
        cache: Directory of its own for this data, tokenizer and length.
        progress: Whether to show a progress bar.
    """
    backend = type(tokenizer).from_str(tokenizer.to_str())
    backend.no_padding()
    backend.enable_truncation(max_length)
    columns = {}
    for column in COLUMNS:
        ids_path, offsets_path = cache / f"{column}_ids.bin", cache / f"{column}_offsets.npy"
        if not (offsets_path.exists() and ids_path.stat().st_size == 4 * np.load(offsets_path)[-1]):
            lengths = [np.zeros(1, dtype=np.int64)]
            with (
                atomic_path(ids_path) as temporary,
                temporary.open("wb") as stream,
                tqdm(
                    total=len(pairs), desc=f"tokenising {column}", unit=" rows", disable=not progress
                ) as progress_bar,
            ):
                for batch in pairs.select_columns(column).iter(4096):
                    texts = batch[column]
                    encodings = iter(backend.encode_batch_fast([text for text in texts if text is not None]))
                    rows = [next(encodings).ids if text is not None else [] for text in texts]
                    np.fromiter((i for row in rows for i in row), dtype=np.int32).tofile(stream)
                    lengths.append(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)))
                    progress_bar.update(len(rows))
            with atomic_path(offsets_path) as temporary, temporary.open("wb") as stream:
                np.save(stream, np.concatenate(lengths).cumsum())
        offsets = np.load(offsets_path)
        ids = np.memmap(ids_path, dtype=np.int32, mode="r") if offsets[-1] else np.zeros(0, dtype=np.int32)
        columns[column] = TokenColumn(ids, offsets)
    return columns


def length_groups(lengths: np.ndarray, group_cost: int) -> list[np.ndarray]:
    """Split texts into groups of like length, each to be padded to its own longest text only.

    Args:
        lengths: Number of tokens of each text, `[texts]`; texts without tokens are left out.
        group_cost: What one group more costs, in tokens; a group is split while that saves more padding.

    Returns:
        The places of the texts of each group, the shortest first.
    """
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    if len(order) < 2:
        return [order] * len(order)
    ascending = lengths[order]
    saved = np.arange(1, len(order)) * (ascending[-1] - ascending[:-1])
    if saved.max() <= group_cost:
        return [order]
    parts = np.split(order, [saved.argmax() + 1])
    return [part[group] for part in parts for group in length_groups(lengths[part], group_cost)]


# Both sides of a group are multiples of so many: for every new shape oneDNN compiles its kernels anew.
MULTIPLE = 8


def collate(
    columns: Sequence[TokenColumn], rows: np.ndarray, group_cost: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Gather the texts of `rows` from every column in groups of like length (see `length_groups`).

    Returns:
        `input_ids`, `attention_mask` (both `[texts, tokens]`, multiples of `MULTIPLE`) and places of each group. A
        place counts through the rows of the first column, then through those of the second; what is beyond the
        places is padding.
    """
    lengths = np.concatenate([column.lengths_of(rows) for column in columns])
    groups = []
    for places in length_groups(lengths, group_cost):
        width, column_of = -(-lengths[places].max() // MULTIPLE) * MULTIPLE, places // len(rows)
        parts = [column.batch(rows[places[column_of == i] % len(rows)], width) for i, column in enumerate(columns)]
        padding = ((0, -len(places) % MULTIPLE), (0, 0))
        ids, mask = (np.pad(np.concatenate(arrays), padding) for arrays in zip(*parts, strict=True))
        groups.append((ids, mask, places[np.argsort(column_of, kind="stable")]))
    return groups


def length_bucketed_batches(
    rows: np.ndarray, lengths: np.ndarray, batch_size: int, seed: int | None
) -> list[np.ndarray]:
    """Cut `rows` into batches of texts of like length, which need little padding.

    Rows are shuffled, sorted by length within blocks of 64 batches, cut, and the batches shuffled again.

    Args:
        rows: Row numbers, `[n]`.
        lengths: Length of each of `rows`, `[n]`.
        batch_size: Rows in a batch; the last batch of the result may be shorter.
        seed: Seed of the shuffle; None sorts by length and shuffles nothing.
    """
    if seed is None:
        ordered = rows[np.argsort(lengths, kind="stable")]
        return [ordered[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    block = 64 * batch_size
    blocks = [order[i : i + block] for i in range(0, len(order), block)]
    ordered = rows[np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in blocks])]
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]

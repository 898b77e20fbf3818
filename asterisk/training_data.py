"""What distillation reads: text pairs, teacher vectors, tokens, and the order in which batches come.

Everything is memory-mapped, and a batch is gathered by array operations alone.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from asterisk.console import InputError, atomic_path, fingerprint, read_json
from asterisk.hub import model_directory, public_name
from asterisk.tokenization import first_line

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

COLUMNS = ("summary", "article")
TEACHER_FILES = {"summary": "teacher_summaries.npy", "article": "teacher_articles.npy"}


def load_pairs(directory: Path) -> tuple[Dataset, str]:
    """Open `data/pairs` memory-mapped; return it with the fingerprint of its text.

    Raises:
        InputError: If the directory is missing, damaged, or has other columns.
    """
    from datasets import load_from_disk

    try:
        pairs = load_from_disk(str(directory))
        missing = [column for column in COLUMNS if column not in pairs.column_names]
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{directory}: no text pairs here; run scripts/prepare_data.py") from error
    if missing:
        raise InputError(f"{directory}: column {missing[0]!r} is missing; run scripts/prepare_data.py")
    return pairs, fingerprint(*sorted(directory.glob("data-*.arrow")))


def describe_pairs(directory: Path) -> dict:
    """Return where the pairs came from and how many were read, kept and dropped; empty if nobody noted it."""
    state = read_json(directory / "prepare_state.json")
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


def load_teacher_vectors(directory: Path, data_fingerprint: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """Open the teacher's vectors of summaries and articles, `[rows, teacher_dim]` float16, and their meta.

    Raises:
        InputError: If they are missing, unfinished, or belong to other pairs.
    """
    meta = read_json(directory / "teacher_meta.json")
    if not meta:
        raise InputError(
            f"{directory}: no finished teacher vectors here; run scripts/precompute_teacher.py (again)"
        )
    if meta["dataset_fingerprint"] != data_fingerprint:
        raise InputError(
            f"{directory}: these teacher vectors belong to other text pairs ({meta['dataset_fingerprint']}, "
            f"not {data_fingerprint}); run scripts/precompute_teacher.py again"
        )
    vectors = []
    for name in TEACHER_FILES.values():
        try:
            vectors.append(np.load(directory / name, mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{directory / name}: cannot be read ({error}); run scripts/precompute_teacher.py again"
            ) from error
        if vectors[-1].shape != (meta["rows"], meta["dim"]):
            raise InputError(
                f"{directory / name}: shape {vectors[-1].shape}, wanted {(meta['rows'], meta['dim'])}; "
                "run scripts/precompute_teacher.py again"
            )
    return vectors[0], vectors[1], meta


def load_teacher_model(name: str, device: str | None = None) -> tuple[SentenceTransformer, dict]:
    """Load the teacher, its weights from safetensors only, from a directory or the Hub.

    Returns:
        The model, and what identifies it: its name, its Hub revision (None for a directory) and the
        fingerprint of its weights.

    Raises:
        InputError: If it cannot be found or is not a SentenceTransformer.
    """
    from sentence_transformers import SentenceTransformer

    directory = model_directory(name, ("*.json", "*.txt", "*.model", "*.safetensors"))
    try:
        model = SentenceTransformer(
            str(directory), device=device, local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: not a SentenceTransformer that loads ({first_line(error)})") from error
    return model, {
        "teacher": name,
        "revision": directory.name if "snapshots" in directory.parts else None,
        "teacher_fingerprint": fingerprint(*sorted(directory.rglob("*.safetensors"))),
    }


def encode_in_token_batches(model: SentenceTransformer, texts: list[str], batch_tokens: int) -> np.ndarray:
    """Embed texts, sorted by length, in batches of about `batch_tokens` tokens, padding included.

    Batches of a fixed number of texts are too small to be efficient where texts are short, and overflow the caches
    where they are long.

    Args:
        model: Any SentenceTransformer.
        texts: The texts, `[texts]`.
        batch_tokens: Tokens in a batch; a longer text is a batch of its own.

    Returns:
        L2-normalised vectors, `[texts, dim]` float32, in the order of the texts.
    """
    tokens = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(texts))
    order = np.argsort(lengths, kind="stable")
    vectors = np.zeros((len(texts), model.get_embedding_dimension()), dtype=np.float32)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= batch_tokens:
            stop += 1
        batch = order[start:stop]
        vectors[batch] = model.encode(
            [texts[i] for i in batch], batch_size=len(batch), normalize_embeddings=True, show_progress_bar=False
        )
        start = stop
    return vectors


def has_fast_bf16(device_type: str) -> bool:
    """Say whether the device multiplies bfloat16 matrices in hardware; elsewhere emulation makes them slow."""
    import torch

    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def split_rows(rows: int, val_split: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers of the training part and of the held-out part, both sorted.

    Raises:
        InputError: If there is nothing to split.
    """
    if rows < 2:
        raise InputError(f"{rows} pair cannot be split into a training and a held-out part; prepare more of them")
    order = np.random.default_rng(seed).permutation(rows)
    held_out = min(max(1, round(rows * val_split)), rows - 1)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


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


def release_pages(*arrays: np.ndarray) -> None:
    """Let go of the pages of memory-mapped arrays that were read so far; the system keeps what it has room for.

    Otherwise a process that reads rows here and there comes to hold the whole file in its resident memory.
    """
    for array in arrays:
        pages = getattr(array, "_mmap", None)
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)


def read_rows(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copy `rows` of a memory-mapped matrix, letting go of its pages after every few: a row may map megabytes."""
    result = np.empty((len(rows), matrix.shape[1]), dtype=matrix.dtype)
    for start in range(0, len(rows), 16):
        result[start : start + 16] = matrix[rows[start : start + 16]]
        release_pages(matrix)
    return result


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


def collate(
    columns: Sequence[TokenColumn], rows: np.ndarray, group_cost: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Gather the texts of `rows` from every column in groups of like length (see `length_groups`).

    Returns:
        `input_ids`, `attention_mask` (both `[texts, tokens]`) and places (`[texts]`) of each group. A place counts
        through the rows of the first column, then through those of the second.
    """
    lengths = np.concatenate([column.lengths_of(rows) for column in columns])
    groups = []
    for places in length_groups(lengths, group_cost):
        width, column_of = lengths[places].max(), places // len(rows)
        parts = [column.batch(rows[places[column_of == i] % len(rows)], width) for i, column in enumerate(columns)]
        ids, mask = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
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

"""What distillation reads: text pairs, teacher vectors, tokens, and the order in which batches come.

Everything is memory-mapped, and a batch is gathered by array operations alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from asterisk.console import InputError, atomic_path, fingerprint, read_json
from asterisk.hub import model_directory, public_name
from asterisk.tokenization import first_line, token_texts

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

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
    return pairs, fingerprint(*sorted(directory.glob("*.arrow")))


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


def teacher_token_vectors(tokenizer: PreTrainedTokenizerFast, teacher: str, path: Path, device: str) -> np.ndarray:
    """Embed each vocabulary entry with the teacher, `[vocab_size, teacher_dim]` float16, kept in `path`."""
    if not path.exists():
        model, _ = load_teacher_model(teacher, device)
        texts = token_texts(tokenizer)
        batch = 4096
        parts = [
            model.encode(texts[i : i + batch], batch_size=256, normalize_embeddings=True, show_progress_bar=False)
            for i in tqdm(range(0, len(texts), batch), desc="vocabulary through the teacher", unit_scale=batch)
        ]
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.concatenate(parts).astype(np.float16))
    return np.load(path)


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

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gather `input_ids` and `attention_mask` of `rows`, int64 `[len(rows), longest]`, padded with 0."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        places = np.arange(max(1, lengths.max()))
        mask = places < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = self.ids[(starts[:, None] + places)[mask]]
        return ids, mask.astype(np.int64)


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
    order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in blocks])
    batches = [rows[order[i : i + batch_size]] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def fit_pca(vectors: list[np.ndarray], rows: np.ndarray, dim: int) -> np.ndarray:
    """Fit the map from the teacher's space to the student's, `[teacher_dim, dim]` float32.

    Its orthonormal columns are the leading eigenvectors of the second-moment matrix (not centred: a shift
    would change the cosines), largest first, so that the first k dimensions of a mapped vector are its best k.

    Args:
        vectors: Teacher matrices, each `[rows, teacher_dim]`, read in blocks.
        rows: Row numbers to fit on.
        dim: Size of the student's embedding, at most `teacher_dim`.

    Raises:
        InputError: If the teacher has fewer dimensions than the student.
    """
    teacher_dim = vectors[0].shape[1]
    if teacher_dim < dim:
        raise InputError(
            f"the teacher has {teacher_dim} dimensions, the student {dim}: choose a smaller --projection_dim"
        )
    moment = np.zeros((teacher_dim, teacher_dim))
    for matrix in vectors:
        for start in range(0, len(rows), 8192):
            block = matrix[rows[start : start + 8192]].astype(np.float32)
            moment += block.T @ block
    basis = np.linalg.eigh(moment)[1][:, ::-1][:, :dim]
    # An eigenvector's sign is arbitrary; fixing it makes the map a function of the data alone.
    return (basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(dim)])).astype(np.float32)

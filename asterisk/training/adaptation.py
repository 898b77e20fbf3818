"""The rows that an adaptation trains on: the archive's with the teacher's vectors, others with the model's own."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from asterisk import AsteriskEncoder
from asterisk.data.pairs import load_pairs, split_rows, write_pairs
from asterisk.data.sources import Selection, Tally, kept_pairs
from asterisk.data.teacher_vectors import TEACHER_FILES, load_teacher_vectors
from asterisk.errors import InputError
from asterisk.files import atomic_directory, atomic_path, read_json, write_json
from asterisk.training.pca import load_pca

ROWS = "rows.json"  # beside pairs: how many are to train on, to rehearse and held out
FP32_FILE, WEIGHTS_FILE = "onnx/model.onnx", "model.safetensors"
Vectors = NDArray[np.float16]


def write_archive(parts: tuple[list[tuple[str, str]], ...], counts: dict[str, Any], directory: Path) -> None:
    """Write rows to train on and rows held out, the latter last, as pairs for the teacher."""
    training, held_out = parts
    with atomic_directory(directory) as temporary:
        write_pairs([*training, *held_out], temporary)
        write_json(temporary / ROWS, counts | {"training": len(training), "held_out": len(held_out)})


def rehearse(model: Path, rows: int, teacher_dim: int, seed: int) -> tuple[list[tuple[str, str]], list[Vectors]]:
    """Draw documentation of the installed packages, with what the model before adaptation makes of it.

    Returns:
        Pairs of texts, and two matrices `[rows, teacher_dim]`: the model's vectors in the teacher's space, whence
        the map of training brings them back as they were.
    """
    pairs = list(kept_pairs(Selection(["docstrings"], limit=rows, seed=seed), Tally())) if rows else []
    encoder, back = AsteriskEncoder(str(model), FP32_FILE), load_pca(model, teacher_dim).T
    vectors = [
        (encoder.encode(texts, show_progress_bar=True) @ back).astype(np.float16)
        for texts in zip(*pairs, strict=True)
    ]
    return pairs, vectors


def lay_out(archive: Path, teacher: Path, model: Path, share: float, seed: int, directory: Path) -> float:
    """Write `directory/pairs` and `directory/targets`, on which `train_accelerate.py` trains as on any other.

    Training draws its held-out rows by their numbers: the archive's held-out rows are put in just these places.

    Args:
        archive: What `write_archive` wrote.
        teacher: The teacher's vectors of it.
        model: The model to adapt.
        share: Rows to rehearse for each row of the archive.
        seed: That of training.
        directory: Where to write.

    Returns:
        The share of rows that training has to hold out.

    Raises:
        InputError: If the model learned from another teacher.
    """
    pairs, fingerprint = load_pairs(archive)
    *vectors, meta = load_teacher_vectors(teacher, fingerprint)
    before: dict[str, Any] = read_json(model / "training_state.json").get("teacher", {})
    if before.get("teacher_fingerprint", meta["teacher_fingerprint"]) != meta["teacher_fingerprint"]:
        raise InputError(f"{model}: its teacher was {before['teacher']}; adapt it with the same --teacher_model")
    counts = read_json(archive / ROWS)
    others, other_vectors = rehearse(model, round(share * counts["training"]), meta["dim"], seed)
    total = len(pairs) + len(others)
    val_split = counts["held_out"] / total
    places, held_out = split_rows(total, val_split, seed)
    # Rows of the archive to train on, those to rehearse, those held out: all in the order of their places.
    order = np.empty(total, dtype=np.int64)
    order[places] = np.random.default_rng(seed).permutation(np.r_[: counts["training"], len(pairs) : total])
    order[held_out] = np.arange(counts["training"], len(pairs))
    rows = [(row["summary"], row["article"] or "") for row in pairs] + others
    with atomic_directory(directory / "pairs") as temporary:
        write_pairs((rows[i] for i in order), temporary)
    with atomic_directory(directory / "targets") as temporary:
        for i, name in enumerate(TEACHER_FILES.values()):
            parts = [vectors[i], *([other_vectors[i]] if others else [])]
            np.save(temporary / name, np.concatenate(parts)[order])
        fingerprint = load_pairs(directory / "pairs")[1]
        write_json(temporary / "teacher_meta.json", meta | {"dataset_fingerprint": fingerprint, "rows": total})
    return val_split


def average_weights(before: Path, after: Path, share: float) -> None:
    """Replace the weights of `after` by their average with those of `before`; `share` is the weight of `after`.

    So the model keeps more of what it knew before (Wortsman et al. 2022, arXiv:2109.01903).
    """
    old, new = (load_file(model / WEIGHTS_FILE) for model in (before, after))
    averaged = {
        name: (share * new[name].astype(np.float32) + (1 - share) * old[name].astype(np.float32)).astype(
            np.float16
        )
        for name in new
    }
    with atomic_path(after / WEIGHTS_FILE) as temporary:
        save_file(averaged, temporary, metadata={"format": "pt"})


def held_out_texts(archive: Path, teacher: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Return the held-out texts of an archive and the teacher's vectors of them, `[texts, teacher_dim]`."""
    pairs, fingerprint = load_pairs(archive)
    *vectors, _ = load_teacher_vectors(teacher, fingerprint)
    rows = np.arange(read_json(archive / ROWS)["training"], len(pairs))
    chosen = pairs.select(rows)
    found = np.concatenate([matrix[rows] for matrix in vectors]).reshape(2, len(rows), -1)
    present = np.array([[text is not None for text in chosen[column]] for column in TEACHER_FILES])
    texts = [text for column in TEACHER_FILES for text in chosen[column] if text is not None]
    return texts, found[present].astype(np.float32)

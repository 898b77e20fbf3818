"""Speed of training and of the teacher beside plain loops: what `scripts/benchmark.py --train` runs.

The plain training loop takes the texts of a row from a dataset, tokenises and pads them to the full length, and
updates everything with AdamW at its defaults, in fp32: what one writes first. Same rows, model and batch.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from asterisk.distillation import cosine_loss, fit_pca, info_nce_loss
from asterisk.training_data import (
    COLUMNS,
    PairTexts,
    TokenColumn,
    encode_in_token_batches,
    load_pairs,
    load_teacher_model,
    load_teacher_vectors,
)
from modeling_asterisk import AsteriskModel
from train_accelerate import DistillationArguments, DistillationTrainer, prepare_student

MAX_LENGTH = 128
DIM = 256
BATCH_SIZE = 32
ROUNDS = 3
PLAIN_STEPS, OUR_STEPS = 4, 24
TEACHER_BATCH, TEACHER_TEXTS = 32, 1536


class PlainDataset(torch.utils.data.Dataset):
    """Rows of text pairs, tokenised and padded to the full length each time they are asked for."""

    def __init__(self, pairs: Dataset, tokenizer: object, vectors: tuple[np.ndarray, ...]) -> None:
        self.pairs, self.tokenizer, self.vectors = pairs, tokenizer, vectors

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        item, texts = self.pairs[row], []
        for column, matrix in zip(COLUMNS, self.vectors, strict=True):
            encoding = self.tokenizer(
                item[column] or "",
                padding="max_length",
                truncation=True,
                max_length=MAX_LENGTH,
                return_tensors="pt",
            )
            vector = torch.from_numpy(matrix[row].astype(np.float32))
            texts.append((encoding["input_ids"][0], encoding["attention_mask"][0], vector))
        return texts


def plain_steps(model: AsteriskModel, data: PlainDataset, pca: Tensor) -> Iterator[int]:
    """Train by the plain loop, a step at a time; yield the number of rows."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    while True:
        for batch in DataLoader(data, batch_size=BATCH_SIZE, shuffle=True):
            students = [model(ids, mask).sentence_embedding for ids, mask, _ in batch]
            targets = [nn.functional.normalize(vectors @ pca, dim=-1) for *_, vectors in batch]
            loss = 0.5 * info_nce_loss(*students, 0.05) + 0.5 * cosine_loss(
                torch.cat(students), torch.cat(targets)
            )
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            yield len(batch[0][0])


def our_steps(trainer: DistillationTrainer, batches: list[np.ndarray], phases: dict[str, float]) -> Iterator[int]:
    """Train by the project's loop, step by step; add up the seconds of each phase, yield the number of rows."""
    calls: list[tuple[str, Callable]] = [
        ("batching", lambda state: trainer.load_batch(state)),
        ("forward", lambda state: trainer.loss(state)["loss"]),
        ("backward", lambda state: trainer.accelerator.backward(state)),
        ("optimiser", lambda _: trainer.step()),
    ]
    while True:
        for rows in batches:
            state = rows
            for name, call in calls:
                started = time.perf_counter()
                state = call(state)
                phases[name] += time.perf_counter() - started
            yield len(rows)


def make_trainer(
    arguments: DistillationArguments,
    model: AsteriskModel,
    columns: dict[str, TokenColumn],
    vectors: tuple[np.ndarray, ...],
    pca: np.ndarray,
) -> DistillationTrainer:
    """Make a trainer over all rows, in fp32 on the CPU."""
    rows = np.arange(len(vectors[0]))
    return DistillationTrainer(arguments, Accelerator(cpu=True), model, columns, vectors, pca, (rows, rows[:1]))


def measure_training(pairs_directory: Path, teacher: Path, tokenizer_name: str, scratch: Path) -> list[dict]:
    """Measure the loops in turns; return texts per second and the shares of the phases, the plain loop first."""
    pairs, data_fingerprint = load_pairs(pairs_directory)
    *vectors, meta = load_teacher_vectors(teacher, data_fingerprint)
    vectors = tuple(np.asarray(matrix) for matrix in vectors)
    pca = fit_pca(list(vectors), np.arange(len(pairs)), DIM)
    arguments = {
        sparse: DistillationArguments(
            output=scratch / "model",
            cache=scratch / "cache",
            tokenizer=tokenizer_name,
            init_from_teacher=False,
            projection_dim=DIM,
            max_length=MAX_LENGTH,
            batch_size=BATCH_SIZE,
            sparse_updates=sparse,
        )
        for sparse in (False, True)
    }
    _, tokenizer, _ = prepare_student(arguments[True], pairs, pca, meta, data_fingerprint)
    started = time.perf_counter()
    data = "timed"  # a cache of its own: the tokenising itself is to be timed, with the tokenizer at hand
    columns = prepare_student(arguments[True], pairs, pca, meta, data)[2]
    tokenising = time.perf_counter() - started
    texts_per_row = float(np.mean([(column.lengths > 0).sum() for column in columns.values()])) * 2 / len(pairs)

    def fresh_model() -> AsteriskModel:
        torch.manual_seed(0)
        return prepare_student(arguments[True], pairs, pca, meta, data)[0]

    rng = np.random.default_rng(0)
    order = rng.permutation(len(pairs))[: BATCH_SIZE * OUR_STEPS * (ROUNDS + 1)]
    names = {False: "ours, every table row updated", True: "ours, rows of the batch updated"}
    phases = {name: defaultdict(float) for name in names.values()}
    loops = {
        "plain loop": (
            plain_steps(fresh_model(), PlainDataset(pairs, tokenizer, vectors), torch.from_numpy(pca)),
            PLAIN_STEPS,
        )
    }
    for sparse, name in names.items():
        trainer = make_trainer(arguments[sparse], fresh_model(), columns, vectors, pca)
        batches = trainer.epoch_batches(order)
        loops[name] = (our_steps(trainer, batches, phases[name]), OUR_STEPS)
    seconds, rows = defaultdict(float), defaultdict(int)
    with tqdm(total=(ROUNDS + 1) * len(loops), desc="training loops", unit=" turns") as bar:
        for turn in range(ROUNDS + 1):
            for name, (loop, steps) in loops.items():
                started = time.perf_counter()
                done = sum(next(loop) for _ in range(steps))
                if turn:  # the first warms up
                    seconds[name] += time.perf_counter() - started
                    rows[name] += done
                elif name in phases:
                    phases[name].clear()
                bar.update()
    figures = []
    for name in loops:
        row = {"loop": name, "texts_per_s": rows[name] * texts_per_row / seconds[name]}
        if name in phases:
            parts = {"tokenising": tokenising * rows[name] / len(pairs)} | phases[name]
            row["percent"] = {part: 100 * value / sum(parts.values()) for part, value in parts.items()}
            # Tokenised once, used in every epoch: counted as if there were one.
            row["texts_per_s"] = rows[name] * texts_per_row / (seconds[name] + parts["tokenising"])
        figures.append(row)
    lengths = np.concatenate([column.lengths[column.lengths > 0] for column in columns.values()])
    for row in figures:
        row |= {"speed_up": row["texts_per_s"] / figures[0]["texts_per_s"], "mean_tokens": float(lengths.mean())}
    return figures


def measure_teacher(pairs: Dataset, teacher_model: str) -> list[dict]:
    """Measure a plain loop over the teacher and ours on the same texts; return texts per second and agreement."""
    rng = np.random.default_rng(0)
    texts = list(PairTexts(pairs.select(rng.permutation(len(pairs))[:TEACHER_TEXTS])))[:TEACHER_TEXTS]
    model, _ = load_teacher_model(teacher_model, device="cpu")
    model.max_seq_length = MAX_LENGTH

    def plain() -> np.ndarray:
        parts = [texts[i : i + TEACHER_BATCH] for i in range(0, len(texts), TEACHER_BATCH)]
        options = {"batch_size": TEACHER_BATCH, "normalize_embeddings": True, "show_progress_bar": False}
        return np.concatenate([model.encode(part, **options) for part in parts])

    loops = {"plain loop": plain, "ours": lambda: encode_in_token_batches(model, texts, 1024)}
    seconds, vectors = defaultdict(list), {}
    for _ in tqdm(range(ROUNDS), desc="teacher", unit=" rounds"):
        for name, loop in loops.items():
            started = time.perf_counter()
            vectors[name] = loop()
            seconds[name].append(time.perf_counter() - started)
    speeds = {name: len(texts) / float(np.median(times)) for name, times in seconds.items()}
    agreement = float((vectors["plain loop"] * vectors["ours"]).sum(1).min())
    return [
        {"loop": name, "texts_per_s": speed, "speed_up": speed / speeds["plain loop"], "worst_cosine": agreement}
        for name, speed in speeds.items()
    ]


def report_training(pairs: Path, teacher: Path, teacher_model: str, tokenizer: str) -> tuple[str, dict]:
    """Measure training and teacher; return a Markdown page and the figures."""
    teacher_figures = measure_teacher(load_pairs(pairs)[0], teacher_model)
    with tempfile.TemporaryDirectory() as scratch:
        training_figures = measure_training(pairs, teacher, tokenizer, Path(scratch))
    lines = ["| training | texts/s | times the plain loop | where the time goes |", "|---|---:|---:|---|"]
    for row in training_figures:
        shares = ", ".join(f"{part} {share:.1f} %" for part, share in row.get("percent", {}).items())
        lines.append(f"| {row['loop']} | {row['texts_per_s']:.0f} | {row['speed_up']:.1f} | {shares} |")
    lines += ["", "| teacher | texts/s | times the plain loop | worst cosine |", "|---|---:|---:|---:|"]
    for row in teacher_figures:
        lines.append(
            f"| {row['loop']} | {row['texts_per_s']:.0f} | {row['speed_up']:.2f} | {row['worst_cosine']:.7f} |"
        )
    lines += [
        "",
        f"Texts have {training_figures[0]['mean_tokens']:.1f} tokens on average; batches of {BATCH_SIZE} pairs.",
    ]
    return "\n".join(lines), {"training": training_figures, "teacher": teacher_figures}

"""Measure the speed of training and of the teacher beside plain loops -> `<output>/training.md`, `training.json`.

    python scripts/benchmarks/training_speed.py --pairs data/pairs --teacher_vectors build/teacher

The plain training loop takes the texts of a row from a dataset, tokenises and pads them to the full length, and
updates everything with AdamW at its defaults, in fp32: what one writes first. Same rows, model and batch.
"""

import argparse
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
from transformers import PreTrainedTokenizerFast

from asterisk.data.pairs import COLUMNS, load_pairs
from asterisk.data.teacher_vectors import load_teacher_vectors
from asterisk.errors import run
from asterisk.evaluation.measuring import machine_facts, sample_texts, write_report
from asterisk.evaluation.models import load_sentence_transformer
from asterisk.evaluation.results import markdown_table
from asterisk.hub import public_name
from asterisk.training.arguments import DistillationArguments
from asterisk.training.losses import cosine_loss, info_nce_loss
from asterisk.training.pca import fit_pca
from asterisk.training.student import prepare_student
from asterisk.training.teacher import encode_in_token_batches
from asterisk.training.trainer import DistillationTrainer
from modeling_asterisk import AsteriskModel

MAX_LENGTH = 128
BATCH_SIZE = 32
OUR_STEPS = 6  # for one of the plain loop
TEACHER_BATCH, TEACHER_TEXTS = 32, 1536


class PlainDataset(torch.utils.data.Dataset):
    """Rows of text pairs, tokenised and padded to the full length each time they are asked for."""

    def __init__(self, pairs: Dataset, tokenizer: PreTrainedTokenizerFast, vectors: list[np.ndarray]) -> None:
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
            loss = 0.5 * info_nce_loss(students[0], students[1], 0.05) + 0.5 * cosine_loss(
                torch.cat(students), torch.cat(targets)
            )
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            yield len(batch[0][0])


def our_steps(trainer: DistillationTrainer, batches: list[np.ndarray], phases: dict[str, float]) -> Iterator[int]:
    """Train by the project's loop, step by step; add up the seconds of each phase, yield the number of rows."""
    calls: dict[str, Callable] = {
        "batching": trainer.load_batch,
        "forward": lambda batch: trainer.loss(batch)["loss"],
        "backward": trainer.accelerator.backward,
        "optimiser": lambda _: trainer.step(),
    }
    while True:
        for rows in batches:
            state = rows
            for name, call in calls.items():
                started = time.perf_counter()
                state = call(state)
                phases[name] += time.perf_counter() - started
            yield len(rows)


def measure_training(
    pairs_directory: Path, teacher_vectors: Path, options: DistillationArguments, rounds: int, steps: int
) -> list[dict]:
    """Measure the loops in turns; return texts per second and the shares of the phases, the plain loop first."""
    pairs, data_fingerprint = load_pairs(pairs_directory)
    *vectors, meta = load_teacher_vectors(teacher_vectors, data_fingerprint)
    vectors = [np.asarray(matrix) for matrix in vectors]
    pca = fit_pca(vectors, np.arange(len(pairs)), options.projection_dim)
    torch.manual_seed(0)
    model, tokenizer, _ = prepare_student(options, pairs, pca, meta, data_fingerprint)
    torch.manual_seed(0)
    started = time.perf_counter()
    # Under another fingerprint the cache is empty: the tokenising itself is timed, with the tokenizer at hand.
    twin, _, columns = prepare_student(options, pairs, pca, meta, "timed")
    tokenising = time.perf_counter() - started
    lengths = np.concatenate([column.lengths for column in columns.values()])
    texts_per_row = (lengths > 0).sum() / len(pairs)

    rows = np.arange(len(pairs))
    trainer = DistillationTrainer(options, Accelerator(cpu=True), twin, columns, vectors, pca, (rows, rows[:1]))
    order = np.random.default_rng(0).permutation(rows)[: BATCH_SIZE * OUR_STEPS * steps * (rounds + 1)]
    phases: dict[str, float] = defaultdict(float)
    plain = plain_steps(model, PlainDataset(pairs, tokenizer, vectors), torch.from_numpy(pca))
    loops = {
        "plain loop": (plain, steps),
        "ours": (our_steps(trainer, trainer.epoch_batches(order), phases), OUR_STEPS * steps),
    }
    seconds, done = dict.fromkeys(loops, 0.0), dict.fromkeys(loops, 0)
    for turn in tqdm(range(rounds + 1), desc="training loops", unit=" turns"):
        for name, (loop, count) in loops.items():
            started = time.perf_counter()
            trained = sum(next(loop) for _ in range(count))
            if turn:  # the first warms up
                seconds[name] += time.perf_counter() - started
                done[name] += trained
        if not turn:
            phases.clear()
    # Tokenised once, used in every epoch: counted as if there were one.
    parts = {"tokenising": tokenising * done["ours"] / len(pairs), **phases}
    seconds["ours"] += parts["tokenising"]
    speeds = {name: float(done[name] * texts_per_row / seconds[name]) for name in loops}
    figures = [
        {
            "loop": name,
            "texts_per_s": speed,
            "speed_up": speed / speeds["plain loop"],
            "mean_tokens": float(lengths[lengths > 0].mean()),
        }
        for name, speed in speeds.items()
    ]
    figures[1]["percent"] = {part: 100 * value / sum(parts.values()) for part, value in parts.items()}
    return figures


def measure_teacher(texts: list[str], teacher_model: str, rounds: int) -> list[dict]:
    """Measure a plain loop over the teacher and ours on the same texts; return texts per second and agreement."""
    model = load_sentence_transformer(teacher_model)
    model.max_seq_length = MAX_LENGTH

    def plain() -> np.ndarray:
        parts = (texts[i : i + TEACHER_BATCH] for i in range(0, len(texts), TEACHER_BATCH))
        return np.concatenate([model.encode(part, normalize_embeddings=True) for part in parts])

    loops = {"plain loop": plain, "ours": lambda: encode_in_token_batches(model, texts, 1024)}
    seconds, vectors = defaultdict(list), {}
    for _ in tqdm(range(rounds), desc="teacher", unit=" rounds"):
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


def main() -> None:
    """Measure teacher and training, and write both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=Path, default=Path("data/pairs"), help="text pairs to train on")
    add("--teacher_vectors", type=Path, default=Path("build/teacher"), help="the teacher's vectors of them")
    add(
        "--teacher_model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="Hub id, directory or installed package of a SentenceTransformer",
    )
    add("--tokenizer", default="wordpiece:30000", help="that of the student, as in train_accelerate.py")
    add("--projection_dim", type=int, default=256, help="size of the student's embedding")
    add("--rounds", type=int, default=3, help="turns of each loop, after one to warm up")
    add(
        "--steps",
        type=int,
        default=4,
        help=f"steps of the plain loop in a turn, ours takes {OUR_STEPS} for each",
    )
    add("--output", type=Path, default=Path("build/results"), help="directory of the results")
    arguments = parser.parse_args()
    facts = {"teacher": public_name(arguments.teacher_model)} | machine_facts(0)
    texts = sample_texts(arguments.pairs, TEACHER_TEXTS)
    teacher = measure_teacher(texts, arguments.teacher_model, arguments.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        options = DistillationArguments(
            output=Path(scratch, "model"),
            cache=Path(scratch, "cache"),
            tokenizer=arguments.tokenizer,
            init_from_teacher=False,
            projection_dim=arguments.projection_dim,
            max_length=MAX_LENGTH,
            batch_size=BATCH_SIZE,
        )
        training = measure_training(
            arguments.pairs, arguments.teacher_vectors, options, arguments.rounds, arguments.steps
        )
    training_rows = [
        [
            row["loop"],
            ", ".join(f"{part} {share:.1f} %" for part, share in row.get("percent", {}).items()),
            f"{row['texts_per_s']:.0f}",
            f"{row['speed_up']:.1f}",
        ]
        for row in training
    ]
    teacher_rows = [
        [row["loop"], f"{row['texts_per_s']:.0f}", f"{row['speed_up']:.2f}", f"{row['worst_cosine']:.7f}"]
        for row in teacher
    ]
    speed = ["texts/s", "times the plain loop"]
    tables = [
        markdown_table(["training", "where the time goes", *speed], training_rows, text_columns=2),
        markdown_table(["teacher", *speed, "worst cosine"], teacher_rows),
        f"Texts have {training[0]['mean_tokens']:.1f} tokens on average; batches of {BATCH_SIZE} pairs.",
    ]
    figures = {"training": training, "teacher": teacher}
    write_report(arguments.output / "training", "Speed of training", "\n\n".join(tables), figures, facts)


if __name__ == "__main__":
    run(main)

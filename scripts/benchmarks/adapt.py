"""Measure what adaptation to an archive gains and loses -> `<results>/adapt.md`, `adapt.json`, `adapt.png`.

    python scripts/benchmarks/adapt.py --data_dir DIRECTORY --held_out build/held_out

Archives are the documents of Cranfield, two vaults of held-out text (title_abstract, heading_paragraph) and the
train texts of CLINC150: texts alone, queries and labels only to score with. `scripts/adapt.py` fits the released
model to each as a user would. Figures are those of the INT8 files before and after, and of the teacher, on the own
task of each archive, and on STS-B dev and SICK-R trial. The curve is of some checkpoints of the first
archive, before averaging.

What lies finished in `--work` is not made again; the curve is of the checkpoints kept there.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
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
from asterisk.files import atomic_directory, read_json, write_text
from modeling_asterisk import AsteriskModel

ROOT = Path(__file__).parents[2]
VAULTS = ("title_abstract", "heading_paragraph")
WATCH_SECONDS = 2
CURVE_POINTS = 3


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
    while process.poll() is None:
        for checkpoint in output.with_name("adapted.run").glob("checkpoints/step-*"):
            if not (points / checkpoint.name).exists():
                with atomic_directory(points / checkpoint.name) as temporary:
                    for name in ("model.safetensors", "progress.json"):
                        shutil.copyfile(checkpoint / name, temporary / name)
        time.sleep(WATCH_SECONDS)
    if process.returncode:
        sys.exit(process.returncode)


def score(embed: Embed, tasks: list[Task]) -> dict[str, float]:
    """Return the main figure of each task."""
    return {task.name: task.score(embed, thorough=False)[task.main] for task in tasks}  # type: ignore[misc]


def curve(points: Path, model: Path, tasks: list[Task]) -> list[tuple[float, ...]]:
    """Return minutes of training, and a figure of each task, of the model and of the checkpoints in `points`."""
    encoder = load_sentence_transformer(str(model))

    def embed(texts: list[str]) -> np.ndarray:
        return encoder.encode(texts, convert_to_numpy=True)

    found = [(0.0, *score(embed, tasks).values())]
    inner: AsteriskModel = encoder[0].auto_model  # type: ignore[assignment]
    checkpoints = sorted(points.glob("step-*"))
    chosen = np.unique(np.linspace(0, len(checkpoints) - 1, CURVE_POINTS).round().astype(int))
    for point in (checkpoints[i] for i in chosen):
        inner.load_state_dict(load_file(point / "model.safetensors"))
        minutes = read_json(point / "progress.json")["progress"]["seconds"] / 60
        found.append((minutes, *score(embed, tasks).values()))
    return found


def render(figures: dict[str, Any]) -> str:
    """Lay out the figures as a Markdown table, a row for each archive and task."""
    rows = []
    for archive, found in figures.items():
        for task, before in found["before"].items():
            teacher = found["teacher"].get(task)
            after = found["after"][task]
            cells = (
                f"{before:.2f}",
                f"{after:.2f}",
                f"{after - before:+.2f}",
                f"{teacher:.2f}" if teacher else "",
            )
            rows.append((archive, task, *cells))
    return markdown_table(["archive", "task", "before", "after", "change", "teacher"], rows, 2)


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
    add("--held_out", type=Path, default=Path("build/held_out"), help="the vaults, from wide_text.py")
    add("--work", type=Path, default=Path("build/adapt_benchmark"), help="directory of the adapted models")
    add("--results", type=Path, default=Path("build/results"), help="directory to write to")
    arguments = parser.parse_args()
    general: list[Task] = [
        Similarity("STSBenchmark", "dev", load_scored_pairs(arguments.data_dir / "stsb.dev.tsv")),
        Similarity("SICK-R", "trial", load_scored_pairs(arguments.data_dir / "sickr.trial.tsv")),
    ]
    archives = load_archives(arguments.data_dir, arguments.held_out, arguments.archives)
    before, teacher = AsteriskEncoder(str(arguments.model)).encode, load_pytorch(arguments.teacher_model)
    figures: dict[str, Any] = {}
    for name, (rows, task) in archives.items():
        adapt(rows, arguments.work / name, arguments)
        adapted = arguments.work / name / "adapted"
        state = read_json(adapted / "training_state.json")
        figures[name] = {
            "before": score(before, [task, *general]),
            "after": score(AsteriskEncoder(str(adapted)).encode, [task, *general]),
            "teacher": score(teacher, [task]),
            "counts": state["adaptation"],
            "teacher_seconds": state["teacher"]["seconds"],
            "training_seconds": state["seconds"],
        }
    first = next(iter(archives))
    task = archives[first][1]
    points = curve(arguments.work / first / "points", arguments.model, [task, general[0]])
    labels = f"{task.name}, {task.main}, %", "STS-B dev, Spearman, %"
    plot_curves({first: points}, arguments.results / "adapt.png", labels)  # type: ignore[dict-item]
    everything = {"archives": figures, "curve": {first: points}}
    write_report(arguments.results / "adapt", "Adaptation", render(figures), everything, machine_facts(0))


if __name__ == "__main__":
    run(main)

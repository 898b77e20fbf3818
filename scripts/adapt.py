"""Fit a model to one's own text, without labels: folders of notes and pages, or other text -> `build/adapted`.

    python scripts/adapt.py ~/Notes ~/ArchiveBox

The teacher embeds passages of the archive, their sentences and headings; training goes on with these beside
documentation of the installed packages, for which the model's own vectors are the targets. The weights before and
after are then averaged: both keep what the model knew. Some documents are held out: training stops when the
agreement with the teacher on them no longer rises, and it is printed, before and after. Nothing leaves the
machine.

Each step is another command of this project. Ctrl-C stops it, the same command goes on. Text and vectors lie in
`<output>.archive` until the model is finished, and are then deleted.
"""

import argparse
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from asterisk import AsteriskEncoder
from asterisk.data.archive import read_archive
from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import energy_counters, energy_used
from asterisk.evaluation.tables import load_scored_pairs
from asterisk.evaluation.tasks import Similarity
from asterisk.files import fingerprint, read_json, write_json
from asterisk.training.adaptation import (
    FP32_FILE,
    ROWS,
    WEIGHTS_FILE,
    average_weights,
    held_out_texts,
    lay_out,
    write_archive,
)
from asterisk.training.memory import return_freed_memory
from asterisk.training.pca import PCA_FILE

ROOT = Path(__file__).parent.parent
MAX_LENGTH = 256  # tokens: passages have 128, titles and headings some more
NEIGHBOURS = 10
STSB = "stsb.test.tsv"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("dataset", nargs="+", help="folders that `asterisk index` reads, or what prepare_data.py takes")
    add("--output", type=Path, default=Path("build/adapted"), help="directory of the adapted model")
    add("--initial_model", type=Path, default=ROOT / "release" / "asterisk", help="the model to adapt")
    add(
        "--teacher_model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="Hub id, directory or installed package of the teacher that the model learned from",
    )
    add(
        "--limit",
        type=int,
        default=8000,
        help="passages to learn from, drawn at random, and twice as many short texts",
    )
    add("--epochs", type=int, default=2, help="passes over the text, at most")
    add("--lr", type=float, default=5e-4, help="peak learning rate")
    add("--rehearsal", type=float, default=0.5, help="rows of other text for each row of the archive")
    add("--share", type=float, default=0.6, help="of the trained weights in their average with those of before")
    add("--held_out", type=float, default=0.05, help="share of the documents held out")
    add("--data_dir", type=Path, help="directory with stsb.test.tsv, to print what STS-B loses")
    add("--seed", type=int, default=0, help="seed of every choice")
    return parser.parse_args()


def step(script: str, *options: object) -> None:
    """Run another command of the project, which Ctrl-C lets save its work; if it fails, end with its exit code."""
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    code = subprocess.run([sys.executable, str(ROOT / script), *map(str, options)], check=False).returncode
    signal.signal(signal.SIGINT, handler)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        sys.exit(code)


def agreement(model: Path, texts: list[str], teacher: np.ndarray) -> tuple[float, float]:
    """Return the mean cosine to the teacher's vectors, and the share of its nearest texts found, in percent."""
    vectors = AsteriskEncoder(str(model)).encode(texts)
    mapped = teacher @ np.load(model / PCA_FILE)
    cosine = (vectors * mapped / np.linalg.norm(mapped, axis=1, keepdims=True)).sum(1).mean()
    count = min(NEIGHBOURS, len(texts) - 1)
    nearest = []
    for matrix in (vectors, teacher):
        similarities = matrix @ matrix.T
        np.fill_diagonal(similarities, -1)
        nearest.append(np.argpartition(-similarities, count - 1, axis=1)[:, :count])
    found = [len(np.intersect1d(ours, theirs)) for ours, theirs in zip(*nearest, strict=True)]
    return 100 * float(cosine), 100 * float(np.mean(found)) / count


def report(arguments: argparse.Namespace, archive: Path, teacher: Path) -> list[str]:
    """Compare the INT8 files before and after, on held-out text and on STS-B where it is at hand."""
    texts, vectors = held_out_texts(archive, teacher)
    models = (arguments.initial_model, arguments.output)
    before, after = (agreement(model, texts, vectors) for model in models)
    lines = [
        f"on {len(texts):,} held-out texts, before -> after:",
        f"  cosine to the teacher's vectors, %: {before[0]:.1f} -> {after[0]:.1f}",
        f"  of the teacher's {NEIGHBOURS} nearest texts, found, %: {before[1]:.1f} -> {after[1]:.1f}",
    ]
    if arguments.data_dir:
        task = Similarity("STSBenchmark", "test", load_scored_pairs(arguments.data_dir / STSB))
        scores = [task.score(AsteriskEncoder(str(model)).encode, thorough=False)[task.main] for model in models]
        lines.append(f"STS-B test, Spearman, %: {scores[0]:.2f} -> {scores[1]:.2f}")
    return lines


def check(arguments: argparse.Namespace) -> None:
    """Refuse options out of range, and a model that cannot be adapted.

    Raises:
        InputError: If there is one.
    """
    if arguments.limit < 1 or arguments.rehearsal < 0:
        raise InputError("--limit must be 1 or more, --rehearsal 0 or more")
    if not 0 <= arguments.share <= 1:
        raise InputError(f"--share is {arguments.share}: it must be between 0 and 1")
    if not 0.001 <= arguments.held_out <= 0.5:
        raise InputError(f"--held_out is {arguments.held_out}: it must be between 0.001 and 0.5")
    for name in (PCA_FILE, "tokenizer.json", FP32_FILE, "onnx/model_quantized.onnx"):
        if not (arguments.initial_model / name).is_file():
            raise InputError(
                f"{arguments.initial_model / name}: no such file; --initial_model must have been trained and "
                "exported here"
            )
    if arguments.data_dir:
        load_scored_pairs(arguments.data_dir / STSB)  # that it is there, not half an hour later that it is not
    if arguments.output.resolve() == arguments.initial_model.resolve():
        raise InputError(f"--output {arguments.output}: that is the model to adapt; choose another directory")


def main() -> None:
    """Read, embed, train, export and compare; go on where an earlier call was interrupted."""
    arguments, started, energy = parse_arguments(), time.monotonic(), energy_counters()
    check(arguments)
    work = arguments.output.with_name(f"{arguments.output.name}.archive")
    archive, teacher = work / "text", work / "teacher"
    choice = {name: getattr(arguments, name) for name in ("dataset", "limit", "held_out", "seed")}
    if counts := read_json(archive / ROWS):
        if counts["choice"] != choice:
            raise InputError(
                f"{work}: an unfinished run with another dataset, --limit, --held_out or --seed lies here; go on "
                "with the same, or delete the directory to start over"
            )
    else:
        tokenizer = Tokenizer.from_file(str(arguments.initial_model / "tokenizer.json"))
        found = read_archive(arguments.dataset, tokenizer, arguments.limit, arguments.seed)
        write_archive(found.split(arguments.held_out, arguments.seed), found.counts | {"choice": choice}, archive)
        counts = read_json(archive / ROWS)
    print(
        f"{counts['documents']:,} documents with {counts['passages']:,} passages and {counts['short_texts']:,} "
        f"sentences, titles and headings; {counts['training']:,} rows to learn from, "
        f"{counts['held_out']:,} held out"
    )
    step(
        "scripts/precompute_teacher.py",
        *("--pairs", archive, "--output", teacher, "--teacher_model", arguments.teacher_model),
        *("--max_length", MAX_LENGTH),
    )
    val_split = lay_out(archive, teacher, arguments.initial_model, arguments.rehearsal, arguments.seed, work)
    return_freed_memory()  # or training would have that much less
    step(
        "train_accelerate.py",
        *("--initial_model", arguments.initial_model, "--output", arguments.output, "--cache", work / "cache"),
        *("--pairs", work / "pairs", "--teacher_vectors", work / "targets", "--val_split", val_split, "--resume"),
        *("--epochs", arguments.epochs, "--patience", 1, "--lr", arguments.lr, "--seed", arguments.seed),
        *("--distill_alpha", 1, "--similarity_weight", 5, "--max_length", MAX_LENGTH, "--checkpoint_steps", 100),
    )
    state = read_json(arguments.output / "training_state.json")
    if "adaptation" not in state:
        if fingerprint(arguments.output / WEIGHTS_FILE) == state["weights"]:  # else killed after this
            average_weights(arguments.initial_model, arguments.output, arguments.share)
        state["weights"] = fingerprint(arguments.output / WEIGHTS_FILE)
        # Counts alone: a card is made from this, and the archive is nobody's business.
        names = ("documents", "passages", "short_texts")
        state["adaptation"] = {"share": arguments.share} | {name: counts[name] for name in names}
        write_json(arguments.output / "training_state.json", state)
    step("export_optimum.py", "--model", arguments.output, "--pairs", work / "pairs")
    print("\n".join(report(arguments, archive, teacher)))
    shutil.rmtree(work)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (time.monotonic() - started) / 60, (usage.ru_utime + usage.ru_stime) / 60
    watt_hours = f", {energy_used(energy, energy_counters()) / 3600:.1f} Wh" if energy else ""
    print(
        f"{arguments.output}: {minutes[0]:.1f} minutes, {minutes[1]:.1f} of the processor{watt_hours}, "
        f"{usage.ru_maxrss / 1e3:.0f} MB; search with it: asterisk index --model {arguments.output}"
    )


if __name__ == "__main__":
    run(main)

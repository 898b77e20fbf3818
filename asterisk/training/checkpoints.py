"""The directory beside a model in training: its recipe, checkpoints, metrics and plot.

Accelerate saves the state, under a temporary name that is changed when all of it is there. Its own automatic
naming writes in place: a run that is killed meanwhile leaves half a checkpoint, which it would load next time.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from asterisk.errors import InputError, first_line
from asterisk.files import fingerprint, read_json, replace_directory, write_json


@dataclass
class Progress:
    """Where training stands: what a checkpoint must hold beside weights, optimiser and schedule."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def format_metrics(metrics: dict[str, float]) -> str:
    """Write validation figures in one line."""
    return ", ".join(f"{name.removeprefix('val/')} {value:.4f}" for name, value in metrics.items())


def run_directory(output: Path) -> Path:
    """Return the directory beside the model that holds checkpoints, metrics and plots."""
    return output.with_name(f"{output.name}.run")


def prepare_run(output: Path, recipe: dict[str, Any], resume: bool) -> bool:
    """Make the run's directory; return False if the finished model already answers to the recipe.

    Raises:
        InputError: If resuming was asked for and the checkpoints there belong to another recipe.
    """
    state, weights = read_json(output / "training_state.json"), output / "model.safetensors"
    if state.get("recipe") == recipe and weights.is_file() and fingerprint(weights) == state["weights"]:
        return False
    directory = run_directory(output)
    found = read_json(directory / "recipe.json")
    if found != recipe:
        if found and resume and any((directory / "checkpoints").glob("step-*")):
            changed = [
                key for key in recipe["arguments"] if found["arguments"].get(key) != recipe["arguments"][key]
            ]
            changed += [key for key in recipe if key != "arguments" and found.get(key) != recipe[key]]
            raise InputError(
                f"{directory}: its checkpoints were made with another {', '.join(changed)}; train with the same, "
                "or delete that directory to start over"
            )
        if directory.exists():  # its metrics may be all that is left of a long run
            replace_directory(directory, directory.with_name(f"{directory.name}.previous"))
        write_json(directory / "recipe.json", recipe)
    elif not resume:
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return True


def finish_checkpoint(temporary: Path, checkpoint: Path, progress: dict[str, Any]) -> None:
    """Give a saved checkpoint its name, with the fingerprints of its files noted; keep it and the one before."""
    files = {str(file.relative_to(temporary)): fingerprint(file) for file in temporary.rglob("*.*")}
    write_json(temporary / "progress.json", {"progress": progress, "files": files})
    replace_directory(temporary, checkpoint)
    for old in sorted(checkpoint.parent.glob("step-*"))[:-2]:
        shutil.rmtree(old)


def newest_checkpoint(directory: Path) -> Path | None:
    """Return the newest whole checkpoint of a run, or None if it has no checkpoint.

    Raises:
        InputError: If there are checkpoints, and all are damaged.
    """
    checkpoints = sorted((directory / "checkpoints").glob("step-*"), reverse=True)
    for checkpoint in checkpoints:
        files = read_json(checkpoint / "progress.json").get("files", {})
        damaged = [
            name
            for name, digest in files.items()
            if not (checkpoint / name).is_file() or fingerprint(checkpoint / name) != digest
        ]
        if files and not damaged:
            return checkpoint
        print(f"{checkpoint}: {', '.join(damaged) or 'progress.json'} is damaged; not used", file=sys.stderr)
    if checkpoints:
        raise InputError(f"{directory}: no whole checkpoint is left; delete that directory to start over")
    return None


@contextmanager
def written_in(directory: Path) -> Iterator[None]:
    """Turn what libraries raise when a disk is full into an InputError that names the way on."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        kept = sorted((directory / "checkpoints").glob("step-*"))
        way = f"then go on from {kept[-1].name} with --resume" if kept else "then start again"
        raise InputError(
            f"{directory}: cannot be written to ({first_line(error)}); free some space, {way}"
        ) from error

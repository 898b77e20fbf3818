"""The directory beside a model in training: its recipe, checkpoints, metrics and plot."""

import shutil
from pathlib import Path

from asterisk.console import InputError, fingerprint, read_json, replace_directory, write_json


def run_directory(output: Path) -> Path:
    """Return the directory beside the model that holds checkpoints, metrics and plots."""
    return output.with_name(f"{output.name}.run")


def prepare_run(output: Path, recipe: dict, resume: bool) -> bool:
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

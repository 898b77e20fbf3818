"""What determines the result of a training run: whether a model is up to date and a run can go on."""

import dataclasses
from typing import Any

import configuration_asterisk
import modeling_asterisk
from asterisk.data import pairs
from asterisk.files import code_fingerprint, fingerprint
from asterisk.training import batches, losses, pca, saving, student, teacher, tokenization, trainer
from asterisk.training.arguments import DistillationArguments

CODE = (
    *(configuration_asterisk, modeling_asterisk, pairs, tokenization, teacher, student),
    *(pca, batches, losses, trainer, saving),
)
# Options that say where a run lies and how often it reports, not what it gives.
WITHOUT_EFFECT = (
    "pairs",
    "teacher_vectors",
    "output",
    "cache",
    "resume",
    "checkpoint_steps",
    "eval_steps",
    "sts_dev",
)
SETTLED_BY_INITIAL_MODEL = ("tokenizer", "lowercase", "embedding_size", "projection_dim")


def make_recipe(
    arguments: DistillationArguments, data_fingerprint: str, identity: dict[str, Any], processes: int
) -> dict[str, Any]:
    """Collect all that determines the result: options, data, teacher, code, number of processes."""
    options = dataclasses.asdict(arguments)
    for name in WITHOUT_EFFECT:
        del options[name]
    if arguments.initial_model:
        options["initial_model"] = fingerprint(arguments.initial_model / "model.safetensors")
        for name in SETTLED_BY_INITIAL_MODEL:
            del options[name]
    return {
        "arguments": options,
        "data": data_fingerprint,
        "teacher": {key: identity[key] for key in ("teacher_fingerprint", "max_length", "precision")},
        "code": code_fingerprint(*CODE),
        "processes": processes,
    }

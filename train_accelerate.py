"""Distil the teacher into an Asterisk model: `data/pairs` + `build/teacher` -> `build/model`.

    python train_accelerate.py --help
    accelerate launch train_accelerate.py --epochs 20 --batch_size 64

The loss is (1 - alpha) * InfoNCE + alpha * distillation. Notable choices:

- The student learns the teacher's vectors through a fixed PCA map: a trainable map on the teacher's side
  could collapse both sides to a constant. The order of PCA makes the first k dimensions the best k.
- The token table starts from the teacher's own vectors of the vocabulary, and the encoder layers add
  almost nothing at first: training refines a static-embedding model instead of starting from noise.
- Batches are gathered from memory maps by array operations, in groups of like length that need little
  padding.
- Progress lies beside the model in `<output>.run`: checkpoints, metrics.jsonl, TensorBoard, a plot.
"""

import shlex
import shutil
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, broadcast_object_list, set_seed
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import HfArgumentParser, PreTrainedTokenizerFast

from asterisk.data.pairs import load_pairs, pairs_provenance, split_rows
from asterisk.data.teacher_vectors import load_teacher_vectors
from asterisk.errors import InputError, run
from asterisk.evaluation.plots import plot_training
from asterisk.evaluation.tables import load_scored_pairs
from asterisk.files import atomic_directory, fingerprint, read_json, replace_directory, write_json
from asterisk.hub import public_name
from asterisk.training.arguments import DistillationArguments
from asterisk.training.batches import TokenColumn, tokenize_texts
from asterisk.training.checkpoints import format_metrics, prepare_run, run_directory, written_in
from asterisk.training.memory import limit_primitive_cache
from asterisk.training.pca import PCA_FILE, fit_pca, load_pca
from asterisk.training.precision import has_fast_bf16
from asterisk.training.recipe import make_recipe
from asterisk.training.saving import save_sentence_transformer
from asterisk.training.student import fill_untrained_positions, prepare_student
from asterisk.training.trainer import DistillationTrainer
from modeling_asterisk import AsteriskModel


def parse_arguments() -> DistillationArguments:
    """Read the command line."""
    parser = HfArgumentParser(DistillationArguments, description=__doc__.partition("\n")[0])  # type: ignore[arg-type]
    arguments: DistillationArguments
    arguments, unknown = parser.parse_args_into_dataclasses(return_remaining_strings=True)
    if unknown:
        raise InputError(f"unknown options: {' '.join(unknown)}; see --help")
    return arguments


def make_accelerator(arguments: DistillationArguments) -> Accelerator:
    """Make what places and synchronises the work, with TensorBoard files beside the model."""
    directory = run_directory(arguments.output)
    mixed_precision = arguments.mixed_precision
    if mixed_precision == "auto":
        device_type = "cuda" if torch.cuda.is_available() else "cpu"
        mixed_precision = "bf16" if has_fast_bf16(device_type) else "no"
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # else several processes on the CPU would not find each other
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        log_with="tensorboard",
        project_config=ProjectConfiguration(str(directory), logging_dir=str(directory / "tensorboard")),
    )


def save_model(
    model: AsteriskModel,
    tokenizer: PreTrainedTokenizerFast,
    pca: NDArray[np.float32],
    arguments: DistillationArguments,
    state: dict[str, Any],
) -> None:
    """Write the finished model with its training state; a model that was there before is kept beside it."""
    with written_in(run_directory(arguments.output)), atomic_directory(arguments.output) as temporary:
        save_sentence_transformer(model, tokenizer, temporary)
        np.save(temporary / PCA_FILE, pca)
        state |= {
            "weights": fingerprint(temporary / "model.safetensors"),
            "parameters": model.num_parameters(),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        }
        write_json(temporary / "training_state.json", state)
        if arguments.output.exists():  # hours of work, perhaps
            replace_directory(arguments.output, arguments.output.with_name(f"{arguments.output.name}.previous"))


def distil(arguments: DistillationArguments, accelerator: Accelerator) -> None:
    """Train, unless the finished model is up to date, and write the model.

    Raises:
        InputError: If the data, the teacher's vectors or a checkpoint cannot be used.
    """
    started, initial = time.time(), arguments.initial_model
    scored = load_scored_pairs(arguments.sts_dev) if arguments.sts_dev else None
    pairs, data_fingerprint = load_pairs(arguments.pairs)
    *vectors, teacher = load_teacher_vectors(arguments.teacher_vectors, data_fingerprint)
    recipe = make_recipe(arguments, data_fingerprint, teacher, accelerator.num_processes)
    with accelerator.main_process_first():
        go_on = prepare_run(arguments.output, recipe, arguments.resume) if accelerator.is_main_process else True
    if not broadcast_object_list([go_on])[0]:
        accelerator.print(f"{arguments.output} is up to date; delete it to train it again")
        return

    rows = split_rows(len(pairs), arguments.val_split, arguments.seed)
    pca = load_pca(initial, teacher["dim"]) if initial else fit_pca(vectors, rows[0], arguments.projection_dim)
    with accelerator.main_process_first():
        model, tokenizer, columns = prepare_student(arguments, pairs, pca, teacher, data_fingerprint)
    del pairs  # or its mapped pages would count as memory for as long as training lasts
    accelerator.init_trackers("")
    dev: tuple[TokenColumn, TokenColumn, NDArray[Any]] | None = None
    if scored:
        backend, sides = tokenizer.backend_tokenizer, (scored.sentences1, scored.sentences2)
        first, second = (tokenize_texts(texts, backend, arguments.max_length) for texts in sides)
        dev = (first, second, scored.scores)
    trainer = DistillationTrainer(arguments, accelerator, model, columns, vectors, pca, rows, dev)
    try:
        if arguments.resume:
            trainer.resume()
        accelerator.print(
            f"{len(rows[0]):,} training pairs, {len(rows[1]):,} held out; {model.num_parameters():,} parameters, "
            f"{sum(p.numel() for p in model.layers.parameters()):,} of them in the layers; "
            f"{trainer.total_steps:,} steps on {accelerator.num_processes} x {accelerator.device.type}"
        )
        metrics = trainer.train()
        accelerator.wait_for_everyone()
    except KeyboardInterrupt:
        command = shlex.join([sys.executable, *sys.argv, *([] if arguments.resume else ["--resume"])])
        accelerator.print(f"\nstopped at step {trainer.progress.step}; go on with: {command}", file=sys.stderr)
        sys.exit(130)
    finally:
        trainer.close()
    if not accelerator.is_main_process:
        return

    directory, progress = run_directory(arguments.output), trainer.progress
    model.load_state_dict(load_file(directory / "best.safetensors"))
    if not initial:
        fill_untrained_positions(model, arguments.max_length)
    state = {
        "recipe": recipe,
        "initial_training": read_json(initial / "training_state.json") if initial else None,
        "teacher": {**teacher, "teacher": public_name(teacher["teacher"])},
        "data": pairs_provenance(arguments.pairs),
        "rows": {"training": len(rows[0]), "held_out": len(rows[1])},
        "metrics": metrics,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "seconds": round(progress.seconds, 1),  # of training, resumed or not
    }
    save_model(model, tokenizer, pca, arguments, state)
    plot_training(trainer.read_metrics(), directory / "training_curve.png")
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    print(
        f"{arguments.output}: best of {progress.epoch} epochs is {progress.best_epoch}, {format_metrics(metrics)} "
        f"({time.time() - started:.0f} s)"
    )


def main() -> None:
    """Distil with the options of the command line, in one process or as one of several."""
    arguments = parse_arguments()
    limit_primitive_cache()
    accelerator = make_accelerator(arguments)
    set_seed(arguments.seed)
    try:
        distil(arguments, accelerator)
    finally:
        accelerator.end_training()


if __name__ == "__main__":
    run(main)

"""Distil the teacher into an Asterisk model: `data/pairs` + `build/teacher` -> `build/model`.

    python train_accelerate.py --help
    accelerate launch train_accelerate.py --epochs 20 --batch_size 64

The loss is (1 - alpha) * InfoNCE + alpha * distillation. Notable choices:

- The student learns the teacher's vectors through a fixed PCA map: a trainable map on the teacher's side
  could collapse both sides to a constant. The order of PCA makes the first k dimensions the best k.
- The token table starts from the teacher's own vectors of the vocabulary, and the encoder layers add
  almost nothing at first: training refines a static-embedding model instead of starting from noise.
- Batches are gathered from memory maps by array operations, in groups of like length that need little
  padding. On the CPU only the rows of the token table that a batch holds are updated.
- Progress lies beside the model in `<output>.run`: checkpoints, metrics.jsonl, TensorBoard, a plot.
"""

import dataclasses
import json
import math
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import ProjectConfiguration, broadcast_object_list, set_seed
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoTokenizer, HfArgumentParser, PreTrainedTokenizerFast, get_scheduler

import modeling_asterisk
from asterisk.console import (
    InputError,
    atomic_directory,
    atomic_path,
    fingerprint,
    read_json,
    replace_directory,
    run,
    write_json,
)
from asterisk.distillation import (
    PCA_FILE,
    cosine_loss,
    fill_untrained_positions,
    fit_pca,
    gather_with_gradient,
    info_nce_loss,
    initialise_from_teacher,
    load_pca,
    make_optimizers,
    similarity_loss,
    teacher_token_vectors,
)
from asterisk.evaluation_data import load_scored_pairs, spearman
from asterisk.hub import public_name
from asterisk.model_directory import save_sentence_transformer, save_tokenizer
from asterisk.plots import plot_training
from asterisk.run_directory import (
    Progress,
    describe,
    finish_checkpoint,
    newest_checkpoint,
    prepare_run,
    run_directory,
    written_in,
)
from asterisk.tokenization import build_tokenizer
from asterisk.training_data import (
    PairTexts,
    TokenColumn,
    collate,
    describe_pairs,
    has_fast_bf16,
    length_bucketed_batches,
    load_pairs,
    load_teacher_vectors,
    read_rows,
    release_pages,
    split_rows,
    tokenize_pairs,
    tokenize_texts,
)
from modeling_asterisk import AsteriskConfig, AsteriskModel

LOG_STEPS = 20
EVALUATION_BATCH = 256
# What a forward and backward pass over one group more costs, in tokens: far more where tokens cost little.
GROUP_COST_CPU, GROUP_COST_GPU = 64, 16384

COUNTS = ("epochs", "batch_size", "patience", "checkpoint_steps", "gradient_accumulation_steps")
SHARES = ("distill_alpha", "warmup_ratio")


def option(default: object, text: str) -> object:
    """Declare a command-line option with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class DistillationArguments:
    """Options of the training command."""

    pairs: Path = option(Path("data/pairs"), "text pairs, from scripts/prepare_data.py")
    teacher: Path = option(Path("build/teacher"), "teacher vectors, from scripts/precompute_teacher.py")
    output: Path = option(Path("build/model"), "the SentenceTransformer directory to write")
    cache: Path = option(Path("build/cache"), "tokenised text and the teacher's token vectors")
    tokenizer: str = option(
        "openai-community/gpt2",
        "Hub id or directory, or wordpiece:SIZE or bpe:SIZE to train a vocabulary on the pairs",
    )
    lowercase: bool = option(True, "whether a vocabulary trained on the pairs ignores case")
    embedding_size: int = option(256, "width of the token table; 0 means the full hidden size")
    intermediate_size: int = option(256, "width of the feed-forward layers")
    projection_dim: int = option(256, "size of the sentence embedding")
    initial_model: Path | None = option(None, "go on from this model's weights, with its tokenizer and PCA map")
    init_from_teacher: bool = option(True, "start the token table from the teacher's vectors of the vocabulary")
    max_length: int = option(128, "cut texts at so many tokens in training")
    epochs: int = option(5, "passes over the training pairs")
    batch_size: int = option(32, "pairs in a batch, on each process")
    lr: float = option(2e-4, "peak learning rate of AdamW")
    sparse_updates: bool = option(True, "on the CPU, update only those rows of the token table that a batch holds")
    warmup_ratio: float = option(0.05, "share of the steps in which the rate rises; then it falls to 0")
    weight_decay: float = option(0.01, "weight decay of the matrices; token and position tables have none")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    gradient_accumulation_steps: int = option(1, "batches summed up for one optimiser step")
    distill_alpha: float = option(0.5, "weight of distillation; InfoNCE has the rest")
    similarity_weight: float = option(1.0, "weight of the similarity-matrix term inside distillation")
    temperature: float = option(0.05, "temperature of InfoNCE")
    patience: int = option(3, "stop after so many epochs without a better validation loss")
    val_split: float = option(0.1, "share of the pairs held out for validation")
    mixed_precision: str = option("auto", "no, bf16, fp16; auto means bf16 where the hardware multiplies it")
    gradient_checkpointing: bool = option(False, "trade time for memory in the backward pass")
    eval_steps: int = option(0, "validate every so many optimiser steps, too, not only after each epoch")
    sts_dev: Path | None = option(None, "sentence1, sentence2, score (TSV): correlation to record at validation")
    checkpoint_steps: int = option(500, "optimiser steps between two checkpoints")
    resume: bool = option(False, "go on from the newest checkpoint, if there is one")
    seed: int = option(0, "seed of the split, the order of the batches and the initial weights")

    def __post_init__(self) -> None:
        """Check the ranges."""
        limits = dict.fromkeys(COUNTS, (1, math.inf)) | dict.fromkeys(SHARES, (0, 1))
        limits |= {"val_split": (0.001, 0.9), "lr": (1e-12, math.inf), "intermediate_size": (1, math.inf)}
        limits |= {"max_length": (1, 512), "projection_dim": (1, 512), "embedding_size": (0, 512)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                limit = f"at least {low}" if high == math.inf else f"between {low} and {high}"
                raise InputError(f"--{name} is {getattr(self, name)}: it must be {limit}")
        if self.mixed_precision not in ("auto", "no", "bf16", "fp16"):
            raise InputError(f"--mixed_precision is {self.mixed_precision}: choose auto, no, bf16 or fp16")


class DistillationTrainer:
    """Trains an `AsteriskModel` on text pairs and the teacher's vectors of them.

    Args:
        arguments: Options of the run.
        accelerator: Places, scales and synchronises; one process or many.
        model: The student, initialised.
        columns: Tokens of `summary` and `article`.
        vectors: Teacher vectors of both, each `[rows, teacher_dim]`.
        pca: Map from the teacher's space to the student's, `[teacher_dim, dim]`.
        rows: Row numbers to train on and to validate on.
        dev: Tokens of the first and the second sentences of scored pairs, and the scores; or None.
    """

    def __init__(
        self,
        arguments: DistillationArguments,
        accelerator: Accelerator,
        model: AsteriskModel,
        columns: dict[str, TokenColumn],
        vectors: tuple[np.ndarray, np.ndarray],
        pca: np.ndarray,
        rows: tuple[np.ndarray, np.ndarray],
        dev: tuple[TokenColumn, TokenColumn, np.ndarray] | None = None,
    ) -> None:
        self.arguments = arguments
        self.accelerator = accelerator
        self.columns = columns
        self.vectors = vectors
        self.pca = torch.from_numpy(pca).to(accelerator.device)
        self.rows, self.val_rows = rows
        self.dev = dev
        self.run_directory = run_directory(arguments.output)
        self.lengths = columns["summary"].lengths + columns["article"].lengths
        self.progress = Progress()
        self.stop_requested = False

        on_cpu = accelerator.device.type == "cpu"
        self.group_cost = GROUP_COST_CPU if on_cpu else GROUP_COST_GPU
        model.token_embeddings.sparse = on_cpu and arguments.sparse_updates
        optimizers = make_optimizers(model, arguments.lr, arguments.weight_decay)
        # Adam is indifferent to the scale of a gradient, and the rows of the table hardly share theirs.
        self.clipped = [p for p in model.parameters() if p is not model.token_embeddings.weight]
        self.batch_rows = arguments.batch_size * accelerator.num_processes
        epoch_batches = -(-len(self.rows) // self.batch_rows)
        self.epoch_steps = -(-epoch_batches // arguments.gradient_accumulation_steps)
        self.total_steps = self.epoch_steps * arguments.epochs
        warmup_steps = round(arguments.warmup_ratio * self.total_steps)
        self.schedulers = [get_scheduler("linear", o, warmup_steps, self.total_steps) for o in optimizers]
        self.model, *self.optimizers = accelerator.prepare(model, *optimizers)
        accelerator.register_for_checkpointing(*self.schedulers)

    def load_batch(self, rows: np.ndarray) -> dict[str, Tensor | list]:
        """Gather this process's share of the batch of `rows`, an equal number of rows on each process.

        A short last batch is filled up with rows of weight zero.
        """
        size = -(-len(rows) // self.accelerator.num_processes)
        first = self.accelerator.process_index * size
        places = np.arange(first, first + size)
        mine = rows[np.minimum(places, len(rows) - 1)]
        present = [(places < len(rows)) & (column.lengths_of(mine) > 0) for column in self.columns.values()]
        vectors = torch.from_numpy(np.stack([read_rows(matrix, mine) for matrix in self.vectors]))
        batch = {
            "groups": self.collate(self.columns.values(), mine),
            "present": torch.from_numpy(np.stack(present)).to(self.accelerator.device),
            "teacher": vectors.to(self.accelerator.device).float(),
        }
        release_pages(*(column.ids for column in self.columns.values()))
        return batch

    def collate(self, columns: Iterable[TokenColumn], rows: np.ndarray) -> list[list[Tensor]]:
        """Gather texts in groups of like length, on the device; see `training_data.collate`."""
        groups = collate(tuple(columns), rows, self.group_cost)
        return [[torch.from_numpy(array).to(self.accelerator.device) for array in group] for group in groups]

    def embed(self, groups: list[list[Tensor]], rows: int) -> Tensor:
        """Embed groups of texts, `[2, rows, dim]`: the texts of the first column, then those of the second."""
        parts = [self.model(input_ids, mask).sentence_embedding.float() for input_ids, mask, _ in groups]
        vectors = parts[0].new_zeros(2 * rows, parts[0].shape[1])
        places = torch.cat([places for *_, places in groups])
        return vectors.index_copy(0, places, torch.cat(parts)).unflatten(0, (2, rows))

    def loss(self, batch: dict[str, Tensor | list]) -> dict[str, Tensor]:
        """Return the combined loss of the batch of all processes, and its terms, each a scalar."""
        embeddings = self.embed(batch["groups"], batch["present"].shape[1])
        targets = nn.functional.normalize(batch["teacher"] @ self.pca, dim=-1)
        students = [gather_with_gradient(vectors, self.accelerator) for vectors in embeddings]
        targets = [self.accelerator.gather(vectors) for vectors in targets]
        present = [self.accelerator.gather(here) for here in batch["present"]]
        student = torch.cat([vectors[here] for vectors, here in zip(students, present, strict=True)])
        target = torch.cat([vectors[here] for vectors, here in zip(targets, present, strict=True)])
        pairs = present[0] & present[1]
        terms = {
            "cosine": cosine_loss(student, target),
            "similarity": similarity_loss(student, target),
            "info_nce": info_nce_loss(students[0][pairs], students[1][pairs], self.arguments.temperature)
            if pairs.any()
            else student.sum() * 0,
        }
        alpha = self.arguments.distill_alpha
        distillation = terms["cosine"] + self.arguments.similarity_weight * terms["similarity"]
        return {"loss": (1 - alpha) * terms["info_nce"] + alpha * distillation, **terms}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the mean loss and terms over the held-out pairs, each pair counted once."""
        self.model.eval()
        sums: dict[str, float] = {}
        # The same batches whatever the number of processes or the training batch: comparable figures.
        batches = length_bucketed_batches(self.val_rows, self.lengths[self.val_rows], EVALUATION_BATCH, seed=None)
        for rows in batches:
            for name, value in self.loss(self.load_batch(rows)).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows)
        metrics = {f"val/{name}": value / len(self.val_rows) for name, value in sums.items()}
        if self.dev:
            *columns, scores = self.dev
            order = np.argsort(columns[0].lengths + columns[1].lengths, kind="stable")
            cosines = np.zeros(len(scores))
            for i in range(0, len(order), EVALUATION_BATCH):
                rows = order[i : i + EVALUATION_BATCH]
                first, second = self.embed(self.collate(columns, rows), len(rows))
                cosines[rows] = (first * second).sum(-1).cpu().numpy()
            metrics["sts_dev/spearman"] = spearman(cosines, scores)
        self.model.train()
        return metrics

    def save_checkpoint(self) -> Path:
        """Save everything that resuming needs; a checkpoint under its final name is whole. The last two stay."""
        directory = self.run_directory / "checkpoints" / f"step-{self.progress.step:08d}"
        temporary = directory.with_name(f".{directory.name}.tmp")
        try:
            with written_in(self.run_directory):
                self.accelerator.save_state(str(temporary))
                self.accelerator.wait_for_everyone()
                if self.accelerator.is_main_process:
                    finish_checkpoint(temporary, directory, dataclasses.asdict(self.progress))
        finally:
            if self.accelerator.is_main_process:  # half a checkpoint must not fill the disk
                shutil.rmtree(temporary, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        return directory

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        if checkpoint := newest_checkpoint(self.run_directory):
            self.accelerator.load_state(str(checkpoint))
            self.progress = Progress(**read_json(checkpoint / "progress.json")["progress"])
            self.accelerator.print(f"resuming at step {self.progress.step} of {self.total_steps}")

    def log(self, values: dict[str, float]) -> None:
        """Append one line to metrics.jsonl and to TensorBoard."""
        values = {"step": self.progress.step, **{key: float(f"{value:.6g}") for key, value in values.items()}}
        self.accelerator.log(values, step=self.progress.step)
        if self.accelerator.is_main_process:
            with (self.run_directory / "metrics.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict]:
        """Read the lines of metrics.jsonl up to the present step and epoch; resuming has undone later ones."""
        path = self.run_directory / "metrics.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        step, epoch = self.progress.step, self.progress.epoch
        # A killed run may have left half a line at the end.
        rows = (json.loads(line) for line in text.splitlines() if line.endswith("}"))
        return [row for row in rows if row["step"] <= step and row.get("epoch", 0) <= epoch]

    def train(self) -> dict[str, float]:
        """Train to the end or until validation stops improving; return the best epoch's validation figures.

        Raises:
            InputError: If the loss is not finite.
            KeyboardInterrupt: After SIGINT or SIGTERM, with a checkpoint saved.
        """
        if self.accelerator.is_main_process:
            with atomic_path(self.run_directory / "metrics.jsonl") as temporary:
                rows = self.read_metrics() if self.progress.step else []
                temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if self.progress.step == 0:
            baseline = self.evaluate()
            self.log({"epoch": 0, **baseline})
            self.accelerator.print(f"before training: {describe(baseline)}")
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, self.request_stop)
        with tqdm(
            total=self.total_steps,
            initial=self.progress.step,
            desc="training",
            unit=" steps",
            disable=not self.accelerator.is_main_process,
        ) as progress_bar:
            while self.progress.epoch < self.arguments.epochs:
                self.train_epoch(progress_bar)
                metrics = self.evaluate()
                self.progress.epoch += 1
                self.progress.batch = 0
                self.log({"epoch": self.progress.epoch, **metrics})
                if metrics["val/loss"] < self.progress.best_loss:
                    self.progress.best_loss, self.progress.best_epoch = metrics["val/loss"], self.progress.epoch
                    self.progress.best_metrics = metrics
                    if self.accelerator.is_main_process:
                        weights = self.accelerator.unwrap_model(self.model).state_dict()
                        best = self.run_directory / "best.safetensors"
                        with written_in(self.run_directory), atomic_path(best) as temporary:
                            save_file(weights, temporary, metadata={"format": "pt"})
                progress_bar.write(f"epoch {self.progress.epoch}: {describe(metrics)}", file=sys.stdout)
                if self.progress.epoch - self.progress.best_epoch >= self.arguments.patience:
                    progress_bar.write(
                        f"no better for {self.arguments.patience} epochs: stopping", file=sys.stdout
                    )
                    break
        return self.progress.best_metrics

    def epoch_batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """Cut `rows` into the batches of the present epoch."""
        seed = self.arguments.seed * 1000 + self.progress.epoch
        return length_bucketed_batches(rows, self.lengths[rows], self.batch_rows, seed)

    def train_epoch(self, progress_bar: tqdm) -> None:
        """Train on the rest of the present epoch."""
        arguments, progress = self.arguments, self.progress
        batches = self.epoch_batches(self.rows)
        started = time.monotonic() - progress.seconds
        for i in range(progress.batch, len(batches)):
            step_now = (i + 1) % arguments.gradient_accumulation_steps == 0 or i + 1 == len(batches)
            with nullcontext() if step_now else self.accelerator.no_sync(self.model):
                terms = self.loss(self.load_batch(batches[i]))
                self.accelerator.backward(terms["loss"] * self.accelerator.num_processes)
            if not torch.isfinite(terms["loss"]):
                checkpoint = newest_checkpoint(self.run_directory)
                raise InputError(
                    f"the loss is {terms['loss'].item()} at step {progress.step}, rows {batches[i].tolist()}: "
                    f"lower --lr (now {arguments.lr}); the last good checkpoint is {checkpoint or 'none'}"
                )
            progress.batch = i + 1
            if not step_now:
                continue
            self.step()
            progress.seconds = time.monotonic() - started
            progress_bar.update()
            if progress.step % LOG_STEPS == 0:
                values = {f"train/{name}": value.item() for name, value in terms.items()}
                self.log({**values, "lr": self.schedulers[0].get_last_lr()[0], "seconds": progress.seconds})
                progress_bar.set_postfix(loss=f"{values['train/loss']:.4f}")
            if arguments.eval_steps and progress.step % arguments.eval_steps == 0:
                metrics = self.evaluate()
                self.log({**metrics, "seconds": progress.seconds})
                progress_bar.write(f"step {progress.step}: {describe(metrics)}", file=sys.stdout)
                started = time.monotonic() - progress.seconds
            if progress.step % arguments.checkpoint_steps == 0:
                self.save_checkpoint()
            if self.should_stop():
                self.save_checkpoint()
                raise KeyboardInterrupt

    def step(self) -> None:
        """Update the weights from the gradients of the batches so far."""
        self.accelerator.clip_grad_norm_(self.clipped, self.arguments.max_grad_norm)
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        self.progress.step += 1

    def request_stop(self, *_: object) -> None:
        """Ask the training loop to save and stop after the present step; a second request stops at once."""
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True

    def should_stop(self) -> bool:
        """Say whether any process was asked to stop: all must save the checkpoint together."""
        if self.accelerator.num_processes == 1:
            return self.stop_requested
        flag = torch.tensor([float(self.stop_requested)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag).item())


def make_recipe(arguments: DistillationArguments, data_fingerprint: str, teacher: dict, processes: int) -> dict:
    """Collect all that determines the result: options, data, teacher, code, number of processes."""
    options = dataclasses.asdict(arguments)
    for name in ("pairs", "teacher", "output", "cache", "resume", "checkpoint_steps", "eval_steps", "sts_dev"):
        del options[name]
    if arguments.initial_model:  # which settles the rest
        options["initial_model"] = fingerprint(arguments.initial_model / "model.safetensors")
        for name in ("tokenizer", "lowercase", "embedding_size", "intermediate_size", "projection_dim"):
            del options[name]
    model_file = Path(modeling_asterisk.__file__)
    code = fingerprint(Path(__file__), model_file, model_file.with_name("configuration_asterisk.py"))
    teacher = {key: teacher[key] for key in ("teacher_fingerprint", "max_length", "precision")}
    return {
        "arguments": options,
        "data": data_fingerprint,
        "teacher": teacher,
        "code": code,
        "processes": processes,
    }


def prepare_student(
    arguments: DistillationArguments, pairs: Dataset, pca: np.ndarray, teacher: dict, data_fingerprint: str
) -> tuple[AsteriskModel, PreTrainedTokenizerFast, dict[str, TokenColumn]]:
    """Make the tokenizer and the initial model, and tokenise the pairs; what a cache holds is not made again."""
    initial = arguments.initial_model
    config = AsteriskConfig(
        embedding_size=arguments.embedding_size or None,
        intermediate_size=arguments.intermediate_size,
        projection_dim=arguments.projection_dim,
    )
    tokenizer_directory = run_directory(arguments.output) / "tokenizer"
    if not tokenizer_directory.exists():
        name = str(initial or arguments.tokenizer)
        tokenizer = build_tokenizer(name, PairTexts(pairs), config.max_position_embeddings, arguments.lowercase)
        with atomic_directory(tokenizer_directory) as temporary:
            save_tokenizer(tokenizer, temporary)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory)
    key = fingerprint(tokenizer_directory / "tokenizer.json")
    columns = tokenize_pairs(
        pairs,
        tokenizer.backend_tokenizer,
        arguments.max_length,
        arguments.cache / f"tokens-{data_fingerprint}-{key}-{arguments.max_length}",
        progress=PartialState().is_main_process,
    )
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    model = AsteriskModel.from_pretrained(initial) if initial else AsteriskModel(config)
    if arguments.init_from_teacher and not initial:
        token_vectors = teacher_token_vectors(
            tokenizer,
            teacher["teacher"],
            arguments.cache / f"token_vectors-{teacher['teacher_fingerprint']}-{key}.npy",
            str(PartialState().device),
        )
        counts = sum(np.bincount(column.ids, minlength=len(tokenizer)) for column in columns.values())
        initialise_from_teacher(model, token_vectors.astype(np.float32) @ pca, counts)
    return model, tokenizer, columns


def main() -> None:
    """Run the command."""
    parser = HfArgumentParser(DistillationArguments, description=__doc__.partition("\n")[0])
    arguments, unknown = parser.parse_args_into_dataclasses(return_remaining_strings=True)
    if unknown:
        raise InputError(f"unknown options: {' '.join(unknown)}; see --help")
    started = time.time()
    directory = run_directory(arguments.output)
    mixed_precision = arguments.mixed_precision
    if mixed_precision == "auto":
        device_type = "cuda" if torch.cuda.is_available() else "cpu"
        mixed_precision = "bf16" if has_fast_bf16(device_type) else "no"
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else several processes on the CPU would not find each other
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        log_with="tensorboard",
        project_config=ProjectConfiguration(str(directory), logging_dir=str(directory / "tensorboard")),
    )
    set_seed(arguments.seed)

    scored = load_scored_pairs(arguments.sts_dev) if arguments.sts_dev else None
    pairs, data_fingerprint = load_pairs(arguments.pairs)
    *vectors, teacher = load_teacher_vectors(arguments.teacher, data_fingerprint)
    recipe = make_recipe(arguments, data_fingerprint, teacher, accelerator.num_processes)
    with accelerator.main_process_first():
        go_on = prepare_run(arguments.output, recipe, arguments.resume) if accelerator.is_main_process else True
    if not broadcast_object_list([go_on])[0]:
        accelerator.print(f"{arguments.output} is up to date; delete it to train it again")
        return

    rows = split_rows(len(pairs), arguments.val_split, arguments.seed)
    initial = arguments.initial_model
    pca = load_pca(initial, teacher["dim"]) if initial else fit_pca(vectors, rows[0], arguments.projection_dim)
    with accelerator.main_process_first():
        model, tokenizer, columns = prepare_student(arguments, pairs, pca, teacher, data_fingerprint)
    del pairs  # or its mapped pages would count as memory for as long as training lasts
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    accelerator.init_trackers("")
    dev = None
    if scored:
        backend, sides = tokenizer.backend_tokenizer, (scored.sentences1, scored.sentences2)
        dev = (*(tokenize_texts(texts, backend, arguments.max_length) for texts in sides), scored.scores)
    trainer = DistillationTrainer(arguments, accelerator, model, columns, tuple(vectors), pca, rows, dev)
    if arguments.resume:
        trainer.resume()
    accelerator.print(
        f"{len(rows[0]):,} training pairs, {len(rows[1]):,} held out; {model.num_parameters():,} parameters, "
        f"{sum(p.numel() for p in model.layers.parameters()):,} of them in the layers; "
        f"{trainer.total_steps:,} steps on {accelerator.num_processes} x {accelerator.device.type}"
    )
    try:
        metrics = trainer.train()
    except KeyboardInterrupt:
        command = shlex.join([sys.executable, *sys.argv, *([] if arguments.resume else ["--resume"])])
        accelerator.print(f"\nstopped at step {trainer.progress.step}; go on with: {command}", file=sys.stderr)
        sys.exit(130)
    accelerator.end_training()

    if accelerator.is_main_process:
        model.load_state_dict(load_file(directory / "best.safetensors"))
        if not initial:
            fill_untrained_positions(model, arguments.max_length)
        with written_in(directory), atomic_directory(arguments.output) as temporary:
            save_sentence_transformer(model, tokenizer, temporary)
            np.save(temporary / PCA_FILE, pca)
            write_json(
                temporary / "training_state.json",
                {
                    "recipe": recipe,
                    "initial_training": read_json(initial / "training_state.json") if initial else None,
                    "weights": fingerprint(temporary / "model.safetensors"),
                    "teacher": {**teacher, "teacher": public_name(teacher["teacher"])},
                    "data": describe_pairs(arguments.pairs),
                    "rows": {"training": len(rows[0]), "held_out": len(rows[1])},
                    "metrics": metrics,
                    "parameters": model.num_parameters(),
                    "epochs": trainer.progress.epoch,
                    "best_epoch": trainer.progress.best_epoch,
                    "seconds": round(trainer.progress.seconds, 1),  # of training, resumed or not
                    "date": datetime.now(timezone.utc).date().isoformat(),
                    "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
                },
            )
            if arguments.output.exists():  # hours of work, perhaps
                previous = arguments.output.with_name(f"{arguments.output.name}.previous")
                replace_directory(arguments.output, previous)
        plot_training(trainer.read_metrics(), directory / "training_curve.png")
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        print(
            f"{arguments.output}: best of {trainer.progress.epoch} epochs is {trainer.progress.best_epoch}, "
            f"{describe(metrics)} ({time.time() - started:.0f} s)"
        )


if __name__ == "__main__":
    run(main)

"""Distil the teacher into an Asterisk model: `data/pairs` + `build/teacher` -> `build/model`.

    python train_accelerate.py --help
    accelerate launch train_accelerate.py --epochs 20 --batch_size 64

The loss is (1 - alpha) * InfoNCE + alpha * distillation. Notable choices:

- The student learns the teacher's vectors through a fixed PCA map: a trainable map on the teacher's side
  could collapse both sides to a constant. The order of PCA makes the first k dimensions the best k.
- The token table starts from the teacher's own vectors of the vocabulary, and the encoder layers add
  almost nothing at first: training refines a static-embedding model instead of starting from noise.
- Batches hold texts of like length and are gathered from memory maps by array operations.
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
from torch.distributed.nn.functional import all_gather
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
from asterisk.hub import public_name
from asterisk.model_directory import save_sentence_transformer, save_tokenizer
from asterisk.plots import plot_training
from asterisk.run_directory import prepare_run, run_directory
from asterisk.tokenization import build_tokenizer
from asterisk.training_data import (
    PairTexts,
    TokenColumn,
    describe_pairs,
    fit_pca,
    has_fast_bf16,
    length_bucketed_batches,
    load_pairs,
    load_teacher_vectors,
    split_rows,
    teacher_token_vectors,
    tokenize_pairs,
)
from modeling_asterisk import AsteriskConfig, AsteriskModel

LOG_STEPS = 20
SIF_A = 1e-3  # `a` of smooth inverse frequency: tokens rarer than this share of the text keep their length


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
    init_from_teacher: bool = option(True, "start the token table from the teacher's vectors of the vocabulary")
    max_length: int = option(128, "cut texts at so many tokens in training")
    epochs: int = option(5, "passes over the training pairs")
    batch_size: int = option(32, "pairs in a batch, on each process")
    lr: float = option(2e-4, "peak learning rate of AdamW")
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
    checkpoint_steps: int = option(500, "optimiser steps between two checkpoints")
    resume: bool = option(False, "go on from the newest checkpoint, if there is one")
    seed: int = option(0, "seed of the split, the order of the batches and the initial weights")

    def __post_init__(self) -> None:
        """Check the ranges."""
        limits = dict.fromkeys(COUNTS, (1, math.inf)) | dict.fromkeys(SHARES, (0, 1))
        limits |= {"val_split": (0.001, 0.9), "lr": (0, math.inf), "intermediate_size": (1, math.inf)}
        limits |= {"max_length": (1, 512), "projection_dim": (1, 512), "embedding_size": (0, 512)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                limit = f"at least {low}" if high == math.inf else f"between {low} and {high}"
                raise InputError(f"--{name} is {getattr(self, name)}: it must be {limit}")
        if self.mixed_precision not in ("auto", "no", "bf16", "fp16"):
            raise InputError(f"--mixed_precision is {self.mixed_precision}: choose auto, no, bf16 or fp16")


def gather_with_gradient(tensor: Tensor, accelerator: Accelerator) -> Tensor:
    """Concatenate a tensor over all processes along its first dimension; gradients flow back to each.

    Every process then computes the same loss of the whole batch. The backward pass of the gather sums the
    processes' equal gradients, DistributedDataParallel averages: the result is the gradient of that loss.
    """
    return tensor if accelerator.num_processes == 1 else torch.cat(all_gather(tensor.contiguous()))


def info_nce_loss(summaries: Tensor, articles: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE with in-batch negatives (van den Oord et al. 2018, arXiv:1807.03748), a scalar.

    Args:
        summaries: Unit vectors, `[pairs, dim]`.
        articles: Unit vectors of the same pairs, `[pairs, dim]`.
        temperature: Divides the cosines.
    """
    logits = summaries @ articles.T / temperature
    places = torch.arange(len(logits), device=logits.device)
    return (nn.functional.cross_entropy(logits, places) + nn.functional.cross_entropy(logits.T, places)) / 2


def cosine_loss(student: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cosine over unit vectors `[texts, dim]`, a scalar."""
    return 1 - (student * target).sum(-1).mean()


def similarity_loss(student: Tensor, target: Tensor) -> Tensor:
    """Mean squared error between the cosine matrices of student and target `[texts, dim]`, a scalar.

    Similarity-preserving knowledge distillation (Tung and Mori 2019, arXiv:1907.09682).
    """
    return nn.functional.mse_loss(student @ student.T, target @ target.T)


def initialise_from_teacher(model: AsteriskModel, token_vectors: np.ndarray, counts: np.ndarray) -> None:
    """Set the token table so that the untrained model is a static embedding of the teacher's word vectors.

    Each vector is weighted by smooth inverse frequency, a / (a + p), for the share p of its token in the
    text (Arora et al. 2017, "A simple but tough-to-beat baseline for sentence embeddings"), and freed of what
    all words have in common, their mean in running text. A random orthonormal map takes it to the hidden
    size, the projection takes it back.

    Args:
        model: The model to change, in place.
        token_vectors: Vector of each token in the space of the sentence embedding, `[vocab_size, dim]`.
        counts: How often each token occurs in the training text, `[vocab_size]`.
    """
    weights = SIF_A / (SIF_A + counts / counts.sum())
    mean = np.average(token_vectors, axis=0, weights=weights * counts)
    vectors = torch.from_numpy(((token_vectors - mean) * weights[:, None]).astype(np.float32))
    vectors[model.config.pad_token_id] = 0
    # Hidden states of unit variance, beside which the first updates of the layers are small.
    vectors *= model.config.hidden_size**0.5
    hidden_size, dim = model.config.hidden_size, min(vectors.shape[1], model.config.embedding_size or 10**9)
    basis = nn.init.orthogonal_(torch.empty(hidden_size, hidden_size))
    with torch.no_grad():
        if model.config.embedding_size:
            model.token_embeddings.weight.zero_()[:, :dim] = vectors[:, :dim]
            model.embedding_projection.weight.copy_(basis[:, : model.config.embedding_size])
        else:
            model.token_embeddings.weight.copy_(vectors @ basis[:, :dim].T)
        model.projection.weight.copy_(basis[:, : model.config.projection_dim].T)


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
        recipe: All that determines the result; a checkpoint of another recipe is refused.
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
        recipe: dict,
    ) -> None:
        self.arguments = arguments
        self.accelerator = accelerator
        self.columns = columns
        self.vectors = vectors
        self.pca = torch.from_numpy(pca).to(accelerator.device)
        self.rows, self.val_rows = rows
        self.recipe = recipe
        self.run_directory = run_directory(arguments.output)
        self.lengths = columns["summary"].lengths + columns["article"].lengths
        self.progress = Progress()
        self.stop_requested = False

        decayed = [p for n, p in model.named_parameters() if p.ndim == 2 and "embeddings" not in n]
        others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embeddings" in n]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": arguments.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=arguments.lr,
            fused=True,
        )
        self.batch_rows = arguments.batch_size * accelerator.num_processes
        epoch_batches = -(-len(self.rows) // self.batch_rows)
        self.epoch_steps = -(-epoch_batches // arguments.gradient_accumulation_steps)
        self.total_steps = self.epoch_steps * arguments.epochs
        self.scheduler = get_scheduler(
            "linear", optimizer, round(arguments.warmup_ratio * self.total_steps), self.total_steps
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        accelerator.register_for_checkpointing(self.scheduler)

    def load_batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Gather this process's share of the batch of `rows`, an equal number of rows on each process.

        A short last batch is filled up with rows of weight zero.
        """
        size = -(-len(rows) // self.accelerator.num_processes)
        first = self.accelerator.process_index * size
        places = np.arange(first, first + size)
        real = places < len(rows)
        mine = rows[np.minimum(places, len(rows) - 1)]
        batch = {}
        for name, matrix in zip(("summary", "article"), self.vectors, strict=True):
            input_ids, attention_mask = self.columns[name].batch(mine)
            batch[f"{name}_ids"] = torch.from_numpy(input_ids)
            batch[f"{name}_mask"] = torch.from_numpy(attention_mask)
            batch[f"{name}_present"] = torch.from_numpy(real & (attention_mask[:, 0] > 0))
            batch[f"{name}_teacher"] = torch.from_numpy(matrix[mine].astype(np.float32))
        return {key: value.to(self.accelerator.device) for key, value in batch.items()}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the combined loss of the batch of all processes, and its terms, each a scalar."""
        students, targets, present = [], [], []
        for name in ("summary", "article"):
            output = self.model(batch[f"{name}_ids"], batch[f"{name}_mask"])
            students.append(gather_with_gradient(output.sentence_embedding.float(), self.accelerator))
            target = nn.functional.normalize(batch[f"{name}_teacher"] @ self.pca, dim=-1)
            targets.append(self.accelerator.gather(target))
            present.append(self.accelerator.gather(batch[f"{name}_present"]))
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
        for rows in length_bucketed_batches(self.val_rows, self.lengths[self.val_rows], 256, seed=None):
            for name, value in self.loss(self.load_batch(rows)).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows)
        self.model.train()
        return {f"val/{name}": value / len(self.val_rows) for name, value in sums.items()}

    def save_checkpoint(self) -> Path:
        """Save everything that resuming needs; a checkpoint under its final name is whole. The last two stay."""
        directory = self.run_directory / "checkpoints" / f"step-{self.progress.step:08d}"
        temporary = directory.with_name(f".{directory.name}.tmp")
        self.accelerator.save_state(str(temporary))
        if self.accelerator.is_main_process:
            write_json(temporary / "progress.json", dataclasses.asdict(self.progress))
            replace_directory(temporary, directory)
            for old in sorted(directory.parent.glob("step-*"))[:-2]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()
        return directory

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        checkpoints = sorted((self.run_directory / "checkpoints").glob("step-*"))
        if checkpoints:
            self.accelerator.load_state(str(checkpoints[-1]))
            self.progress = Progress(**read_json(checkpoints[-1] / "progress.json"))
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
                        with atomic_path(self.run_directory / "best.safetensors") as temporary:
                            save_file(weights, temporary, metadata={"format": "pt"})
                progress_bar.write(f"epoch {self.progress.epoch}: {describe(metrics)}", file=sys.stdout)
                if self.progress.epoch - self.progress.best_epoch >= self.arguments.patience:
                    progress_bar.write(
                        f"no better for {self.arguments.patience} epochs: stopping", file=sys.stdout
                    )
                    break
        return self.progress.best_metrics

    def train_epoch(self, progress_bar: tqdm) -> None:
        """Train on the rest of the present epoch."""
        arguments, progress = self.arguments, self.progress
        batches = length_bucketed_batches(
            self.rows, self.lengths[self.rows], self.batch_rows, seed=arguments.seed * 1000 + progress.epoch
        )
        started = time.monotonic() - progress.seconds
        for i in range(progress.batch, len(batches)):
            step_now = (i + 1) % arguments.gradient_accumulation_steps == 0 or i + 1 == len(batches)
            with nullcontext() if step_now else self.accelerator.no_sync(self.model):
                terms = self.loss(self.load_batch(batches[i]))
                self.accelerator.backward(terms["loss"])
            if not torch.isfinite(terms["loss"]):
                raise InputError(
                    f"the loss is {terms['loss'].item()} at step {progress.step}, rows {batches[i].tolist()}: "
                    f"lower --lr (now {arguments.lr}); checkpoints lie in {self.run_directory / 'checkpoints'}"
                )
            progress.batch = i + 1
            if not step_now:
                continue
            self.accelerator.clip_grad_norm_(self.model.parameters(), arguments.max_grad_norm)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            progress.step += 1
            progress.seconds = time.monotonic() - started
            progress_bar.update()
            if progress.step % LOG_STEPS == 0:
                values = {f"train/{name}": value.item() for name, value in terms.items()}
                self.log({**values, "lr": self.scheduler.get_last_lr()[0], "seconds": progress.seconds})
                progress_bar.set_postfix(loss=f"{values['train/loss']:.4f}")
            if progress.step % arguments.checkpoint_steps == 0:
                self.save_checkpoint()
            if self.should_stop():
                self.save_checkpoint()
                raise KeyboardInterrupt

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


def describe(metrics: dict[str, float]) -> str:
    """Write validation figures in one line."""
    return ", ".join(f"{name.removeprefix('val/')} {value:.4f}" for name, value in metrics.items())


def make_recipe(arguments: DistillationArguments, data_fingerprint: str, teacher: dict, processes: int) -> dict:
    """Collect all that determines the result: options, data, teacher, code, number of processes."""
    options = dataclasses.asdict(arguments)
    for name in ("pairs", "teacher", "output", "cache", "resume", "checkpoint_steps"):
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
    config = AsteriskConfig(
        embedding_size=arguments.embedding_size or None,
        intermediate_size=arguments.intermediate_size,
        projection_dim=arguments.projection_dim,
    )
    tokenizer_directory = run_directory(arguments.output) / "tokenizer"
    if not tokenizer_directory.exists():
        tokenizer = build_tokenizer(
            arguments.tokenizer, PairTexts(pairs), config.max_position_embeddings, arguments.lowercase
        )
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
    model = AsteriskModel(config)
    if arguments.init_from_teacher:
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
    (arguments,) = HfArgumentParser(
        DistillationArguments, description=__doc__.partition("\n")[0]
    ).parse_args_into_dataclasses()
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

    pairs, data_fingerprint = load_pairs(arguments.pairs)
    *vectors, teacher = load_teacher_vectors(arguments.teacher, data_fingerprint)
    recipe = make_recipe(arguments, data_fingerprint, teacher, accelerator.num_processes)
    with accelerator.main_process_first():
        go_on = prepare_run(arguments.output, recipe, arguments.resume) if accelerator.is_main_process else True
    if not broadcast_object_list([go_on])[0]:
        accelerator.print(f"{arguments.output} is up to date; delete it to train it again")
        return

    rows = split_rows(len(pairs), arguments.val_split, arguments.seed)
    pca = fit_pca(vectors, rows[0], arguments.projection_dim)
    with accelerator.main_process_first():
        model, tokenizer, columns = prepare_student(arguments, pairs, pca, teacher, data_fingerprint)
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    accelerator.init_trackers("")
    trainer = DistillationTrainer(arguments, accelerator, model, columns, tuple(vectors), pca, rows, recipe)
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
        with atomic_directory(arguments.output) as temporary:
            save_sentence_transformer(model, tokenizer, temporary)
            write_json(
                temporary / "training_state.json",
                {
                    "recipe": recipe,
                    "weights": fingerprint(temporary / "model.safetensors"),
                    "teacher": {**teacher, "teacher": public_name(teacher["teacher"])},
                    "data": describe_pairs(arguments.pairs),
                    "rows": {"training": len(rows[0]), "held_out": len(rows[1])},
                    "metrics": metrics,
                    "epochs": trainer.progress.epoch,
                    "best_epoch": trainer.progress.best_epoch,
                    "seconds": round(time.time() - started, 1),
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

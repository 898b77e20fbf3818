"""The training loop: losses over the batch of all processes, validation, checkpoints, early stopping."""

import dataclasses
import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import get_scheduler

from asterisk.data.teacher_vectors import read_rows, release_pages
from asterisk.errors import InputError, first_line
from asterisk.evaluation.metrics import spearman
from asterisk.files import atomic_path, read_json
from asterisk.training.arguments import DistillationArguments
from asterisk.training.batches import TokenColumn, collate, length_bucketed_batches
from asterisk.training.checkpoints import (
    Progress,
    finish_checkpoint,
    format_metrics,
    newest_checkpoint,
    run_directory,
    written_in,
)
from asterisk.training.losses import cosine_loss, gather_with_gradient, info_nce_loss, similarity_loss
from asterisk.training.memory import return_freed_memory
from modeling_asterisk import AsteriskModel

LOG_STEPS, TRIM_STEPS = 20, 4  # giving memory back takes some 10 ms
EVALUATION_BATCH = 256
EVALUATION_TEXTS = 64  # of them at a time through the model
# What a forward and backward pass over one group more costs, in tokens: far more where tokens cost little.
GROUP_COST_CPU, GROUP_COST_CPU_BF16, GROUP_COST_GPU = 64, 512, 16384


@dataclass
class Batch:
    """The part of a batch that one process computes.

    Attributes:
        groups: Texts of like length and padding; see `batches.collate`.
        present: Whether a row has the text of each column, `[2, rows]`.
        teacher: The teacher's vectors, `[2, rows, teacher_dim]`.
    """

    groups: list[list[Tensor]]
    present: Tensor
    teacher: Tensor


def make_optimizer(model: AsteriskModel, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Make AdamW; matrices decay, the tables of tokens and positions, biases and norms do not."""
    decayed = [p for name, p in model.named_parameters() if p.ndim == 2 and "embeddings" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embeddings" in name]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


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
        vectors: Sequence[NDArray[np.float16]],
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

        self.group_cost = GROUP_COST_GPU
        if accelerator.device.type == "cpu":
            self.group_cost = GROUP_COST_CPU_BF16 if accelerator.mixed_precision == "bf16" else GROUP_COST_CPU
        self.batch_rows = arguments.batch_size * accelerator.num_processes
        epoch_batches = -(-len(self.rows) // self.batch_rows)
        self.epoch_steps = -(-epoch_batches // arguments.gradient_accumulation_steps)
        self.total_steps = self.epoch_steps * arguments.epochs
        warmup_steps = round(arguments.warmup_ratio * self.total_steps)
        optimizer = make_optimizer(model, arguments.lr, arguments.weight_decay)
        self.scheduler = get_scheduler("linear", optimizer, warmup_steps, self.total_steps)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def load_batch(self, rows: np.ndarray) -> Batch:
        """Gather this process's share of the batch of `rows`, an equal number of rows on each process.

        A short last batch is filled up with rows of weight zero.
        """
        size = -(-len(rows) // self.accelerator.num_processes)
        first = self.accelerator.process_index * size
        places = np.arange(first, first + size)
        mine = rows[np.minimum(places, len(rows) - 1)]
        present = [(places < len(rows)) & (column.lengths_of(mine) > 0) for column in self.columns.values()]
        vectors = torch.from_numpy(np.stack([read_rows(matrix, mine) for matrix in self.vectors]))
        batch = Batch(
            groups=self.collate(tuple(self.columns.values()), mine),
            present=torch.from_numpy(np.stack(present)).to(self.accelerator.device),
            teacher=vectors.to(self.accelerator.device).float(),
        )
        release_pages(*(column.ids for column in self.columns.values()))
        return batch

    def collate(self, columns: Sequence[TokenColumn], rows: np.ndarray) -> list[list[Tensor]]:
        """Gather texts in groups of like length, on the device; see `batches.collate`."""
        groups = collate(columns, rows, self.group_cost)
        if not torch.is_grad_enabled():  # a large batch of long texts would need more memory than training does
            size = EVALUATION_TEXTS
            groups = [
                (ids[i : i + size], mask[i : i + size], places[i : i + size])
                for ids, mask, places in groups
                for i in range(0, len(ids), size)
            ]
        return [[torch.from_numpy(array).to(self.accelerator.device) for array in group] for group in groups]

    def embed(self, groups: list[list[Tensor]], rows: int) -> Tensor:
        """Embed groups of texts, `[2, rows, dim]`: the texts of the first column, then those of the second."""
        parts = [
            self.model(input_ids, mask).sentence_embedding[: len(places)].float()
            for input_ids, mask, places in groups
        ]
        vectors = parts[0].new_zeros(2 * rows, parts[0].shape[1])
        places = torch.cat([places for *_, places in groups])
        return vectors.index_copy(0, places, torch.cat(parts)).unflatten(0, (2, rows))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the combined loss of the batch of all processes, and its terms, each a scalar."""
        embeddings = self.embed(batch.groups, batch.present.shape[1])
        own_targets = nn.functional.normalize(batch.teacher @ self.pca, dim=-1)
        targets = [self.accelerator.gather(vectors) for vectors in own_targets]
        students = [gather_with_gradient(vectors, self.accelerator) for vectors in embeddings]
        present = [self.accelerator.gather(here) for here in batch.present]
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
        return_freed_memory()  # its batches are the largest
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
            try:
                self.accelerator.load_state(str(checkpoint))
            except Exception as error:  # of several libraries
                raise InputError(f"{checkpoint}: not a checkpoint of this run ({first_line(error)})") from error
            self.progress = Progress(**read_json(checkpoint / "progress.json")["progress"])
            # Registered with Accelerate, the scheduler would come out of a pickle; the step is all of its state.
            self.scheduler.last_epoch = self.progress.step
            self.accelerator.print(f"resuming at step {self.progress.step} of {self.total_steps}")

    def log(self, values: dict[str, float]) -> None:
        """Append one line to metrics.jsonl and to TensorBoard."""
        values = {"step": self.progress.step, **{key: float(f"{value:.6g}") for key, value in values.items()}}
        self.accelerator.log(values, step=self.progress.step)
        if self.accelerator.is_main_process:
            with (self.run_directory / "metrics.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
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
            self.accelerator.print(f"before training: {format_metrics(baseline)}")
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
                progress_bar.write(f"epoch {self.progress.epoch}: {format_metrics(metrics)}", file=sys.stdout)
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
            if progress.step % TRIM_STEPS == 0:
                return_freed_memory()
            if progress.step % LOG_STEPS == 0:
                values = {f"train/{name}": value.item() for name, value in terms.items()}
                self.log({**values, "lr": self.scheduler.get_last_lr()[0], "seconds": progress.seconds})
                progress_bar.set_postfix(loss=f"{values['train/loss']:.4f}")
            if arguments.eval_steps and progress.step % arguments.eval_steps == 0:
                metrics = self.evaluate()
                self.log({**metrics, "seconds": progress.seconds})
                progress_bar.write(f"step {progress.step}: {format_metrics(metrics)}", file=sys.stdout)
                started = time.monotonic() - progress.seconds
            if progress.step % arguments.checkpoint_steps == 0:
                self.save_checkpoint()
            if self.should_stop():
                self.save_checkpoint()
                raise KeyboardInterrupt

    def step(self) -> None:
        """Update the weights from the gradients of the batches so far."""
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.arguments.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.progress.step += 1

    def close(self) -> None:
        """Let go of the wrapped model and what refers to it, while the process group still exists.

        DistributedDataParallel's reducer refers to the group. Destroyed after it, the reducer would drop the last
        reference while it holds the interpreter's lock, and wait for ever for a thread that needs the lock.
        """
        del self.model
        self.accelerator.free_memory()

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

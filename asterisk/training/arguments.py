"""The options of a training run."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asterisk.errors import InputError

COUNTS = ("epochs", "batch_size", "patience", "checkpoint_steps", "gradient_accumulation_steps")
SHARES = ("distill_alpha", "warmup_ratio")


def option(default: Any, text: str) -> Any:
    """Declare a command-line option with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class DistillationArguments:
    """Options of the training command."""

    pairs: Path = option(Path("data/pairs"), "text pairs, from scripts/prepare_data.py")
    teacher_vectors: Path = option(Path("build/teacher"), "their vectors, from scripts/precompute_teacher.py")
    output: Path = option(Path("build/model"), "the SentenceTransformer directory to write")
    cache: Path = option(Path("build/cache"), "tokenised text and the teacher's token vectors")
    tokenizer: str = option(
        "openai-community/gpt2",
        "Hub id or directory, or wordpiece:SIZE or bpe:SIZE to train a vocabulary on the pairs",
    )
    lowercase: bool = option(True, "whether a vocabulary trained on the pairs ignores case")
    embedding_size: int = option(256, "width of the token table; 0 means the full hidden size")
    intermediate_size: int = option(256, "width of the feed-forward layers; those of an initial model only widen")
    projection_dim: int = option(256, "size of the sentence embedding")
    initial_model: Path | None = option(None, "go on from this model's weights, with its tokenizer and PCA map")
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
    eval_steps: int = option(0, "validate every so many optimiser steps, too, not only after each epoch")
    sts_dev: Path | None = option(None, "sentence1, sentence2, score (TSV): correlation to record at validation")
    checkpoint_steps: int = option(500, "optimiser steps between two checkpoints")
    resume: bool = option(False, "go on from the newest checkpoint, if there is one")
    seed: int = option(0, "seed of the split, the order of the batches and the initial weights")

    def __post_init__(self) -> None:
        """Check the ranges."""
        limits: dict[str, tuple[float, float]] = dict.fromkeys(COUNTS, (1.0, math.inf)) | dict.fromkeys(
            SHARES, (0, 1)
        )
        limits |= {"temperature": (1e-6, math.inf), "seed": (0, 2**32 - 1)}
        limits |= {"val_split": (0.001, 0.9), "lr": (1e-12, math.inf), "intermediate_size": (1, math.inf)}
        limits |= {"max_length": (1, 512), "projection_dim": (1, 512), "embedding_size": (0, 512)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                limit = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
                raise InputError(f"--{name} is {getattr(self, name)}: it must be {limit}")
        if self.mixed_precision not in ("auto", "no", "bf16", "fp16"):
            raise InputError(f"--mixed_precision is {self.mixed_precision}: choose auto, no, bf16 or fp16")

"""Copies of a model as other people make them: fine-tuned for a few steps by sentence-transformers, and saved.

python tests/copies.py release/asterisk build/fine_tuned
"""

import argparse
import tempfile
from pathlib import Path

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

PAIRS = {
    "anchor": ["a heron waits", "rain on the roof"] * 8,
    "positive": ["a bird by the water", "a wet house"] * 8,
}


def train(model, loss):
    """Train a SentenceTransformer for two large steps."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            max_steps=2,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
        )
        SentenceTransformerTrainer(model, arguments, train_dataset=Dataset.from_dict(PAIRS), loss=loss).train()


def fine_tune(source: Path, output: Path) -> None:
    """Write a fine-tuned copy of the model in `source` to `output`."""
    model = SentenceTransformer(str(source), trust_remote_code=True, device="cpu")
    train(model, MultipleNegativesRankingLoss(model))
    model.save(str(output))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    fine_tune(**vars(parser.parse_args()))

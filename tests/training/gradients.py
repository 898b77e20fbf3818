"""Losses and gradients of one batch; `gradients.py OUTPUT` writes them, run by one process or several.

The rows, tokens, teacher vectors and weights are invented and the same each time; the last rows lack an article.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.functional import normalize

from asterisk.training.arguments import DistillationArguments
from asterisk.training.batches import TokenColumn
from asterisk.training.trainer import DistillationTrainer
from modeling_asterisk import AsteriskConfig, AsteriskModel

DIM, TEACHER_DIM, VOCABULARY = 16, 24, 200


def make_trainer(output, accelerator, rows, missing, **options):
    """Make a trainer of a tiny model on `rows` rows, those in `missing` without an article."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def column(missing):
        lengths = np.where(np.isin(np.arange(rows), missing), 0, rng.integers(3, 20, rows))
        return TokenColumn(rng.integers(1, VOCABULARY, lengths.sum()).astype(np.int32), np.cumsum([0, *lengths]))

    config = AsteriskConfig(
        vocab_size=VOCABULARY, encoder_hidden_size=32, intermediate_size=32, hidden_size=DIM, embedding_size=DIM
    )
    return DistillationTrainer(
        DistillationArguments(output=output, **options),
        accelerator,
        AsteriskModel(config),
        {"summary": column([]), "article": column(missing)},
        tuple(normalize(torch.randn(rows, TEACHER_DIM)).half().numpy() for _ in range(2)),
        np.linalg.qr(rng.normal(size=(TEACHER_DIM, DIM)))[0].astype(np.float32),
        (np.arange(rows), np.arange(rows)),
    )


def collect(accelerator, output):
    """Return loss terms, gradients and validation figures of an even and of an odd number of rows."""
    found = {}
    for rows in (64, 63):
        options = {"distill_alpha": 0.6, "similarity_weight": 3.0}
        trainer = make_trainer(output, accelerator, rows, range(rows - 5, rows), **options)
        terms = trainer.loss(trainer.load_batch(np.arange(rows)))
        accelerator.backward(terms["loss"] * accelerator.num_processes)
        model = accelerator.unwrap_model(trainer.model)
        found |= {f"{rows} {name}": p.grad.numpy() for name, p in model.named_parameters()}
        found |= {f"{rows} {name}": term.detach().numpy() for name, term in terms.items()}
        found |= {f"{rows} {name}": np.array(value) for name, value in trainer.evaluate().items()}
        accelerator.wait_for_everyone()
        trainer.close()
    return found


def main():
    output, accelerator = Path(sys.argv[1]), Accelerator(cpu=True)
    found = collect(accelerator, output.with_name("model"))
    if accelerator.is_main_process:
        np.savez(output, **found, processes=accelerator.num_processes)
    accelerator.end_training()


if __name__ == "__main__":
    main()

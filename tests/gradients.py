"""Write the loss and the gradients of one batch: `python tests/gradients.py OUTPUT`, by one process or several.

The rows, tokens, teacher vectors and weights are invented and the same each time; the last rows lack an article.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.nn.functional import normalize

from asterisk.training_data import TokenColumn
from modeling_asterisk import AsteriskConfig, AsteriskModel
from train_accelerate import DistillationArguments, DistillationTrainer

BATCH, DIM, TEACHER_DIM, VOCABULARY = 64, 16, 24, 200


def column(rng, rows, missing):
    lengths = np.where(np.arange(rows) < rows - missing, rng.integers(3, 20, rows), 0)
    return TokenColumn(rng.integers(1, VOCABULARY, lengths.sum()).astype(np.int32), np.cumsum([0, *lengths]))


def main() -> None:
    output, rows = Path(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = AsteriskConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, projection_dim=DIM, embedding_size=DIM
    )
    trainer = DistillationTrainer(
        DistillationArguments(output=output, distill_alpha=0.6, similarity_weight=3.0),
        Accelerator(cpu=True),
        AsteriskModel(config),
        {"summary": column(rng, rows, 0), "article": column(rng, rows, 5)},
        tuple(normalize(torch.randn(rows, TEACHER_DIM)).half().numpy() for _ in range(2)),
        np.linalg.qr(rng.normal(size=(TEACHER_DIM, DIM)))[0].astype(np.float32),
        (np.arange(rows), np.arange(rows)),
    )
    terms = trainer.loss(trainer.load_batch(np.arange(rows)))
    trainer.accelerator.backward(terms["loss"] * trainer.accelerator.num_processes)
    model = trainer.accelerator.unwrap_model(trainer.model)
    gradients = {name: p.grad.to_dense().contiguous() for name, p in model.named_parameters()}
    validation = {f"validation {name}": torch.tensor(value) for name, value in trainer.evaluate().items()}
    if trainer.accelerator.is_main_process:
        processes = torch.tensor(trainer.accelerator.num_processes)
        save_file(
            {**gradients, **{k: v.detach() for k, v in terms.items()}, **validation, "processes": processes},
            output,
        )
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # a process group left open may abort the process at its exit


if __name__ == "__main__":
    main()

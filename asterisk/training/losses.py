"""The loss terms, and how they see the batch of all processes."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn


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


def gather_with_gradient(tensor: Tensor, accelerator: Accelerator) -> Tensor:
    """Concatenate a tensor over all processes along its first dimension; gradients flow to this process's part.

    Every process then computes the same loss of the whole batch, and its gradient for its own texts. Their sum
    is the gradient of that loss; DistributedDataParallel averages, so the loss is multiplied by the processes.
    """
    if accelerator.num_processes == 1:
        return tensor
    parts = list(accelerator.gather(tensor.detach()).chunk(accelerator.num_processes))
    parts[accelerator.process_index] = tensor
    return torch.cat(parts)

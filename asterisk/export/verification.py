"""Whether an ONNX file gives the vectors of PyTorch, alone and in a batch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FP32_TOLERANCE = 1e-4
INT8_COSINE = 0.99
# Of a text alone to the same in a padded batch of others: what differs is the rounding of fp32.
INVARIANCE_COSINE = 0.9999999


def run_onnx(session: onnxruntime.InferenceSession, batch: list[list[int]], padding: int = 0) -> np.ndarray:
    """Embed token sequences as one batch, with `padding` further columns of padding: `[batch, dim]`."""
    width = max(map(len, batch)) + padding
    input_ids = np.array([ids + [0] * (width - len(ids)) for ids in batch])
    attention_mask = np.array([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch])
    return session.run(["sentence_embedding"], {"input_ids": input_ids, "attention_mask": attention_mask})[0]


def smallest_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Return the smallest cosine between the rows of two matrices `[texts, dim]`."""
    first, second = (
        vectors / np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None] for vectors in (first, second)
    )
    return float((first * second).sum(axis=1).min())


def verify(
    path: Path, token_ids: list[list[int]], reference: np.ndarray, fp32: bool, invariant: bool = True
) -> dict[str, Any]:
    """Read an ONNX file again and compare it with PyTorch.

    Args:
        path: The file.
        token_ids: Token sequences of mixed length.
        reference: PyTorch's vectors of them, `[texts, dim]`.
        fp32: Whether the values must agree, or only the directions.
        invariant: Whether a text must have the same vector alone and in a batch.

    Returns:
        Size in bytes, largest difference and smallest cosine to PyTorch, smallest cosine between a text
        alone and the same text in a padded batch of others.

    Raises:
        SystemExit: With code 1, if the file gives other vectors.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    alone = np.concatenate([run_onnx(session, [ids]) for ids in token_ids])
    together = np.concatenate(
        [run_onnx(session, token_ids[i : i + 32], padding=7) for i in range(0, len(token_ids), 32)]
    )
    report = {
        "bytes": path.stat().st_size,
        "max_difference": float(np.abs(alone - reference).max()),
        "min_cosine": smallest_cosine(alone, reference),
        "min_cosine_batched": smallest_cosine(alone, together),
    }
    agrees = report["max_difference"] <= FP32_TOLERANCE if fp32 else report["min_cosine"] >= INT8_COSINE
    agrees &= not invariant or report["min_cosine_batched"] >= INVARIANCE_COSINE
    if not (agrees and np.isfinite(run_onnx(session, [[]], padding=4)).all()):
        raise SystemExit(f"error: {path.name} does not give the vectors of PyTorch: {report}")
    return report

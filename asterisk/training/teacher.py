"""The teacher: any SentenceTransformer, and how it embeds texts fast."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from asterisk.evaluation.models import load_sentence_transformer
from asterisk.files import fingerprint
from asterisk.hub import find_model


def load_teacher(teacher_model: str, device: str | None = None) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Load the teacher, a directory, a package or a Hub id.

    Returns:
        The model, and what identifies it: its name, its Hub revision (None for a directory) and the
        fingerprint of its weights.

    Raises:
        FileNotFoundError: If it cannot be found.
        InputError: If it is not a SentenceTransformer.
    """
    model = load_sentence_transformer(teacher_model, device, trust_remote_code=False)
    directory = find_model(teacher_model, ("*.safetensors",))
    return model, {
        "teacher": teacher_model,
        "revision": directory.name if "snapshots" in directory.parts else None,
        "teacher_fingerprint": fingerprint(*sorted(directory.rglob("*.safetensors"))),
    }


def cast_linear_layers(model: SentenceTransformer) -> None:
    """Cast the weights of linear layers to bfloat16, for autocast, which would do it again for every batch."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)


def encode_in_token_batches(
    model: SentenceTransformer, texts: list[str], batch_tokens: int
) -> NDArray[np.float32]:
    """Embed texts, sorted by length, in batches of about `batch_tokens` tokens, padding included.

    Batches of a fixed number of texts are too small to be efficient where texts are short, and overflow the caches
    where they are long.

    Args:
        model: Any SentenceTransformer.
        texts: The texts, `[texts]`.
        batch_tokens: Tokens in a batch; a longer text is a batch of its own.

    Returns:
        L2-normalised vectors, `[texts, dim]` float32, in the order of the texts.
    """
    tokens = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(texts))
    order = np.argsort(lengths, kind="stable")
    vectors = np.zeros((len(texts), model.get_embedding_dimension() or 0), dtype=np.float32)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= batch_tokens:
            stop += 1
        batch = order[start:stop]
        vectors[batch] = model.encode(
            [texts[i] for i in batch], batch_size=len(batch), normalize_embeddings=True, show_progress_bar=False
        )
        start = stop
    return vectors

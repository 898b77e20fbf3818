"""The student before its first step: tokenizer, tokenised text, initial weights."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from safetensors import SafetensorError
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from asterisk.data.pairs import PairTexts
from asterisk.errors import InputError, first_line
from asterisk.files import atomic_directory, atomic_path, fingerprint
from asterisk.training.arguments import DistillationArguments
from asterisk.training.batches import TokenColumn, tokenize_pairs
from asterisk.training.checkpoints import run_directory
from asterisk.training.saving import save_tokenizer
from asterisk.training.teacher import encode_in_token_batches, load_teacher
from asterisk.training.tokenization import build_tokenizer, token_texts
from modeling_asterisk import AsteriskConfig, AsteriskModel

SIF_A = 1e-3  # `a` of smooth inverse frequency: tokens rarer than this share of the text keep their length


def teacher_token_vectors(tokenizer: PreTrainedTokenizerFast, teacher: str, path: Path, device: str) -> np.ndarray:
    """Embed each vocabulary entry with the teacher, `[vocab_size, teacher_dim]` float16, kept in `path`."""
    texts = token_texts(tokenizer)
    try:
        vectors = np.load(path)
    except (OSError, ValueError):  # not there yet, or damaged
        vectors = np.zeros(0)
    if len(vectors) != len(texts):
        model, _ = load_teacher(teacher, device)
        batch = 4096
        parts = [
            encode_in_token_batches(model, texts[i : i + batch], 1024)
            for i in tqdm(range(0, len(texts), batch), desc="vocabulary through the teacher", unit_scale=batch)
        ]
        vectors = np.concatenate(parts).astype(np.float16)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, vectors)
    return vectors


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
    vectors *= model.config.encoder_hidden_size**0.5
    hidden_size, dim = (
        model.config.encoder_hidden_size,
        min(vectors.shape[1], model.config.embedding_size or 10**9),
    )
    basis = nn.init.orthogonal_(torch.empty(hidden_size, hidden_size))
    with torch.no_grad():
        if model.config.embedding_size:
            model.token_embeddings.weight.zero_()
            model.token_embeddings.weight[:, :dim] = vectors[:, :dim]
            model.embedding_projection.load_state_dict({"weight": basis[:, : model.config.embedding_size]})
        else:
            model.token_embeddings.weight.copy_(vectors @ basis[:, :dim].T)
        model.projection.weight.copy_(basis[:, : model.config.hidden_size].T)


def fill_untrained_positions(model: AsteriskModel, trained: int) -> None:
    """Give the positions from `trained` on, which no text has reached, the mean of the later half of the others.

    Near zero, as they were initialised, they would take the tokens of long texts away from what the layers know.
    """
    with torch.no_grad():
        positions = model.position_embeddings.weight
        positions[trained:] = positions[trained // 2 : trained].mean(0)


def widen_feed_forward(model: AsteriskModel, size: int) -> AsteriskModel:
    """Return a trained model with feed-forward layers of `size` units, more than it has; it computes the same.

    What the new units read is random, what they write is zero until training changes it (compare Chen et al. 2016,
    "Net2Net", arXiv:1511.05641).
    """
    wide = AsteriskModel(AsteriskConfig(**{**model.config.to_dict(), "intermediate_size": size}))
    state = wide.state_dict()  # its tensors are the model's own
    for name, weights in model.state_dict().items():
        if name.endswith("feed_forward_output.weight"):
            state[name].zero_()
            state[name][:, : weights.shape[1]] = weights
        else:
            state[name][: len(weights)] = weights
    return wide


def prepare_student(
    arguments: DistillationArguments,
    pairs: Dataset,
    pca: np.ndarray,
    teacher: dict[str, Any],
    data_fingerprint: str,
) -> tuple[AsteriskModel, PreTrainedTokenizerFast, dict[str, TokenColumn]]:
    """Make the tokenizer and the initial model, and tokenise the pairs; what a cache holds is not made again."""
    initial = arguments.initial_model
    config = AsteriskConfig(
        embedding_size=arguments.embedding_size or None,
        intermediate_size=arguments.intermediate_size,
        hidden_size=arguments.projection_dim,
    )
    tokenizer_directory = run_directory(arguments.output) / "tokenizer"
    if not tokenizer_directory.exists():
        name = str(initial or arguments.tokenizer)
        tokenizer = build_tokenizer(name, PairTexts(pairs), config.max_position_embeddings, arguments.lowercase)
        with atomic_directory(tokenizer_directory) as temporary:
            save_tokenizer(tokenizer, temporary)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_directory)
    key = fingerprint(tokenizer_directory / "tokenizer.json")
    columns = tokenize_pairs(
        pairs,
        tokenizer.backend_tokenizer,
        arguments.max_length,
        arguments.cache / f"tokens-{data_fingerprint}-{key}-{arguments.max_length}",
        progress=PartialState().is_main_process,
    )
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    try:
        model = AsteriskModel.from_pretrained(initial) if initial else AsteriskModel(config)
    except SafetensorError as error:
        raise InputError(f"{initial}/model.safetensors: damaged ({first_line(error)})") from error
    if model.config.intermediate_size < arguments.intermediate_size:
        model = widen_feed_forward(model, arguments.intermediate_size)
    if arguments.init_from_teacher and not initial:
        token_vectors = teacher_token_vectors(
            tokenizer,
            teacher["teacher"],
            arguments.cache / f"token_vectors-{teacher['teacher_fingerprint']}-{key}.npy",
            str(PartialState().device),
        )
        counts = np.sum([np.bincount(c.ids, minlength=len(tokenizer)) for c in columns.values()], axis=0)
        initialise_from_teacher(model, token_vectors.astype(np.float32) @ pca, counts)
    return model, tokenizer, columns

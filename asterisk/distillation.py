"""What the student learns, where it starts and how it is updated: loss terms, PCA map, token table, optimisers."""

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from asterisk.console import InputError, atomic_path
from asterisk.tokenization import token_texts
from asterisk.training_data import encode_in_token_batches, load_teacher_model, release_pages
from modeling_asterisk import AsteriskModel

PCA_FILE = "teacher_pca.npy"  # beside a model's weights
SIF_A = 1e-3  # `a` of smooth inverse frequency: tokens rarer than this share of the text keep their length


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


def fit_pca(vectors: list[np.ndarray], rows: np.ndarray, dim: int) -> np.ndarray:
    """Fit the map from the teacher's space to the student's, `[teacher_dim, dim]` float32.

    Its orthonormal columns are the leading eigenvectors of the second-moment matrix (not centred: a shift
    would change the cosines), largest first, so that the first k dimensions of a mapped vector are its best k.

    Args:
        vectors: Teacher matrices, each `[rows, teacher_dim]`, read in blocks.
        rows: Row numbers to fit on.
        dim: Size of the student's embedding, at most `teacher_dim`.

    Raises:
        InputError: If the teacher has fewer dimensions than the student, or its vectors are not finite.
    """
    teacher_dim = vectors[0].shape[1]
    if teacher_dim < dim:
        raise InputError(
            f"the teacher has {teacher_dim} dimensions, the student {dim}: choose a smaller --projection_dim"
        )
    moment = np.zeros((teacher_dim, teacher_dim))
    for matrix in vectors:
        for start in range(0, len(rows), 8192):
            block = matrix[rows[start : start + 8192]].astype(np.float32)
            moment += block.T @ block
            release_pages(matrix)
    if not np.isfinite(moment).all():
        raise InputError("the teacher's vectors hold NaN or infinity; run scripts/precompute_teacher.py again")
    basis = np.linalg.eigh(moment)[1][:, ::-1][:, :dim]
    # An eigenvector's sign is arbitrary; fixing it makes the map a function of the data alone.
    return (basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(dim)])).astype(np.float32)


def load_pca(model: Path, teacher_dim: int) -> np.ndarray:
    """Read the map from the teacher's space to a trained model's, `[teacher_dim, dim]` float32.

    Raises:
        InputError: If the model has none, or its teacher had another number of dimensions.
    """
    path = model / PCA_FILE
    try:
        pca = np.load(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); choose a model that was trained here") from error
    if len(pca) != teacher_dim:
        raise InputError(f"{path}: its teacher had {len(pca)} dimensions, not {teacher_dim}; use the same teacher")
    return pca


def teacher_token_vectors(tokenizer: PreTrainedTokenizerFast, teacher: str, path: Path, device: str) -> np.ndarray:
    """Embed each vocabulary entry with the teacher, `[vocab_size, teacher_dim]` float16, kept in `path`."""
    texts = token_texts(tokenizer)
    try:
        vectors = np.load(path)
    except (OSError, ValueError):  # not there yet, or damaged
        vectors = np.zeros(0)
    if len(vectors) != len(texts):
        model, _ = load_teacher_model(teacher, device)
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


def fill_untrained_positions(model: AsteriskModel, trained: int) -> None:
    """Give the positions from `trained` on, which no text has reached, the mean of the later half of the others.

    Near zero, as they were initialised, they would take the tokens of long texts away from what the layers know.
    """
    with torch.no_grad():
        positions = model.position_embeddings.weight
        positions[trained:] = positions[trained // 2 : trained].mean(0)


def make_optimizers(model: AsteriskModel, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Make AdamW for the model, and for a sparsely updated token table an Adam of its own.

    Of a table of tens of thousands of rows a batch holds some hundreds. SparseAdam updates these rows, and their
    moments, only: "lazy" Adam, whose cost does not grow with the vocabulary.
    """
    table = model.token_embeddings
    dense = [(n, p) for n, p in model.named_parameters() if not (table.sparse and p is table.weight)]
    decayed = [p for n, p in dense if p.ndim == 2 and "embeddings" not in n]
    others = [p for n, p in dense if p.ndim != 2 or "embeddings" in n]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=lr, fused=True)]
    if table.sparse:
        optimizers.append(torch.optim.SparseAdam([table.weight], lr=lr))
    return optimizers

"""Embed texts with an exported model: tokenizers, ONNX Runtime and NumPy, nothing else."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sized
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from asterisk.errors import InputError, first_line
from asterisk.files import fingerprint, read_json
from asterisk.hub import find_model

if TYPE_CHECKING:
    from tqdm import tqdm

EXPORT_STATE = "onnx/export_state.json"
BLOCK = 8192
# The tokens of a text beyond the limit come from its beginning; a book need not be tokenised for them.
LONG_TEXT = 20_000
SURROGATE = re.compile("[\ud800-\udfff]")


def beginning(text: str) -> str:
    """Cut a very long text behind a word."""
    return text if len(text) <= LONG_TEXT else text[:LONG_TEXT].rsplit(None, 1)[0]


class AsteriskEncoder:
    """Embeds texts on the CPU; one encoder may serve many threads.

    Args:
        name: A model directory or a Hub id.
        file_name: Which ONNX file to use, relative to the directory.
        threads: Threads of ONNX Runtime; 0 means all cores.

    Raises:
        FileNotFoundError: If the directory lacks the tokenizer or the ONNX file, or the Hub does not answer.
        ValueError: If a file is damaged or is not one of an Asterisk model.

    Example:
        >>> encoder = AsteriskEncoder("release/asterisk")
        >>> encoder.encode(["a cat sat on the mat", "the stock market fell"]).shape
        (2, 256)
    """

    def __init__(self, name: str, file_name: str = "onnx/model_quantized.onnx", threads: int = 0) -> None:
        directory = find_model(name, ("tokenizer.json", "config.json", file_name, EXPORT_STATE))
        for file in ("tokenizer.json", file_name):
            if not (directory / file).is_file():
                raise FileNotFoundError(f"{directory / file}: no such file; an exported Asterisk model has it")
        self.directory, self.file_name, self.threads = directory, file_name, threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        file = "tokenizer.json"
        try:
            self.tokenizer = Tokenizer.from_file(str(directory / file))
            file = file_name
            self.session = onnxruntime.InferenceSession(
                str(directory / file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # both libraries raise classes of their own
            raise InputError(f"{directory / file}: damaged ({first_line(error)})") from error
        shapes = {output.name: output.shape for output in self.session.get_outputs()}
        if "sentence_embedding" not in shapes:
            raise InputError(f"{directory / file_name}: lacks the output sentence_embedding; export it again")
        self.dim = shapes["sentence_embedding"][1]
        self.tokenizer.no_padding()
        # The limit is one of the model. The tokenizer's file may have lost it, or keep that of some earlier use.
        config = directory / "config.json"
        self.max_length = read_json(config).get("max_position_embeddings", 0)
        if not self.max_length:
            raise InputError(f"{config}: missing or damaged; it says how many tokens the model takes")
        self.tokenizer.enable_truncation(self.max_length)
        self.warn_if_stale()

    def __reduce__(self) -> tuple[type[AsteriskEncoder], tuple[str, str, int]]:
        """Let copies, and processes that the encoder is sent to, open the files again."""
        return type(self), (str(self.directory), self.file_name, self.threads)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that tell this model's vectors from those of others."""
        return fingerprint(self.directory / self.file_name, self.directory / "tokenizer.json")

    def warn_if_stale(self) -> None:
        """Warn if the ONNX file was exported from other weights than those beside it."""
        state, weights = self.directory / EXPORT_STATE, self.directory / "model.safetensors"
        # Hashing the weights would take as long as opening the model; most have not been touched since the export.
        if not (state.is_file() and weights.is_file() and weights.stat().st_mtime > state.stat().st_mtime):
            return
        if read_json(state).get("recipe", {}).get("model") != fingerprint(
            weights, self.directory / "tokenizer.json"
        ):
            warnings.warn(
                f"{self.directory / self.file_name} was exported from other weights than model.safetensors: "
                "export it again",
                stacklevel=3,
            )

    def encode(
        self,
        sentences: str | Iterable[str],
        batch_size: int = 32,
        truncate_dim: int | None = None,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Embed one text or many, sorted by length into batches that need little padding.

        Texts are drawn in blocks: those of a generator need not fit into memory, only their vectors.

        Args:
            sentences: A text, or any iterable of texts.
            batch_size: Texts in a batch.
            truncate_dim: Keep the first so many dimensions, normalised again; all if None.
            show_progress_bar: Whether to show rate and time left.

        Returns:
            Unit vectors in float32: `[dim]` for one text, else `[texts, dim]`, in the order given.

        Raises:
            TypeError: If a sentence is not a string.
            ValueError: If `batch_size` or `truncate_dim` is less than 1, or a sentence holds a lone surrogate.
        """
        if isinstance(sentences, str):
            return self.encode([sentences], batch_size, truncate_dim)[0]
        if batch_size < 1 or (truncate_dim is not None and truncate_dim < 1):
            raise ValueError(f"batch_size ({batch_size}) and truncate_dim ({truncate_dim}) must be 1 or more")
        if isinstance(sentences, bytes) or not isinstance(sentences, Iterable):
            raise TypeError(f"sentences is a {type(sentences).__name__}, not a string or an iterable of strings")
        progress = None
        if show_progress_bar:
            from tqdm import tqdm  # a tenth of the time from the start of a process to its first vector

            progress = tqdm(total=len(sentences) if isinstance(sentences, Sized) else None, unit=" texts")
        texts = iter(sentences)
        blocks = [np.zeros((0, self.dim), dtype=np.float32)]
        while block := list(islice(texts, BLOCK)):
            for row, text in enumerate(block, start=sum(map(len, blocks))):
                if not isinstance(text, str):
                    raise TypeError(f"sentence {row} is a {type(text).__name__}, not a string")
                if not text.isascii() and SURROGATE.search(text):
                    raise ValueError(f"sentence {row} holds half of a surrogate pair, which is no character")
            blocks.append(self.embed_block(block, batch_size, progress))
        if progress is not None:
            progress.close()
        vectors = np.concatenate(blocks)
        if truncate_dim is not None:
            vectors = vectors[:, :truncate_dim]
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def embed_block(self, texts: list[str], batch_size: int, progress: tqdm | None) -> np.ndarray:
        """Embed texts that fit into memory, in batches of like length: `[texts, dim]`."""
        encodings = self.tokenizer.encode_batch_fast([beginning(text) for text in texts])
        for row, text in enumerate(texts):
            if len(text) > LONG_TEXT and len(encodings[row]) < self.max_length:
                encodings[row] = self.tokenizer.encode(text)
        order = np.argsort([-len(encoding) for encoding in encodings], kind="stable")
        vectors = []
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            vectors.append(self.embed_tokens([encodings[row].ids for row in rows]))
            if progress is not None:
                progress.update(len(rows))
        return np.concatenate(vectors)[np.argsort(order)]

    def embed_tokens(self, token_ids: list[list[int]]) -> np.ndarray:
        """Embed one batch of token sequences, padded to the longest: `[batch, dim]`."""
        input_ids = np.zeros((len(token_ids), max(map(len, token_ids))), dtype=np.int64)
        attention_mask = np.zeros_like(input_ids)
        for row, ids in enumerate(token_ids):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        return self.session.run(["sentence_embedding"], inputs)[0]

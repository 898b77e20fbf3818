"""Models to evaluate, in each of their forms.

sentence-transformers is imported where it is used: that takes seconds, which a process with an ONNX file need not
spend.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asterisk import AsteriskEncoder
from asterisk.errors import InputError, first_line
from asterisk.files import read_json
from asterisk.hub import find_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.py")
ONNX_FORMS = {"onnx_fp32": "onnx/model.onnx", "onnx_int8": "onnx/model_quantized.onnx"}
FORM_NAMES = {"pytorch": "PyTorch", "onnx_fp32": "ONNX fp32", "onnx_int8": "INT8 ONNX"}
Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Form:
    """One way to run a model: its files, tokenizer.json first and then the weights, and what loads it."""

    files: tuple[Path, ...]
    load: Callable[[], Encode]

    @property
    def megabytes(self) -> float:
        """Size of the files, in 10^6 bytes."""
        return sum(file.stat().st_size for file in self.files) / 1e6


def load_sentence_transformer(
    name: str, device: str | None = "cpu", trust_remote_code: bool = True
) -> SentenceTransformer:
    """Load a SentenceTransformer from a directory, a package or the Hub, its weights from safetensors only.

    Raises:
        FileNotFoundError: If there is none of that name.
        InputError: If it does not load.
    """
    from sentence_transformers import SentenceTransformer

    directory = find_model(name, MODEL_FILES)
    try:
        model: SentenceTransformer = SentenceTransformer(
            str(directory),
            device=device,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # safetensors, tokenizers and a model's own code raise classes of their own
        raise InputError(f"{name}: not a SentenceTransformer that loads ({first_line(error)})") from error
    return model


def load_pytorch(model: str) -> Encode:
    """Load a model with sentence-transformers; many texts have a progress bar."""
    encoder = load_sentence_transformer(model)
    return lambda texts: encoder.encode(texts, show_progress_bar=len(texts) > 5000, convert_to_numpy=True)


def load_onnx(directory: Path, file: str, threads: int) -> Encode:
    """Load an ONNX file of a model directory."""
    return AsteriskEncoder(str(directory), file, threads).encode


def load_forms(model: str, threads: int = 0) -> dict[str, Form]:
    """List the forms of a model; those of an Asterisk model in ONNX even if it has not been exported.

    Args:
        model: Directory, package or Hub id.
        threads: Threads of ONNX Runtime; 0 means all cores.

    Raises:
        FileNotFoundError: If there is no such model.
        InputError: If it lacks tokenizer.json or safetensors.
    """
    directory = find_model(model, MODEL_FILES)
    tokenizer, weights = directory / "tokenizer.json", sorted(directory.rglob("*.safetensors"))
    if not weights or not tokenizer.is_file():
        raise InputError(f"{model}: no SentenceTransformer with tokenizer.json and safetensors")
    forms = {"pytorch": Form((tokenizer, *weights), partial(load_pytorch, model))}
    if read_json(directory / "config.json").get("model_type") == "asterisk":
        find_model(
            model, tuple(ONNX_FORMS.values())
        )  # on the Hub, many a teacher has ONNX files that are not wanted
        for form, file in ONNX_FORMS.items():
            forms[form] = Form((tokenizer, directory / file), partial(load_onnx, directory, file, threads))
    return forms


def count_parameters(*files: Path) -> tuple[int, int]:
    """Return the number of parameters in safetensors files, and of those in the encoder layers."""
    from safetensors import safe_open

    sizes = {}
    for file in files:
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no dict)
                sizes[file, name] = math.prod(weights.get_slice(name).get_shape())
    return sum(sizes.values()), sum(size for (_, name), size in sizes.items() if name.startswith("layers."))

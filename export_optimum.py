"""Export a trained model to verified ONNX files: `build/model` -> `build/model/onnx/*.onnx`.

    python export_optimum.py --model build/model

Writes model.onnx (fp32, its weights stored in float16) and model_quantized.onnx (INT8, asterisk/int8_graph.py),
the latter also under the names that sentence-transformers looks for: one INT8 file serves every processor. Every
graph has the inputs input_ids and attention_mask and the outputs last_hidden_state and sentence_embedding.

A file is written only after ONNX Runtime has given the vectors of PyTorch with it, on real text.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxslim
import torch
from datasets import Dataset
from optimum.exporters.onnx import export
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.utils import NormalizedTextConfig
from torch import nn
from transformers import AutoTokenizer

from asterisk import int8_graph
from asterisk.console import InputError, atomic_directory, fingerprint, read_json, run, write_json
from asterisk.tokenization import first_line
from asterisk.training_data import PairTexts, load_pairs, split_rows
from modeling_asterisk import AsteriskModel

FP32_TOLERANCE = 1e-4
SMALL_TENSOR = 1024
INT8_COSINE = 0.99
# Of a text alone to the same in a padded batch of others: what differs is the rounding of fp32.
INVARIANCE_COSINE = 0.9999999
# The first is what transformers.js and AsteriskEncoder load.
INT8_FILES = (
    "model_quantized.onnx",
    "model_qint8_avx512_vnni.onnx",
    "model_qint8_arm64.onnx",
    "model_quint8_avx2.onnx",
)


class AsteriskOnnxConfig(TextEncoderOnnxConfig):
    """Tells Optimum's exporter the inputs and outputs of `AsteriskModel`."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DEFAULT_ONNX_OPSET = int8_graph.OPSET

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names and dynamic axes of the inputs."""
        axes = {0: "batch_size", 1: "sequence_length"}
        return {"input_ids": axes, "attention_mask": axes}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Names and dynamic axes of the outputs, in the order that every client expects."""
        return {
            "last_hidden_state": {0: "batch_size", 1: "sequence_length"},
            "sentence_embedding": {0: "batch_size"},
        }


def calibrate(model: AsteriskModel, token_ids: list[list[int]]) -> dict[str, tuple[float, float]]:
    """Return the least and the largest input of each linear layer over token sequences, by the layer's name."""
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[torch.Tensor]], None]:
        def note(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, inputs[0].min().item()), max(high, inputs[0].max().item())

        return note

    linear = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linear]
    with torch.no_grad():
        for ids in token_ids:
            model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return ranges


def build_int8(
    model: AsteriskModel, calibration: list[list[int]], weight_limit: int = int8_graph.WEIGHT_LIMIT
) -> onnx.ModelProto:
    """Build the INT8 form of a model, its activation ranges calibrated on token sequences."""
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    heads, epsilon = model.config.num_attention_heads, model.config.layer_norm_eps
    return int8_graph.build(weights, calibrate(model, calibration), heads, epsilon, weight_limit)


def store_halved(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Keep the large weights of a graph in float16, each with a cast to float32 that is done once, at loading.

    Loses nothing where the weights come from a float16 file, as `model.safetensors` is.
    """
    for tensor in [tensor for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]:
        weights = onnx.numpy_helper.to_array(tensor)
        if weights.size < SMALL_TENSOR:
            continue
        name = f"{tensor.name}_float16"
        graph.graph.node.insert(0, onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT))
        graph.graph.initializer.append(onnx.numpy_helper.from_array(weights.astype(np.float16), name))
        graph.graph.initializer.remove(tensor)
    return graph


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


def verify(path: Path, token_ids: list[list[int]], reference: np.ndarray, fp32: bool) -> dict:
    """Read an ONNX file again and compare it with PyTorch.

    Args:
        path: The file.
        token_ids: Token sequences of mixed length.
        reference: PyTorch's vectors of them, `[texts, dim]`.
        fp32: Whether the values must agree, or only the directions.

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
    invariant = report["min_cosine_batched"] >= INVARIANCE_COSINE
    if not (agrees and invariant and np.isfinite(run_onnx(session, [[]], padding=4)).all()):
        print(f"error: {path.name} does not give the vectors of PyTorch: {report}", file=sys.stderr)
        sys.exit(1)
    return report


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("build/model"), help="directory of the trained model")
    parser.add_argument(
        "--pairs", type=Path, default=Path("data/pairs"), help="text pairs to calibrate and verify with"
    )
    parser.add_argument("--calibration_texts", type=int, default=512, help="texts that set the activation ranges")
    parser.add_argument("--verification_texts", type=int, default=256, help="other texts to compare on")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of texts")
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    started = time.monotonic()
    if min(arguments.calibration_texts, arguments.verification_texts) < 1:
        raise InputError("--calibration_texts and --verification_texts must be 1 or more")
    if not (arguments.model / "model.safetensors").is_file():
        raise InputError(f"{arguments.model}: no model.safetensors here; train a model with train_accelerate.py")
    pairs, data_fingerprint = load_pairs(arguments.pairs)
    recipe = {
        "model": fingerprint(arguments.model / "model.safetensors", arguments.model / "tokenizer.json"),
        "data": data_fingerprint,
        "texts": [arguments.calibration_texts, arguments.verification_texts, arguments.seed],
        "code": fingerprint(Path(__file__), Path(int8_graph.__file__)),
    }
    directory = arguments.model / "onnx"
    state = read_json(directory / "export_state.json")
    if state.get("recipe") == recipe and all(
        (directory / name).is_file() and (directory / name).stat().st_size == report["bytes"]
        for name, report in state["files"].items()
    ):
        print(f"{directory} is up to date")
        return

    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # the length check cannot be traced
    try:
        model = AsteriskModel.from_pretrained(arguments.model).eval()
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    except Exception as error:  # safetensors and tokenizers raise classes of their own
        raise InputError(
            f"{arguments.model}: damaged ({first_line(error)}); delete it and train it again"
        ) from error
    texts = choose_texts(pairs, arguments)
    token_ids = tokenizer(texts, truncation=True, max_length=model.config.max_position_embeddings)["input_ids"]
    # Of few texts, a third is left for verification.
    calibrating = min(arguments.calibration_texts, len(token_ids) * 2 // 3)
    calibration, verification = token_ids[:calibrating], token_ids[calibrating:]
    with torch.no_grad():
        reference = np.concatenate([model(torch.tensor([ids])).sentence_embedding.numpy() for ids in verification])

    files = {}
    with atomic_directory(directory) as temporary, tempfile.TemporaryDirectory() as scratch:
        export(model, AsteriskOnnxConfig(model.config, task="feature-extraction"), Path(scratch, "raw.onnx"))
        fp32_path = temporary / "model.onnx"
        onnx.save(store_halved(onnxslim.slim(str(Path(scratch, "raw.onnx")))), fp32_path)
        files["model.onnx"] = verify(fp32_path, verification, reference, fp32=True)

        graph = build_int8(model, calibration)
        for name in INT8_FILES:
            onnx.save(graph, temporary / name)
        files |= dict.fromkeys(INT8_FILES, verify(temporary / INT8_FILES[0], verification, reference, fp32=False))
        seconds = round(time.monotonic() - started, 1)
        write_json(temporary / "export_state.json", {"recipe": recipe, "files": files, "seconds": seconds})
    for name, report in files.items():
        print(
            f"{directory / name}: {report['bytes'] / 1e6:.1f} MB, to PyTorch: largest difference "
            f"{report['max_difference']:.1e}, worst cosine {report['min_cosine']:.5f}; "
            f"alone or in a batch: worst cosine {report['min_cosine_batched']:.8f}"
        )
    print(f"{directory}: {len(files)} files ({seconds} s)")


def choose_texts(pairs: Dataset, arguments: argparse.Namespace) -> list[str]:
    """Choose distinct texts of mixed length at random, the empty text and a very long one among the last."""
    wanted = arguments.calibration_texts + arguments.verification_texts
    _, rows = split_rows(len(pairs), min(0.5, wanted / len(pairs)), arguments.seed)
    texts = list(dict.fromkeys(PairTexts(pairs.select(rows))))
    np.random.default_rng(arguments.seed).shuffle(texts)
    return [*texts[: wanted - 2], "", " ".join(texts[:64])]


if __name__ == "__main__":
    run(main)

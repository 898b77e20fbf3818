"""Export a trained model to verified ONNX files: `build/model` -> `build/model/onnx/*.onnx`.

    python export_optimum.py --model build/model

Writes model.onnx (fp32, simplified) and INT8 files under the names that sentence-transformers and
transformers.js look for. Every graph has the inputs input_ids and attention_mask and the outputs
last_hidden_state and sentence_embedding. Notable choices:

- Activation ranges are fixed in advance, calibrated on real text. Ranges taken at run time over a whole
  batch, the usual dynamic quantisation, make a text's vector depend on the other texts and on padding.
- The products with weights inside the layers are quantised. Attention scores stay in fp32, and so do the
  projections before and after the layers: a twelfth of the work, but token vectors of frequent and of rare
  words differ too much in length for one range.
- Token and position tables, most of the download, are INT8 with a scale for each row.

A file is written only after ONNX Runtime has given the vectors of PyTorch with it, on real text.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxslim
import torch
from datasets import Dataset
from onnx import TensorProto, helper, numpy_helper
from optimum.exporters.onnx import export
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig, QuantizationConfig
from optimum.utils import NormalizedTextConfig
from tqdm import tqdm
from transformers import AutoTokenizer

from asterisk.console import InputError, atomic_directory, fingerprint, read_json, run, write_json
from asterisk.tokenization import first_line
from asterisk.training_data import PairTexts, load_pairs, split_rows
from modeling_asterisk import AsteriskModel

OPSET = 17
FP32_TOLERANCE = 1e-4
INT8_COSINE = 0.99
# Alone or in a batch, fp32 rounds differently, and may tip an INT8 activation to its neighbour.
INVARIANCE_COSINE = {"fp32": 0.99999, "int8": 0.9999}
# The last is what transformers.js and AsteriskEncoder load: unsigned weights, exact on every processor.
INT8_FILES = {
    "model_qint8_avx512_vnni.onnx": AutoQuantizationConfig.avx512_vnni,
    "model_qint8_arm64.onnx": AutoQuantizationConfig.arm64,
    "model_quint8_avx2.onnx": AutoQuantizationConfig.avx2,
    "model_quantized.onnx": AutoQuantizationConfig.avx2,
}


class AsteriskOnnxConfig(TextEncoderOnnxConfig):
    """Tells Optimum's exporter the inputs and outputs of `AsteriskModel`."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DEFAULT_ONNX_OPSET = OPSET

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


def quantize_tables(model: onnx.ModelProto) -> None:
    """Replace each embedding table that is looked up by row with INT8 rows and a scale for each, in place."""
    tables = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or len(table.dims) != 2 or table.data_type != TensorProto.FLOAT:
            nodes.append(node)
            continue
        rows = numpy_helper.to_array(table)
        scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / 127, 1e-12).astype(np.float32)
        model.graph.initializer.remove(table)
        model.graph.initializer.append(
            numpy_helper.from_array(np.rint(rows / scales).astype(np.int8), f"{table.name}_int8")
        )
        model.graph.initializer.append(numpy_helper.from_array(scales, f"{table.name}_scale"))
        indices, rows_int8, rows_float, rows_scale = (
            node.input[1],
            *(f"{table.name}_rows_{part}" for part in ("int8", "float", "scale")),
        )
        nodes += [
            helper.make_node("Gather", [f"{table.name}_int8", indices], [rows_int8]),
            helper.make_node("Cast", [rows_int8], [rows_float], to=TensorProto.FLOAT),
            helper.make_node("Gather", [f"{table.name}_scale", indices], [rows_scale]),
            helper.make_node("Mul", [rows_float, rows_scale], list(node.output)),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def products_to_keep(path: Path) -> list[str]:
    """Return the names of the matrix products that stay in fp32: attention's, and the first and the last."""
    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul"
        and (not constants.intersection(node.input) or not node.name.startswith("/layers"))
    ]


def quantize(quantizer: ORTQuantizer, path: Path, configuration: QuantizationConfig, ranges: dict) -> None:
    """Write an INT8 form of the quantizer's model to `path`, with the calibrated activation `ranges`."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        quantizer.quantize(configuration, scratch, file_suffix="", calibration_tensors_range=ranges)
        model = onnx.load(Path(scratch, quantizer.onnx_model_path.name))
    quantize_tables(model)
    onnx.save(model, path)


def run_onnx(session: onnxruntime.InferenceSession, batch: list[list[int]], padding: int = 0) -> np.ndarray:
    """Embed token sequences as one batch, with `padding` further columns of padding: `[batch, dim]`."""
    width = max(map(len, batch)) + padding
    input_ids = np.array([ids + [0] * (width - len(ids)) for ids in batch])
    attention_mask = np.array([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch])
    return session.run(["sentence_embedding"], {"input_ids": input_ids, "attention_mask": attention_mask})[0]


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
        "min_cosine": float(np.einsum("ij,ij->i", alone, reference, dtype=np.float64).min()),
        "min_cosine_batched": float(np.einsum("ij,ij->i", alone, together, dtype=np.float64).min()),
    }
    agrees = report["max_difference"] <= FP32_TOLERANCE if fp32 else report["min_cosine"] >= INT8_COSINE
    invariant = report["min_cosine_batched"] >= INVARIANCE_COSINE["fp32" if fp32 else "int8"]
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
        "code": fingerprint(Path(__file__)),
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
        onnx.save(onnxslim.slim(str(Path(scratch, "raw.onnx"))), fp32_path)
        files["model.onnx"] = verify(fp32_path, verification, reference, fp32=True)

        options = {
            "is_static": True,
            "per_channel": True,
            "operators_to_quantize": ["MatMul"],
            "nodes_to_exclude": products_to_keep(fp32_path),
        }
        samples = Dataset.from_list([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in calibration])
        quantizer = ORTQuantizer(fp32_path, model.config)
        ranges = quantizer.fit(
            samples,
            AutoCalibrationConfig.minmax(samples),
            onnx_augmented_model_name=Path(scratch, "augmented_model.onnx"),
            operators_to_quantize=["MatMul"],
        )
        for name, make_configuration in tqdm(INT8_FILES.items(), desc="INT8 files", unit=" files"):
            quantize(quantizer, temporary / name, make_configuration(**options), ranges)
            files[name] = verify(temporary / name, verification, reference, fp32=False)
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

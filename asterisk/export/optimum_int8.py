"""INT8 files through Optimum's `ORTQuantizer`: static, QDQ, under sentence-transformers' names for processors.

Every tensor gets one range, calibrated on text, and MatMul and Gather are quantised. What does not bear one range:

- The token table. Rows of frequent words are short, and would keep few of 255 steps: each row is divided by its
  largest number, which is multiplied back behind the projection of the table.
- That product, therefore, and the input of the last projection, which was never normalised.
- Shares of attention: over some hundred tokens most of them are below half a step of 1/255.

Weights have seven bits and a scale for each column; int8_graph.py says why.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxslim
from datasets import Dataset
from onnx import helper, numpy_helper
from onnxruntime.quantization.calibrate import TensorData
from optimum.onnxruntime import AutoCalibrationConfig, AutoQuantizationConfig, ORTQuantizer
from transformers import PretrainedConfig

from asterisk.export import PROCESSOR_FILES, PROCESSORS
from asterisk.export.fp32 import store_halved

OPERATORS = ["MatMul", "Gather"]
TABLE = "token_embeddings.weight"
TABLE_LOOKUP, TABLE_PROJECTION = "/token_embeddings/Gather", "/embedding_projection/MatMul"
TOKEN_SCALES, SCALE_LOOKUP = "token_scales", "/token_scales/Gather"
LAST_PROJECTION = "/projection/MatMul"
Ranges = dict[str, list[float]]


def prepare(fp32: Path) -> onnx.ModelProto:
    """Read an fp32 graph, and divide each row of its token table by its largest number, to be multiplied back.

    The product with that number comes behind the projection of the table, where there is one.
    """
    model = onnxslim.slim(str(fp32))  # with the weights' casts from float16 done
    graph = model.graph
    table = next(tensor for tensor in graph.initializer if tensor.name == TABLE)
    rows = numpy_helper.to_array(table)
    scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    table.CopyFrom(numpy_helper.from_array(rows / scales, TABLE))
    graph.initializer.append(numpy_helper.from_array(scales, TOKEN_SCALES))
    names = [node.name for node in graph.node]
    place = names.index(TABLE_PROJECTION if TABLE_PROJECTION in names else TABLE_LOOKUP)
    (output,) = graph.node[place].output
    scaled, scale = f"{output}_scaled", f"{output}_scale"
    graph.node[place].output[0] = scaled
    graph.node.insert(place + 1, helper.make_node("Gather", [TOKEN_SCALES, "input_ids"], [scale], SCALE_LOOKUP))
    graph.node.insert(place + 2, helper.make_node("Mul", [scaled, scale], [output]))
    return model


def nodes_in_floating_point(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that do not bear one range for each tensor."""
    nodes = model.graph.node
    shares = {node.output[0] for node in nodes if node.op_type == "Softmax"}
    means = [node.name for node in nodes if node.op_type == "MatMul" and node.input[0] in shares]
    return [SCALE_LOOKUP, TABLE_PROJECTION, *means, LAST_PROJECTION]


@contextmanager
def quantizer_of(model: onnx.ModelProto) -> Iterator[tuple[ORTQuantizer, Path]]:
    """Make a quantizer of a graph, which takes a file, and a directory for what it writes."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "model.onnx")
        onnx.save(model, path)
        yield ORTQuantizer(path, PretrainedConfig()), Path(scratch)


def fit(model: onnx.ModelProto, token_ids: list[list[int]]) -> Ranges:
    """Return the least and the largest number in each tensor of a graph, by its name, over token sequences."""
    texts = Dataset.from_dict({"input_ids": token_ids, "attention_mask": [[1] * len(ids) for ids in token_ids]})
    with quantizer_of(model) as (quantizer, scratch):
        found = quantizer.fit(texts, AutoCalibrationConfig.minmax(texts), scratch / "ranges.onnx", OPERATORS)
    return {name: [limit.item() for limit in tensor.range_value] for name, tensor in sorted(found.items())}


def quantize(model: onnx.ModelProto, ranges: Ranges, excluded: list[str], processor: str, path: Path) -> None:
    """Quantise a graph for one of `PROCESSORS`, but for the nodes named in `excluded`."""
    configure = getattr(AutoQuantizationConfig, processor.partition("_")[2])
    configuration = configure(
        is_static=True, per_channel=True, operators_to_quantize=OPERATORS, nodes_to_exclude=excluded
    )
    configuration.reduce_range = True  # not every processor's function takes it as an argument
    limits = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()
    }
    with quantizer_of(model) as (quantizer, scratch):
        quantizer.quantize(configuration, scratch, processor, limits)
        onnx.save(store_halved(onnx.load(scratch / f"model_{processor}.onnx")), path)


def quantize_for_processors(fp32: Path, ranges: Ranges, directory: Path) -> None:
    """Write `PROCESSOR_FILES` into a directory, from the fp32 file and the ranges found in its prepared graph."""
    model = prepare(fp32)
    for processor, name in zip(PROCESSORS, PROCESSOR_FILES, strict=True):
        quantize(model, ranges, nodes_in_floating_point(model), processor, directory / name)

"""The fp32 graph, through Optimum's exporter."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxslim
import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedTextConfig

from asterisk.export import int8_graph
from modeling_asterisk import AsteriskModel

SMALL_TENSOR = 1024


@TasksManager.create_register("onnx", overwrite_existing=True)("asterisk", "feature-extraction")
class AsteriskOnnxConfig(TextEncoderOnnxConfig):
    """Tells Optimum's exporter the inputs and outputs of `AsteriskModel`.

    Importing this module registers it, so that Optimum and sentence-transformers export Asterisk models, too.
    """

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


def export_fp32(model: AsteriskModel, path: Path, halved: bool) -> None:
    """Write the fp32 graph of a model, simplified, its large weights stored in float16 if `halved`."""
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # the length check cannot be traced
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch, "raw.onnx")
        export(model, AsteriskOnnxConfig(model.config, task="feature-extraction"), raw)
        graph = onnxslim.slim(str(raw))
        onnx.save(store_halved(graph) if halved else graph, path)

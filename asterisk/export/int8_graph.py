"""The INT8 form of the model: an ONNX graph, built operator by operator from PyTorch's weights.

What it is built for, in this order: a text's vector does not depend on the other texts of its batch; it is close
to PyTorch's, on every processor; it is fast.

- Activation ranges are fixed in advance. Ranges taken at run time over a whole batch, the usual dynamic
  quantisation, make a text's vector depend on its neighbours and on padding.
- Weights have seven bits and a scale for each column. Without VNNI, x86 adds products in pairs into 16 bits, where
  two of an 8-bit activation and an 8-bit weight overflow (onnxruntime issue 5644); 7-bit weights cannot.
- What is rounded to integers is computed in an order that padding does not change, or else a last bit would tip
  now and then a number to its neighbour. ONNX Runtime's fp32 products split sums over more than 128 terms at
  places that depend on the width of the matrix, so attention scores are sums of 128 products each; and the
  denominator of softmax is a matrix product, too, which adds terms one after the other, padding last.
- Queries, keys and values share one rounded input, and each head has matrices of its own: nothing is transposed or
  split. Products with weights add scale and bias in one operator (`com.microsoft.MatMulIntegerToFloat`).
- Attention stays in fp32.
- Measured, and no faster: one product for queries, keys and values of all heads, split afterwards, and
  `SkipLayerNormalization`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
MICROSOFT = "com.microsoft"
WEIGHT_LIMIT = 63
SCORE_TERMS = 128
MASKED = -1e4
Range = tuple[float, float]


class Int8Graph:
    """Collects the operators and constants of a graph; each method returns the name of its result.

    Args:
        weights: PyTorch's parameters by name.
        ranges: Least and largest input of each linear layer, by its name.
        weight_limit: Largest absolute value of a rounded weight.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], ranges: Mapping[str, Range], weight_limit: int) -> None:
        self.weights = weights
        self.ranges = ranges
        self.weight_limit = weight_limit
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, value: ArrayLike, dtype: type | None = None, name: str | None = None) -> str:
        """Add a constant, or find the one of that name."""
        name = name or f"constant_{len(self.constants)}"
        if name not in self.constants:
            array = np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value))
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str) -> str:
        """Add a parameter as it is."""
        return self.constant(self.weights[name], np.float32, name)

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add an operator with one output."""
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def activation_scale(self, layer: str) -> tuple[np.float32, np.uint8]:
        """Return scale and zero point of a linear layer's input."""
        low, high = self.ranges[layer]
        scale = np.float32(max(high - low, 1e-6) / 255)
        return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))

    def quantize(self, values: str, layer: str) -> str:
        """Round the input of a linear layer to 8 bits."""
        scale, zero_point = self.activation_scale(layer)
        return self.add("QuantizeLinear", values, self.constant(scale), self.constant(zero_point))

    def product(
        self,
        values: str,
        scale: float,
        zero_point: int,
        weight: np.ndarray,
        bias: np.ndarray | None,
        output: str | None = None,
    ) -> str:
        """Multiply 8-bit `values` with `weight` `[inputs, outputs]`, rounded, and add the bias: fp32."""
        scales = np.maximum(np.abs(weight).max(axis=0) / self.weight_limit, 1e-12)
        inputs = [
            values,
            self.constant(np.rint(weight / scales), np.int8),
            self.constant(scale, np.float32),
            self.constant(scales, np.float32),
            self.constant(zero_point, np.uint8),
        ]
        if bias is not None:
            inputs += ["", self.constant(bias, np.float32)]
        return self.add("MatMulIntegerToFloat", *inputs, output=output, domain=MICROSOFT)

    def linear(
        self,
        values: str,
        layer: str,
        columns: slice = slice(None),
        factor: float = 1.0,
        output: str | None = None,
    ) -> str:
        """Apply a linear layer, or some of its outputs, to its quantised input; times `factor`."""
        weight, bias = self.weights[f"{layer}.weight"].T * factor, self.weights[f"{layer}.bias"] * factor
        scale, zero_point = self.activation_scale(layer)
        return self.product(values, float(scale), int(zero_point), weight[:, columns], bias[columns], output)

    def norm(self, values: str, layer: str, epsilon: float) -> str:
        """Apply layer normalisation."""
        weight, bias = self.weight(f"{layer}.weight"), self.weight(f"{layer}.bias")
        return self.add("LayerNormalization", values, weight, bias, epsilon=epsilon)

    def embed(self, mask: str) -> str:
        """Sum token vectors and position vectors, `[batch, sequence, hidden_size]`.

        The token table is 8-bit rows with a scale each; rows times the rounded projection are exact integers.
        """
        table = self.weights["token_embeddings.weight"]
        scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, 1e-12)
        rows = self.constant(np.rint(table / scales) + 128, np.uint8, "token_embeddings")
        tokens = self.add("Gather", rows, "input_ids")
        scale = self.add("Gather", self.constant(scales, np.float32, "token_embeddings_scale"), "input_ids")
        if "embedding_projection.weight" in self.weights:
            tokens = self.product(tokens, 1.0, 128, self.weights["embedding_projection.weight"].T, None)
        else:
            tokens = self.add(
                "DequantizeLinear", tokens, self.constant(1, np.float32), self.constant(128, np.uint8)
            )
        tokens = self.add("Mul", tokens, scale)

        table = self.weights["position_embeddings.weight"]
        position_scale = max(np.abs(table).max() / 127, 1e-12)
        rows = self.constant(np.rint(table / position_scale), np.int8, "position_embeddings")
        one, zero = self.constant(1, np.int32), self.constant(0, np.int32)
        # Counted over real tokens, as in PyTorch.
        counted = self.add("CumSum", self.add("Cast", mask, to=TensorProto.INT32), self.constant(1, np.int64))
        places = self.add("Max", self.add("Sub", counted, one), zero)
        positions = self.add("Gather", rows, places)
        return self.add(
            "Add", tokens, self.add("DequantizeLinear", positions, self.constant(position_scale, np.float32))
        )

    def attention(self, values: str, layer: str, head: slice, bias: str, ones: str) -> str:
        """Attend with one head: `[batch, sequence, hidden_size]` to `[batch, sequence, head_size]`."""
        size = head.stop - head.start
        scores = bias
        for start in range(head.start, head.stop, SCORE_TERMS):
            part = slice(start, min(start + SCORE_TERMS, head.stop))
            query = self.linear(values, f"{layer}.query", part, size**-0.5)
            key = self.add("Transpose", self.linear(values, f"{layer}.key", part), perm=[0, 2, 1])
            scores = self.add("Add", self.add("MatMul", query, key), scores)
        largest = self.add("ReduceMax", scores, axes=[-1])
        shares = self.add("Exp", self.add("Sub", scores, largest))
        totals = self.add("MatMul", shares, ones)
        # The second of two equal columns: the product with a single one would be summed in another order.
        ends = (self.constant([value], np.int64) for value in (1, 2, 2))
        total = self.add("Slice", totals, *ends)
        value = self.linear(values, f"{layer}.value", head)
        return self.add("Div", self.add("MatMul", shares, value), total)

    def model(self, axes: list[str], outputs: dict[str, list[str | int]]) -> onnx.ModelProto:
        """Return the finished model; `axes` are those of its inputs, `outputs` the shapes of its results."""
        graph = helper.make_graph(
            self.nodes,
            "asterisk",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, axes)
                for name in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            list(self.constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def build(
    weights: Mapping[str, np.ndarray],
    ranges: Mapping[str, Range],
    heads: int,
    epsilon: float,
    weight_limit: int = WEIGHT_LIMIT,
) -> onnx.ModelProto:
    """Build the INT8 form of an `AsteriskModel`.

    Args:
        weights: Its parameters by name, fp32.
        ranges: Least and largest input of each of its linear layers, by the layer's name; 0 lies between them.
        heads: Number of attention heads.
        epsilon: That of layer normalisation.
        weight_limit: Largest absolute value of a rounded weight.
    """
    graph = Int8Graph(weights, ranges, weight_limit)
    add, constant = graph.add, graph.constant
    mask = add("Cast", "attention_mask", to=TensorProto.FLOAT)
    row_mask = add("Unsqueeze", mask, constant([1], np.int64))
    bias = add("Mul", add("Sub", constant(1, np.float32), row_mask), constant(MASKED, np.float32))
    ones = add("Unsqueeze", add("Max", mask, constant(1, np.float32)), constant([2], np.int64))
    ones = add("Expand", ones, constant([1, 1, 2], np.int64))
    hidden_states = graph.embed("attention_mask")
    hidden_size = weights["position_embeddings.weight"].shape[1]
    head_size = hidden_size // heads
    layers = sum(name.endswith(".attention_norm.weight") for name in weights)
    for layer in (f"layers.{i}" for i in range(layers)):
        normed = graph.quantize(graph.norm(hidden_states, f"{layer}.attention_norm", epsilon), f"{layer}.query")
        parts = [
            graph.attention(normed, layer, slice(start, start + head_size), bias, ones)
            for start in range(0, hidden_size, head_size)
        ]
        context = graph.quantize(add("Concat", *parts, axis=2), f"{layer}.attention_output")
        hidden_states = add("Add", hidden_states, graph.linear(context, f"{layer}.attention_output"))
        normed = graph.quantize(
            graph.norm(hidden_states, f"{layer}.feed_forward_norm", epsilon), f"{layer}.intermediate"
        )
        inner = add("Gelu", graph.linear(normed, f"{layer}.intermediate"), domain=MICROSOFT)
        inner = graph.quantize(inner, f"{layer}.feed_forward_output")
        hidden_states = add("Add", hidden_states, graph.linear(inner, f"{layer}.feed_forward_output"))
    last = graph.linear(graph.quantize(hidden_states, "projection"), "projection", output="last_hidden_state")
    total = add("Squeeze", add("MatMul", row_mask, last), constant([1], np.int64))
    length = add("Max", add("ReduceL2", total, axes=[1]), constant(1e-12, np.float32))
    add("Div", total, length, output="sentence_embedding")
    size = len(weights["projection.bias"])
    axes = ["batch_size", "sequence_length"]
    return graph.model(axes, {"last_hidden_state": [*axes, size], "sentence_embedding": [axes[0], size]})

"""How near an INT8 graph is to its bare matrix products: what `scripts/benchmark.py` adds to its table."""

import itertools
import timeit
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxruntime import InferenceSession, SessionOptions

# A Cortex-A72 has no dot-product instructions: NEON widens to 16 bits and multiplies and adds 4 numbers a cycle.
PI_4_HERTZ, PI_4_MACS_PER_CYCLE, PI_4_SHARE_OF_PEAK = 1.5e9, 4, 0.5
SHAPES = ((1, 12), (1, 32), (1, 128), (32, 32))
ROUNDS = 20


def measure_products(file: Path, threads: int) -> list[dict]:
    """Compare an INT8 graph with its bare matrix products, the same shapes in the same order and nothing else.

    Args:
        file: An ONNX file from asterisk/int8_graph.py.
        threads: Threads of ONNX Runtime.

    Returns:
        For each batch of texts: multiply-adds with weights, seconds of the graph and of its products.
    """
    graph = onnx.load(file).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    weights = [constants[node.input[1]] for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    widths = sorted({weight.dims[0] for weight in weights})
    nodes = [
        helper.make_node("MatMulInteger", [f"input_{weight.dims[0]}", weight.name], [f"output_{row}"])
        for row, weight in enumerate(weights)
    ]
    inputs = [
        helper.make_tensor_value_info(f"input_{width}", TensorProto.UINT8, ["rows", width]) for width in widths
    ]
    outputs = [
        helper.make_tensor_value_info(node.output[0], TensorProto.INT32, ["rows", weight.dims[1]])
        for node, weight in zip(nodes, weights, strict=True)
    ]
    products = helper.make_model(
        helper.make_graph(nodes, "products", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    options = SessionOptions()
    options.intra_op_num_threads = threads
    sessions = [InferenceSession(model, options) for model in (str(file), products.SerializeToString())]
    rng = np.random.default_rng(0)
    figures = []
    for texts, tokens in SHAPES:
        ids = rng.integers(0, constants["token_embeddings"].dims[0], (texts, tokens))
        feeds = [
            {"input_ids": ids, "attention_mask": np.ones_like(ids)},
            {f"input_{width}": rng.integers(0, 255, (ids.size, width), dtype=np.uint8) for width in widths},
        ]
        runs = [partial(session.run, None, feed) for session, feed in zip(sessions, feeds, strict=True)]
        calls = max(3, 3000 // ids.size)
        seconds = [[], []]
        for _, turn in itertools.product(range(ROUNDS), range(2)):
            seconds[turn].append(timeit.timeit(runs[turn], number=calls) / calls)
        whole, bare = np.median(seconds, axis=1).tolist()
        macs = ids.size * sum(int(np.prod(weight.dims)) for weight in weights)
        figures.append({"texts": texts, "tokens": tokens, "macs": macs, "seconds": whole, "bare_seconds": bare})
    return figures


def render_products(rows: list[dict]) -> str:
    """Lay out what `measure_products` returned as a Markdown table."""
    lines = ["| texts x tokens | ms | bare products, ms | share | G multiply-adds/s, bare | G multiply-adds/s |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        whole, bare, macs = row["seconds"], row["bare_seconds"], row["macs"] / 1e9
        times = f"{1000 * whole:.2f} | {1000 * bare:.2f} | {100 * bare / whole:.0f} %"
        lines.append(f"| {row['texts']} x {row['tokens']} | {times} | {macs / bare:.0f} | {macs / whole:.0f} |")
    rate = PI_4_HERTZ * PI_4_MACS_PER_CYCLE * PI_4_SHARE_OF_PEAK
    times = ", ".join(
        f"{1000 * row['macs'] / rate:.0f} ms for {row['tokens']}" for row in rows if row["texts"] == 1
    )
    lines += [
        "",
        "Estimate, not measured, for one core of a Raspberry Pi 4: "
        f"{PI_4_HERTZ / 1e9} GHz x {PI_4_MACS_PER_CYCLE} multiply-adds a cycle x {PI_4_SHARE_OF_PEAK} of that in "
        f"practice = {rate / 1e9:.0f} G multiply-adds a second; one text of so many tokens: {times}.",
    ]
    return "\n".join(lines)

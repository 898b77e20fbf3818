"""Compare an INT8 graph with its bare matrix products: how near it is to what ONNX Runtime reaches on a processor.

    python scripts/benchmarks/matrix_products.py release/asterisk

The graph, and a graph of nothing but its INT8 matrix products, of the same shapes in the same order, are timed
with one thread and with all cores, without tokenisation. They take turns, each turn in a fresh process: in one
process, the idle threads of one session wait for work in a busy loop, and slow the other by a third.

Writes `<output>/matrix_products.md` and `matrix_products.json`.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxruntime import InferenceSession, SessionOptions
from tqdm import tqdm

from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import machine_facts, run_fresh, write_report
from asterisk.evaluation.models import ONNX_FORMS
from asterisk.evaluation.results import markdown_table

# A Cortex-A72 has no dot-product instructions: NEON widens to 16 bits and multiplies and adds 4 numbers a cycle.
PI_4_HERTZ, PI_4_MACS_PER_CYCLE, PI_4_SHARE_OF_PEAK = 1.5e9, 4, 0.5
SHAPES = ((1, 12), (1, 32), (1, 128), (32, 32))
SECONDS = 0.3  # of warm-up, and then of measurement, for each shape


def product_weights(file: Path) -> list[TensorProto]:
    """Return the weights of the INT8 matrix products of a graph, in their order."""
    graph = onnx.load(file).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    return [constants[node.input[1]] for node in graph.node if node.op_type == "MatMulIntegerToFloat"]


def bare_products(weights: list[TensorProto]) -> bytes:
    """Build the graph of nothing but matrix products with these weights."""
    nodes = [
        helper.make_node("MatMulInteger", [f"input_{weight.dims[0]}", weight.name], [f"output_{row}"])
        for row, weight in enumerate(weights)
    ]
    inputs = [
        helper.make_tensor_value_info(f"input_{width}", TensorProto.UINT8, ["rows", width])
        for width in sorted({weight.dims[0] for weight in weights})
    ]
    outputs = [
        helper.make_tensor_value_info(node.output[0], TensorProto.INT32, ["rows", weight.dims[1]])
        for node, weight in zip(nodes, weights, strict=True)
    ]
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def time_graph(model: str | bytes, threads: int) -> list[float]:
    """Return the median seconds of a call for each of `SHAPES`, after a warm-up."""
    options = SessionOptions()
    options.intra_op_num_threads = threads
    session = InferenceSession(model, options)
    rng = np.random.default_rng(0)
    medians = []
    for shape in SHAPES:
        feed: dict[str, np.ndarray] = {}
        for entry in session.get_inputs():
            if entry.type == "tensor(uint8)":
                feed[entry.name] = rng.integers(0, 255, (np.prod(shape), entry.shape[1]), dtype=np.uint8)
            else:
                feed[entry.name] = (
                    np.ones(shape, np.int64) if "mask" in entry.name else rng.integers(3, 300, shape)
                )
        outputs = ["sentence_embedding"] if "input_ids" in feed else None
        clock = [time.perf_counter()]
        while clock[-1] < clock[0] + 2 * SECONDS:
            session.run(outputs, feed)
            clock.append(time.perf_counter())
        warm = np.searchsorted(clock, clock[0] + SECONDS)
        medians.append(float(np.median(np.diff(clock[warm - 1 :]))))
    return medians


def measure(model: Path, threads: int, rounds: int) -> list[dict]:
    """Return, for each shape, multiply-adds with weights, and seconds of the graph and of its bare products."""
    macs = sum(int(np.prod(weight.dims)) for weight in product_weights(model / ONNX_FORMS["onnx_int8"]))
    command = [__file__, str(model), f"--threads={threads}"]
    seconds = [
        [run_fresh([*command, f"--part={part}"]) for part in ("graph", "products")]
        for _ in tqdm(range(rounds), desc=f"threads: {threads}", unit=" rounds")
    ]
    whole, bare = np.median(seconds, axis=0).tolist()
    return [
        {
            "threads": threads,
            "texts": texts,
            "tokens": tokens,
            "macs": texts * tokens * macs,
            "seconds": whole[row],
            "bare_seconds": bare[row],
        }
        for row, (texts, tokens) in enumerate(SHAPES)
    ]


def render(figures: list[dict]) -> str:
    """Lay out the figures as a Markdown table, with an estimate for a Raspberry Pi below."""
    rows = []
    for row in figures:
        seconds, macs = (row["seconds"], row["bare_seconds"]), row["macs"] / 1e9
        whole, bare = (f"{1000 * value:.2f}" for value in seconds)
        speeds = (f"{macs / value:.0f}" for value in seconds)
        share = f"{100 * seconds[1] / seconds[0]:.0f} %"
        rows.append([f"{row['texts']} x {row['tokens']}", row["threads"], whole, bare, share, *speeds])
    header = [
        "texts x tokens",
        "threads",
        "ms",
        "bare products, ms",
        "share",
        "G multiply-adds/s",
        "of bare products",
    ]
    table = markdown_table(header, rows)
    rate = PI_4_HERTZ * PI_4_MACS_PER_CYCLE * PI_4_SHARE_OF_PEAK
    macs = {row["tokens"]: row["macs"] for row in figures if row["texts"] == 1}
    times = ", ".join(f"{1000 * number / rate:.0f} ms for {tokens}" for tokens, number in macs.items())
    return (
        f"{table}\n\nEstimate, not measured, for one core of a Raspberry Pi 4: {PI_4_HERTZ / 1e9} GHz x "
        f"{PI_4_MACS_PER_CYCLE} multiply-adds a cycle x {PI_4_SHARE_OF_PEAK} of that in practice = "
        f"{rate / 1e9:.0f} G multiply-adds a second; one text of so many tokens: {times}."
    )


def main() -> None:
    """Measure with one thread and with all cores, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("model", nargs="?", type=Path, default=Path("release/asterisk"), help="directory of an exported model")
    add("--threads", type=int, default=0, help="CPU threads; 0 measures with one and then with all cores")
    add("--rounds", type=int, default=5, help="fresh processes for each figure")
    add("--output", type=Path, default=Path("build/results"), help="directory of the results")
    add("--part", choices=["graph", "products"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    file = arguments.model / ONNX_FORMS["onnx_int8"]
    if not file.is_file():
        raise InputError(f"{file}: no such file; export the model with export_optimum.py")
    if arguments.part:
        model = str(file) if arguments.part == "graph" else bare_products(product_weights(file))
        print(json.dumps(time_graph(model, arguments.threads)))
        return
    counts = [arguments.threads] if arguments.threads else sorted({1, os.cpu_count() or 1})
    figures = [row for threads in counts for row in measure(arguments.model, threads, arguments.rounds)]
    facts = {"model": arguments.model.resolve().name} | machine_facts(0) | {"threads": counts}
    write_report(arguments.output / "matrix_products", "Matrix products", render(figures), figures, facts)


if __name__ == "__main__":
    run(main)

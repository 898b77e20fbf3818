"""Compare ways to quantise an exported model: `build/model/onnx/model.onnx` -> `<results>/quantization.{md,json}`.

    python scripts/benchmarks/quantization.py release/asterisk --data_dir DIRECTORY

Each scheme is made anew from the fp32 file and measured on the same real texts, through `AsteriskEncoder`:

- Quality: STS-B dev and SICK-R trial, as Spearman correlation in percent, and the smallest cosine of a text's
  vector to that of the fp32 file.
- Invariance: the smallest cosine between the vector of a text alone and that of the same text in a batch of 64;
  and how many texts keep their nearest neighbour.
- Speed: one text of 16 tokens, and texts of natural length in batches of 32, relative to the first scheme below
  fp32, which is what `quantize_dynamic` of ONNX Runtime gives. The schemes take turns.
"""

import argparse
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxslim
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from tqdm import tqdm

from asterisk import AsteriskEncoder
from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import machine_facts, sample_texts, text_of_tokens, time_calls, write_report
from asterisk.evaluation.results import markdown_table
from asterisk.evaluation.tables import load_scored_pairs
from asterisk.evaluation.tasks import Similarity
from asterisk.export.calibration import build_int8
from asterisk.export.int8_graph import WEIGHT_LIMIT
from asterisk.export.verification import smallest_cosine
from modeling_asterisk import AsteriskModel

CALIBRATION_TEXTS = 256
INVARIANCE_TEXTS = 1000
BATCH = 64
ROUNDS = 7
SENTENCES = {"STS-B dev": "stsb.dev.tsv", "SICK-R trial": "sickr.trial.tsv"}


@dataclass
class Source:
    """What a scheme starts from: the model, its fp32 file, and token sequences to calibrate with."""

    model: AsteriskModel
    fp32: Path
    calibration: list[list[int]]

    def weight_products(self) -> list[str]:
        """Return the names of the matrix products with weights inside the layers."""
        graph = onnx.load(self.fp32).graph
        constants = {tensor.name for tensor in graph.initializer}
        products = (node for node in graph.node if node.op_type == "MatMul" and constants.intersection(node.input))
        return [node.name for node in products if node.name.startswith("/layers")]


class CalibrationReader(CalibrationDataReader):
    """Hands the calibration texts to ONNX Runtime, one at a time."""

    def __init__(self, token_ids: list[list[int]]) -> None:
        self.rows = iter(token_ids)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the inputs of the next text; None after the last."""
        ids = next(self.rows, None)
        if ids is None:
            return None
        return {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}


def dynamic(weight_type: QuantType, **options: object) -> Callable[[Source, Path], None]:
    """Take the ranges of activations from the batch at run time."""

    def write(source: Source, path: Path) -> None:
        quantize_dynamic(source.fp32, path, weight_type=weight_type, **options)

    return write


def static(source: Source, path: Path) -> None:
    """Calibrate ranges; quantise the products with weights inside the layers."""
    quantize_static(
        source.fp32,
        path,
        CalibrationReader(source.calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        nodes_to_quantize=source.weight_products(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def weights_only(source: Source, path: Path) -> None:
    """Store the weights of the layers in 8 bits; ONNX Runtime makes them fp32 again when it loads them."""
    model = onnx.load(source.fp32)
    products = set(source.weight_products())
    names = {node.input[1] for node in model.graph.node if node.name in products}
    nodes = []
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in names]:
        weight = numpy_helper.to_array(tensor)
        scales = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
        parts = {"rounded": np.rint(weight / scales).astype(np.int8), "scales": scales}
        inputs = [f"{tensor.name}_{part}" for part in parts]
        model.graph.initializer.extend(map(numpy_helper.from_array, parts.values(), inputs))
        model.graph.initializer.remove(tensor)
        nodes.append(helper.make_node("DequantizeLinear", inputs, [tensor.name], axis=1))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    onnx.save(model, path)


def own_graph(weight_limit: int) -> Callable[[Source, Path], None]:
    """Build the graph of asterisk/export/int8_graph.py, with weights up to a limit."""

    def write(source: Source, path: Path) -> None:
        onnx.save(build_int8(source.model, source.calibration, weight_limit), path)

    return write


SCHEMES: dict[str, Callable[[Source, Path], object]] = {
    "fp32": lambda source, path: shutil.copyfile(source.fp32, path),
    "dynamic (`quantize_dynamic`)": dynamic(QuantType.QInt8),
    "dynamic, attention's products, too": dynamic(QuantType.QInt8, extra_options={"MatMulConstBOnly": False}),
    "dynamic, unsigned weights": dynamic(QuantType.QUInt8),
    "dynamic, a scale for each column": dynamic(QuantType.QInt8, per_channel=True),
    "dynamic, a scale for each column, 7 bits": dynamic(QuantType.QInt8, per_channel=True, reduce_range=True),
    "static QDQ": static,
    "weights only": weights_only,
    "own graph, 8-bit weights": own_graph(127),
    "own graph, 7-bit weights (shipped)": own_graph(WEIGHT_LIMIT),
}


def smallest_batched_cosine(encoder: AsteriskEncoder, texts: list[str]) -> tuple[float, float]:
    """Embed texts alone and in batches; return the smallest cosine and the share of equal nearest neighbours."""
    token_ids = [encoding.ids for encoding in encoder.tokenizer.encode_batch_fast(texts)]
    alone = np.concatenate([encoder.embed_tokens([ids]) for ids in token_ids])
    batches = [token_ids[i : i + BATCH] for i in range(0, len(token_ids), BATCH)]
    together = np.concatenate([encoder.embed_tokens(batch) for batch in batches])
    neighbours = []
    for vectors in (alone, together):
        similarities = vectors @ vectors.T
        np.fill_diagonal(similarities, -1)
        neighbours.append(similarities.argmax(axis=1))
    return smallest_cosine(alone, together), float((neighbours[0] == neighbours[1]).mean())


def measure_speed(encoders: dict[str, AsteriskEncoder], texts: list[str]) -> dict[str, list[float]]:
    """Return the seconds of one text of 16 tokens and of all texts, each the median of turns, by scheme."""
    short = text_of_tokens(16, next(iter(encoders.values())).tokenizer)
    seconds: dict[str, tuple[list, list]] = {name: ([], []) for name in encoders}
    for _ in tqdm(range(ROUNDS), desc="speed", unit=" rounds"):
        for name, encoder in encoders.items():
            for taken, task, calls in zip(seconds[name], ([short], texts), (200, 1), strict=True):
                taken += [wall for wall, _ in time_calls(encoder.encode, task, calls)]
    return {name: [float(np.median(taken)) for taken in both] for name, both in seconds.items()}


def measure(
    source: Source, directory: Path, texts: list[str], tasks: dict[str, Similarity], threads: int
) -> list[dict]:
    """Make and measure every scheme; `directory` holds the tokenizer and takes the files."""
    encoders, figures = {}, []
    reference = None
    for number, (name, write) in enumerate(tqdm(SCHEMES.items(), desc="schemes", unit=" schemes")):
        file = f"scheme{number}.onnx"
        write(source, directory / file)
        encoder = encoders[name] = AsteriskEncoder(str(directory), file, threads)
        vectors = encoder.encode(texts)
        reference = vectors if reference is None else reference
        cosine, same = smallest_batched_cosine(encoder, texts[:INVARIANCE_TEXTS])
        row = {"scheme": name, "megabytes": (directory / file).stat().st_size / 1e6}
        row |= {task: pairs.score(encoder.encode, thorough=False)[pairs.main] for task, pairs in tasks.items()}
        row |= {
            "worst_cosine": smallest_cosine(vectors, reference),
            "batched_difference": max(0.0, 1 - cosine),
            "same_neighbour": 100 * same,
        }
        figures.append(row)
    speeds = measure_speed(encoders, texts[: len(texts) // 5])
    base = speeds[list(SCHEMES)[1]]
    for row in figures:
        one, bulk = speeds[row["scheme"]]
        row |= {"one_text_ms": one * 1000, "one_text_speed": base[0] / one, "bulk_speed": base[1] / bulk}
    return figures


def render_table(figures: list[dict]) -> str:
    """Lay out the figures as a Markdown table."""
    tasks = [task for task in SENTENCES if task in figures[0]]
    rows = []
    for row in figures:
        cells = [row["scheme"], f"{row['megabytes']:.1f}", *(f"{row[task]:.2f}" for task in tasks)]
        cells += [f"{row['worst_cosine']:.5f}", f"{row['batched_difference']:.0e}", f"{row['same_neighbour']:.1f}"]
        speeds = [f"{row['one_text_ms']:.2f}", f"{row['one_text_speed']:.2f}", f"{row['bulk_speed']:.2f}"]
        rows.append([*cells, *speeds])
    header = ["scheme", "MB", *tasks, "worst cosine", "1 - cosine, alone and batched", "same neighbour, %"]
    return markdown_table([*header, "one text, ms", "speed, one", "speed, bulk"], rows)


def main() -> None:
    """Make and measure every scheme, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("model", nargs="?", type=Path, default=Path("release/asterisk"), help="directory of an exported model")
    add("--pairs", type=Path, default=Path("data/pairs"), help="text pairs to calibrate and measure with")
    add("--data_dir", type=Path, help="directory with stsb.dev.tsv and sickr.trial.tsv")
    add("--texts", type=int, default=10_000, help="real texts to compare on")
    add("--threads", type=int, default=1, help="threads of ONNX Runtime")
    add("--results", type=Path, default=Path("build/results"), help="directory to write to")
    arguments = parser.parse_args()
    if arguments.texts < 5 or arguments.threads < 0:
        raise InputError("--texts must be 5 or more, --threads 0 or more")
    tasks = {}
    for name, file in SENTENCES.items():
        if arguments.data_dir:
            tasks[name] = Similarity(name, "", load_scored_pairs(arguments.data_dir / file))
    logging.disable(logging.WARNING)  # ONNX Runtime recommends a step that onnxslim has done
    fp32 = arguments.model / "onnx/model.onnx"
    if not fp32.is_file():
        raise InputError(f"{fp32}: no such file; export the model with export_optimum.py")
    texts = sample_texts(arguments.pairs, arguments.texts + CALIBRATION_TEXTS)
    if len(texts) <= CALIBRATION_TEXTS:
        raise InputError(f"{arguments.pairs}: more than {CALIBRATION_TEXTS} texts are needed, {len(texts)} found")
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        directory = Path(scratch)
        for name in ("tokenizer.json", "config.json"):
            shutil.copyfile(arguments.model / name, directory / name)
        tokenizer = AsteriskEncoder(str(arguments.model), "onnx/model.onnx").tokenizer
        calibration = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts[:CALIBRATION_TEXTS])]
        onnx.save(onnxslim.slim(str(fp32)), directory / "fp32.onnx")  # with the weights' casts from float16 done
        model = AsteriskModel.from_pretrained(arguments.model).eval()
        source = Source(model, directory / "fp32.onnx", calibration)
        texts = texts[CALIBRATION_TEXTS:]
        figures = measure(source, directory, texts, tasks, arguments.threads)
    facts = machine_facts(arguments.threads) | {"texts": len(texts)}
    write_report(arguments.results / "quantization", "Ways to quantise", render_table(figures), figures, facts)


if __name__ == "__main__":
    run(main)

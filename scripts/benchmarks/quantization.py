"""Compare ways to quantise an exported model: `build/model/onnx/model.onnx` -> `<results>/quantization.{md,json}`.

    python scripts/benchmarks/quantization.py release/asterisk --data_dir DIRECTORY

Each scheme is made anew from the fp32 file and measured on the same real texts, through `AsteriskEncoder`:

- Quality: STS-B dev and SICK-R trial (Spearman correlation) and every retrieval task in the directory (nDCG@10),
  in percent; and the smallest cosine of a text's vector to PyTorch's.
- Invariance: the smallest cosine between the vector of a text alone and that of the same text in a batch of 64;
  with `--arm64`, also between the vectors here and on an emulated ARM processor (scripts/check_arm64.sh).
- Speed: milliseconds without tokenisation, the median of turns that the schemes take.
"""

import argparse
import logging
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxslim
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tqdm import tqdm

from asterisk import AsteriskEncoder
from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import machine_facts, sample_texts, time_calls, write_report
from asterisk.evaluation.results import markdown_table
from asterisk.evaluation.task_files import load_tasks
from asterisk.evaluation.tasks import Retrieval, Task
from asterisk.export.calibration import build_int8
from asterisk.export.optimum_int8 import fit, nodes_in_floating_point, prepare, quantize
from asterisk.export.verification import smallest_cosine
from modeling_asterisk import AsteriskModel

CALIBRATION_TEXTS = 512
BATCH = 64
SHAPES = ((1, 12), (1, 128), (32, 32))
TURNS, SECONDS = 7, 0.3  # of each scheme and shape, and how long a turn lasts
DEVELOPMENT = {("STSBenchmark", "dev"), ("SICK-R", "trial")}
CHECK_ARM64 = Path(__file__).parents[1] / "check_arm64.sh"


@dataclass
class Source:
    """What a scheme starts from: the model, its fp32 file, and token sequences to calibrate with."""

    model: AsteriskModel
    fp32: Path
    calibration: list[list[int]]


def dynamic(source: Source, path: Path) -> None:
    """Take the ranges of activations from the batch at run time."""
    quantize_dynamic(onnxslim.slim(str(source.fp32)), path, weight_type=QuantType.QInt8)


def one_range_for_all(source: Source, path: Path) -> None:
    """Let `ORTQuantizer` quantise every MatMul and Gather of the graph as it is."""
    graph = onnxslim.slim(str(source.fp32))  # with the weights' casts from float16 done
    quantize(graph, fit(graph, source.calibration), [], "qint8_avx512_vnni", path)


def for_processor(processor: str) -> Callable[[Source, Path], None]:
    """Let `ORTQuantizer` quantise what bears it, as export_optimum.py does."""

    def write(source: Source, path: Path) -> None:
        graph = prepare(source.fp32)
        quantize(graph, fit(graph, source.calibration), nodes_in_floating_point(graph), processor, path)

    return write


def own_graph(source: Source, path: Path) -> None:
    """Build the graph of asterisk/export/int8_graph.py."""
    onnx.save(build_int8(source.model, source.calibration), path)


# By the name of the file; that of ORTQuantizer for ARM is the one for VNNI.
SCHEMES: dict[str, tuple[str, Callable[[Source, Path], object]]] = {
    "model": ("fp32", lambda source, path: shutil.copyfile(source.fp32, path)),
    "dynamic": ("dynamic (`quantize_dynamic`)", dynamic),
    "one_range": ("ORTQuantizer, every MatMul and Gather", one_range_for_all),
    "model_qint8_avx512_vnni": ("ORTQuantizer, `qint8`", for_processor("qint8_avx512_vnni")),
    "model_quint8_avx2": ("ORTQuantizer, `quint8`", for_processor("quint8_avx2")),
    "model_quantized": ("own graph (`model_quantized.onnx`)", own_graph),
}


def smallest_batched_cosine(encoder: AsteriskEncoder, token_ids: list[list[int]]) -> float:
    """Embed token sequences alone and in batches, and return the smallest cosine."""
    alone = np.concatenate([encoder.embed_tokens([ids]) for ids in token_ids])
    batches = [token_ids[i : i + BATCH] for i in range(0, len(token_ids), BATCH)]
    return smallest_cosine(alone, np.concatenate([encoder.embed_tokens(batch) for batch in batches]))


def measure_speed(encoders: dict[str, AsteriskEncoder]) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a batch of each shape, the median of turns, by scheme."""
    rng = np.random.default_rng(0)
    vocabulary = min(encoder.tokenizer.get_vocab_size() for encoder in encoders.values())
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in encoders}
    for _ in tqdm(range(TURNS), desc="speed", unit=" turns"):
        for shape in SHAPES:
            batch = rng.integers(vocabulary, size=shape).tolist()
            for name, encoder in encoders.items():
                embed: Callable[..., np.ndarray] = encoder.embed_tokens
                ((first, _),) = time_calls(embed, batch, 1)
                taken = time_calls(embed, batch, max(1, int(SECONDS / first)))
                times[name]["{} x {}".format(*shape)] += [wall * 1000 for wall, _ in taken]
    return {name: {shape: float(np.median(t)) for shape, t in row.items()} for name, row in times.items()}


def compare_with_arm64(directory: Path, texts: list[str]) -> dict[str, float]:
    """Return the smallest cosine between the vectors here and on an emulated ARM processor, by file."""
    lines = directory / "texts.txt"
    lines.write_text("\n".join(" ".join(text.split()) for text in texts), encoding="utf-8")
    root = CHECK_ARM64.parents[1]
    result = subprocess.run(
        [CHECK_ARM64, directory, lines], cwd=root, stdout=subprocess.PIPE, text=True, check=False
    )
    found = re.findall(r"^(\w+)\.onnx: .*worst cosine to this machine ([\d.]+)", result.stdout, re.M)
    if len(found) != len(SCHEMES):
        raise InputError(f"--arm64: {CHECK_ARM64} failed: {result.stdout.strip()}")
    return {name: float(cosine) for name, cosine in found}


def measure(
    source: Source, directory: Path, texts: list[str], tasks: list[Task], arguments: argparse.Namespace
) -> list[dict]:
    """Make and measure every scheme; `directory` holds the tokenizer and takes the files."""
    encoders: dict[str, AsteriskEncoder] = {}
    figures: list[dict] = []
    reference = np.empty(0)
    for name, (scheme, write) in tqdm(SCHEMES.items(), desc="schemes", unit=" schemes"):
        path = directory / "onnx" / f"{name}.onnx"
        write(source, path)
        encoder = encoders[name] = AsteriskEncoder(str(directory), f"onnx/{name}.onnx", arguments.threads)
        if not figures:
            token_ids = [encoding.ids for encoding in encoder.tokenizer.encode_batch_fast(texts)]
            reference = np.concatenate(
                [source.model(torch.tensor([ids])).sentence_embedding.numpy() for ids in token_ids]
            )
        row = {"scheme": scheme, "file": name, "megabytes": path.stat().st_size / 1e6}
        row |= {task.name: task.score(encoder.encode, thorough=False)[task.main] for task in tasks}
        row["worst_cosine"] = smallest_cosine(encoder.encode(texts), reference)
        row["batched_difference"] = max(0.0, 1 - smallest_batched_cosine(encoder, token_ids))
        figures.append(row)
    if arguments.arm64:
        cosines = compare_with_arm64(directory, texts)
        for row in figures:
            row["arm64_cosine"] = cosines[row["file"]]
    speeds = measure_speed(encoders)
    for row in figures:
        row["milliseconds"] = speeds[row["file"]]
    return figures


def render_table(figures: list[dict], tasks: list[Task]) -> str:
    """Lay out the figures as a Markdown table."""
    rows = []
    for row in figures:
        cells = [row["scheme"], f"{row['megabytes']:.1f}", *(f"{row[task.name]:.2f}" for task in tasks)]
        cells += [f"{row['worst_cosine']:.5f}", f"{row['batched_difference']:.0e}"]
        cells += [f"{row['arm64_cosine']:.6f}"] if "arm64_cosine" in row else []
        rows.append([*cells, *(f"{time:.2f}" for time in row["milliseconds"].values())])
    header = ["scheme", "MB", *(f"{task.name} {task.split}" for task in tasks), "worst cosine to PyTorch"]
    header += ["1 - cosine, alone and batched"]
    header += ["worst cosine, here and on ARM"] if "arm64_cosine" in figures[0] else []
    return markdown_table([*header, *(f"{shape} tokens, ms" for shape in figures[0]["milliseconds"])], rows)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("model", nargs="?", type=Path, default=Path("release/asterisk"), help="directory of an exported model")
    add("--pairs", type=Path, default=Path("data/pairs"), help="text pairs to calibrate and measure with")
    add("--data_dir", type=Path, help="directory of evaluation files; docs/evaluation.md names them")
    add("--texts", type=int, default=1000, help="real texts to compare on")
    add("--threads", type=int, default=1, help="threads of ONNX Runtime")
    add("--arm64", action="store_true", help="compare with an emulated ARM processor, too; takes Debian with root")
    add("--results", type=Path, default=Path("build/results"), help="directory to write to")
    arguments = parser.parse_args()
    if arguments.texts < 1 or arguments.threads < 0:
        raise InputError("--texts must be 1 or more, --threads 0 or more")
    return arguments


def main() -> None:
    """Make and measure every scheme, and write the table."""
    arguments = parse_arguments()
    tasks = load_tasks(arguments.data_dir) if arguments.data_dir else []
    tasks = [task for task in tasks if (task.name, task.split) in DEVELOPMENT or isinstance(task, Retrieval)]
    logging.disable(logging.WARNING)  # ONNX Runtime recommends a step that onnxslim has done
    fp32 = arguments.model / "onnx/model.onnx"
    if not fp32.is_file():
        raise InputError(f"{fp32}: no such file; export the model with export_optimum.py")
    texts = sample_texts(arguments.pairs, arguments.texts + CALIBRATION_TEXTS)
    if len(texts) <= CALIBRATION_TEXTS:
        raise InputError(f"{arguments.pairs}: more than {CALIBRATION_TEXTS} texts are needed, {len(texts)} found")
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        directory = Path(scratch)
        (directory / "onnx").mkdir()
        for name in ("tokenizer.json", "config.json"):
            shutil.copyfile(arguments.model / name, directory / name)
        tokenizer = AsteriskEncoder(str(arguments.model), "onnx/model.onnx").tokenizer
        calibration = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts[:CALIBRATION_TEXTS])]
        source = Source(AsteriskModel.from_pretrained(arguments.model).eval(), fp32, calibration)
        figures = measure(source, directory, texts[CALIBRATION_TEXTS:], tasks, arguments)
    facts = machine_facts(arguments.threads) | {"model": arguments.model.resolve().name, "texts": arguments.texts}
    text = render_table(figures, tasks)
    write_report(arguments.results / "quantization", "Ways to quantise", text, figures, facts)


if __name__ == "__main__":
    run(main)

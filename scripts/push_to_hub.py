"""Push a model directory to the Hugging Face Hub in one commit, or lay out the same files in a directory.

    python scripts/push_to_hub.py build/model --repo_id user/asterisk --dry_run
    python scripts/push_to_hub.py build/asterisk --repo_id user/asterisk --to release/asterisk
    python scripts/push_to_hub.py --space --repo_id user/asterisk-search

The commit holds the SentenceTransformer files, the safetensors, the model's code, the ONNX files, the results and
the model card. ONNX files for single processors are made if they are not there, as in a clone of this repository;
a directory is laid out without them. The model is opened with every loader first, and refused if one fails or if
an INT8 file does not give the vectors of PyTorch. One that `scripts/adapt.py` has fitted to somebody's own text is
refused without `--allow_adapted`. Either the whole commit arrives or nothing; unchanged files make no commit. With
--space, what is pushed is the page of `web/` with the model, as a static Space.
"""

import argparse
import csv
import hashlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import (
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    SpaceCardData,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from requests.exceptions import RequestException

from asterisk import AsteriskEncoder
from asterisk.errors import InputError, first_line, run
from asterisk.evaluation.models import count_parameters, load_forms, load_sentence_transformer
from asterisk.evaluation.results import main_scores
from asterisk.export import PROCESSOR_FILES
from asterisk.files import atomic_directory, fingerprint, read_json
from asterisk.training.saving import name_classes
from asterisk.web import ISOLATION, site_files

TEMPLATE = Path(__file__).parent.parent / "model_card.md"
SOURCES = Path(__file__).parent / "recipes" / "text_sources.tsv"
REQUIRED = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "modeling_asterisk.py",
    "configuration_asterisk.py",
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "onnx/export_state.json",
)
SENTENCES = [
    "",
    "a word",
    "The quick brown fox jumps over the lazy dog.",
    "naïve café 日本 🙂",
    "long text " * 400,
]
# As MTEB names them.
TASK_TYPES = {
    "cosine_spearman": "STS",
    "logistic_regression_accuracy": "Classification",
    "average_precision": "PairClassification",
    "ndcg_at_10": "Retrieval",
}
# The Hub's own id of weights that also come in a package, by fingerprint.
KNOWN_TEACHERS = {"53aa51172d142c89": "sentence-transformers/all-MiniLM-L6-v2"}

SPACE_TEXT = """\
A page that embeds, searches and groups your own texts in your browser, with the INT8 file of Asterisk, a compact
English sentence-embedding model. Nothing that you add leaves your device. Several threads work at the page's own
address, not within the frame of this site.
"""


def processor_files(model: Path, scratch: Path) -> dict[str, Path]:
    """Return the ONNX files for single processors by their paths in the repository, made in `scratch` if need be.

    Raises:
        InputError: If they cannot be made.
    """
    directory = model / "onnx"
    if not all((directory / name).is_file() for name in PROCESSOR_FILES):
        from asterisk.export.optimum_int8 import quantize_for_processors

        try:
            ranges = read_json(directory / "export_state.json")["ranges"]
            quantize_for_processors(directory / "model.onnx", ranges, scratch)
        except Exception as error:
            raise InputError(
                f"{model}: no ONNX files for single processors, and none can be made from onnx/model.onnx and "
                f"onnx/export_state.json ({first_line(error)}); not pushed: export it again with export_optimum.py"
            ) from error
        directory = scratch
    return {f"onnx/{name}": directory / name for name in PROCESSOR_FILES}


def loaders(model: Path, onnx_files: dict[str, Path]) -> dict[str, tuple[float, Callable[[], np.ndarray]]]:
    """Return, by name, each way to embed `SENTENCES` and its least cosine to PyTorch."""

    def sentence_transformer() -> np.ndarray:
        return load_sentence_transformer(str(model)).encode(SENTENCES, convert_to_numpy=True)

    def ort_model() -> np.ndarray:
        from optimum.onnxruntime import ORTModelForFeatureExtraction
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model)
        session = ORTModelForFeatureExtraction.from_pretrained(model, subfolder="onnx", file_name="model.onnx")
        inputs = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="np")
        total = (session(**inputs).last_hidden_state * inputs["attention_mask"][..., None]).sum(1)
        return total / np.linalg.norm(total, axis=1, keepdims=True)

    def onnx_file(path: Path) -> np.ndarray:
        return AsteriskEncoder(str(model), str(path.resolve())).encode(SENTENCES)

    found: dict[str, tuple[float, Callable[[], np.ndarray]]]
    found = {"SentenceTransformer": (0.99999, sentence_transformer), "ORTModel": (0.99999, ort_model)}
    for name, path in onnx_files.items():
        found[name] = 0.99999 if path.name == "model.onnx" else 0.99, partial(onnx_file, path)
    return found


def check_complete(model: Path) -> None:
    """Raise an `InputError` if the directory lacks a file."""
    for name in REQUIRED:
        if not (model / name).is_file():
            raise InputError(f"{model / name}: no such file; train and export the model before pushing it")
    if not read_json(model / "onnx" / "export_state.json").get("files"):
        raise InputError(f"{model}: onnx/export_state.json is damaged; export the model again")


def check_shareable(model: Path, allow_adapted: bool) -> None:
    """Raise an `InputError` if the model was fitted to somebody's own text and may not be pushed."""
    if read_json(model / "training_state.json").get("adaptation") and not allow_adapted:
        raise InputError(
            f"{model}: fitted to somebody's own text, of which its weights may tell something; not pushed: "
            "--allow_adapted pushes it, with --private for a repository that nobody else reads"
        )


def check_vectors(model: Path, onnx_files: dict[str, Path]) -> None:
    """Open the directory with every loader and compare the vectors with those of `AutoModel`.

    Raises:
        InputError: If a loader fails, or its vectors are others.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        inputs = AutoTokenizer.from_pretrained(model)(
            SENTENCES, padding=True, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            reference = AutoModel.from_pretrained(model, trust_remote_code=True).eval()(**inputs)
    except Exception as error:
        raise InputError(f"{model}: AutoModel cannot load it ({first_line(error)}); not pushed") from error
    for name, (threshold, embed) in loaders(model, onnx_files).items():
        try:
            vectors = embed()
        except Exception as error:
            raise InputError(f"{model}: {name} cannot load it ({first_line(error)}); not pushed") from error
        cosine = float((vectors * reference.sentence_embedding.numpy()).sum(1).min())
        if not cosine >= threshold:
            raise InputError(
                f"{model}: {name} differs from PyTorch (cosine {cosine:.4f}, wanted {threshold}); not pushed: "
                "export it again with export_optimum.py"
            )


def teacher_name(training: dict[str, Any]) -> str | None:
    """Return the teacher's Hub id, or None if it was a directory or is not known."""
    teacher = training.get("teacher", {"teacher_fingerprint": "", "teacher": ""})
    name = KNOWN_TEACHERS.get(teacher["teacher_fingerprint"], teacher["teacher"])
    return name if "/" in name else None


def licensed_sources(datasets: list[str]) -> list[dict[str, str]]:
    """Return the rows of recipes/text_sources.tsv (text, origin, licence) whose files are in the training text."""
    names = {Path(dataset.rpartition("=")[0] or dataset).name for dataset in datasets}
    with SOURCES.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row for row in rows if names.intersection(row["files"].split(", "))]


def make_card(model: Path, results: Path, repo_id: str) -> str:
    """Fill the model card from the configuration, the training state and the results."""
    config, export = read_json(model / "config.json"), read_json(model / "onnx" / "export_state.json")
    training = read_json(model / "training_state.json")
    if training.get("weights") != fingerprint(model / "model.safetensors"):
        training = {}  # trained elsewhere, or further: what is recorded here is of other weights
    evaluation = read_json(results / f"{model.resolve().name}.json")
    files = dict.fromkeys(file for form in load_forms(str(model)).values() for file in form.files)
    if evaluation and evaluation["recipe"]["model"] != fingerprint(*files):
        print(f"{results}: the figures of {model.resolve().name} are of other files, so the card has none")
        evaluation = {}
    benchmark = results / "benchmark.md"
    forms = [form["form"] for form in read_json(results / "benchmark.json").get("figures", [])]
    measured = bool(evaluation) and any(form.startswith(f"{model.resolve().name} (") for form in forms)
    runs = [training] if training else []
    while runs and (earlier := runs[0].get("initial_training")):
        runs.insert(0, earlier)
    options = [run["recipe"]["arguments"] for run in runs]
    sources = list(dict.fromkeys(name for run in runs for name in run["data"].get("dataset", [])))
    licensed = licensed_sources(sources)
    total, in_layers = count_parameters(model / "model.safetensors")
    name = repo_id.rpartition("/")[2]
    scores = main_scores(evaluation)
    data = ModelCardData(
        language="en",
        license="mit",
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "feature-extraction", "onnx", "transformers.js", "matryoshka", "asterisk"],
        base_model=teacher_name(training),
        datasets=[name for name in sources if "/" in name] or None,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=TASK_TYPES.get(row["metric"], "sentence-similarity"),
                dataset_type=row["task"],
                dataset_name=f"{row['task']} {row['split']}",
                dataset_split=row["split"],
                metric_type=row["metric"],
                metric_value=row["score"],
            )
            for row in scores
            if (row["form"], row["dim"], row["precision"]) == ("onnx_int8", config["hidden_size"], "float32")
        ]
        or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        repo_id=repo_id,
        model_name=name,
        layers=config["num_hidden_layers"],
        hidden_size=config["encoder_hidden_size"],
        heads=config["num_attention_heads"],
        dim=config["hidden_size"],
        short_dims=", ".join(str(dim) for dim in (128, 64, 32) if dim < config["hidden_size"]),
        parameters=f"{total:,}",
        layer_parameters=f"{in_layers:,}",
        teacher=teacher_name(training),
        files=[
            {
                "name": f"onnx/{name}",
                "megabytes": f"{report['bytes'] / 1e6:.1f}",
                "min_cosine": f"{report['min_cosine']:.4f}",
            }
            for name, report in export["files"].items()
            if f"onnx/{name}" in REQUIRED
        ],
        code=[
            {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in sorted(model.glob("*.py"))
        ],
        verification_texts=export["recipe"]["texts"][1],
        scores=scores,
        benchmark=benchmark.read_text(encoding="utf-8").partition("\n\n")[2].strip() if measured else None,
        data_source=f" from {', '.join(sources)}" if sources and not licensed else "",
        licensed_sources=licensed,
        runs=[
            {
                "pairs": f"{run['rows']['training']:,}",
                "max_length": of_run["max_length"],
                "epochs": run["epochs"],
                "batch_size": of_run["batch_size"],
                "lr": of_run["lr"],
                "alpha": of_run["distill_alpha"],
                "teacher_hours": f"{run['teacher']['seconds'] / 3600:.1f}",
                "hours": f"{run['seconds'] / 3600:.1f}",
                "data": run["recipe"]["data"],
            }
            for run, of_run in zip(runs, options, strict=True)
        ],
        tuning=training.get("tuning"),
        adaptation=training.get("adaptation"),
        date=training.get("date"),
        seed=options[-1]["seed"] if options else None,
        max_length=config["max_position_embeddings"],
        training_lengths=sorted({of_run["max_length"] for of_run in options}),
    )
    return str(card)


def collect_files(model: Path, results: Path, repo_id: str) -> dict[str, Path | bytes]:
    """Return the files of the model and its card: path in the repository -> file or content."""
    files: dict[str, Path | bytes] = {
        path.relative_to(model).as_posix(): path
        for path in sorted(model.rglob("*"))
        if path.is_file() and not any(part.startswith((".", "__")) for part in path.relative_to(model).parts)
    }
    files["README.md"] = make_card(model, results, repo_id).encode()
    return files


def space_files(model: Path) -> dict[str, Path | bytes]:
    """Return the files of the page and its card, whose front matter tells the Space which headers to send."""
    data = SpaceCardData(
        title="Asterisk: search and group your own texts",
        emoji="✳️",
        colorFrom="blue",
        colorTo="indigo",
        sdk="static",
        license="mit",
        custom_headers={name.lower(): value for name, value in ISOLATION.items()},
    )
    return site_files(model) | {"README.md": f"---\n{data.to_yaml()}\n---\n\n{SPACE_TEXT}".encode()}


def model_files(arguments: argparse.Namespace, onnx_files: dict[str, Path]) -> dict[str, Path | bytes]:
    """Return the files of the model's repository; without those of single processors where they are laid out."""
    model, results = arguments.model, arguments.results
    name = model.resolve().name
    figures = sorted(results.glob(f"{name}.*"))
    if not figures:
        print(f"{results}: no figures of {name} here, so the card has none; see --results")
    files = collect_files(model, results, arguments.repo_id) | onnx_files
    if arguments.to:  # a clone has no more than it needs
        return {name: content for name, content in files.items() if Path(name).name not in PROCESSOR_FILES}
    return files | {f"results/{path.name}": path for path in [*figures, *results.glob("benchmark.*")]}


def lay_out(files: dict[str, Path | bytes], directory: Path) -> None:
    """Write files, given by path or content, to their places in a directory."""
    for name, content in files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())


def push(directory: Path, arguments: argparse.Namespace) -> str:
    """Make the repository if need be, and one commit of a directory; return what happened in one line.

    Raises:
        InputError: If the Hub refuses or cannot be reached. The repository is then as it was.
    """
    api = HfApi(token=arguments.token)
    try:
        kind = "space" if arguments.space else "model"
        sdk = "static" if arguments.space else None
        api.create_repo(arguments.repo_id, repo_type=kind, space_sdk=sdk, private=arguments.private, exist_ok=True)
        if arguments.revision != "main":
            api.create_branch(arguments.repo_id, repo_type=kind, branch=arguments.revision, exist_ok=True)
        before = api.repo_info(arguments.repo_id, repo_type=kind, revision=arguments.revision)
        commit = api.upload_folder(
            folder_path=directory,
            repo_id=arguments.repo_id,
            repo_type=kind,
            revision=arguments.revision,
            commit_message=f"Upload the Asterisk sentence-embedding {'page' if arguments.space else 'model'}",
            delete_patterns="*" if arguments.space else "onnx/*",
        )
    except HFValidationError as error:
        raise InputError(f"--repo_id {arguments.repo_id}: not a Hub id like user/asterisk") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        hint = "log in with `hf auth login` or give --token" if status in (401, 403) else "try again later"
        raise InputError(f"the Hub refused ({status}); {arguments.repo_id} is as it was: {hint}") from error
    except (RequestException, OSError, RuntimeError) as error:  # the client wraps failed uploads in RuntimeError
        raise InputError(
            f"the connection to the Hub failed ({type(error).__name__}); {arguments.repo_id} is as it was"
        ) from error
    if commit.oid == before.sha:
        return f"{arguments.repo_id} is up to date ({before.sha})"
    return f"{arguments.repo_id}: commit {commit.oid}"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", default=Path("release/asterisk"), help="model directory")
    parser.add_argument("--space", action="store_true", help="push the page of web/ as a static Space")
    parser.add_argument("--repo_id", required=True, help="repository on the Hub, such as user/asterisk")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("build/results"),
        help="directory of the figures for the model card",
    )
    parser.add_argument("--revision", default="main", help="branch to push to; made if there is none")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--allow_adapted", action="store_true", help="push a model fitted to somebody's own text")
    parser.add_argument("--token", help="access token; without it, HF_TOKEN or that of `hf auth login`")
    parser.add_argument("--to", type=Path, metavar="DIRECTORY", help="write the files there, push nothing")
    parser.add_argument("--dry_run", action="store_true", help="check the model and list the files, push nothing")
    return parser.parse_args()


def main() -> None:
    """Check the model, then push it, lay it out or list its files."""
    arguments = parse_arguments()
    marker, what = ("index.html", "page") if arguments.space else ("modules.json", "model")
    if arguments.to and arguments.to.exists() and not (arguments.to / marker).is_file():
        raise InputError(f"--to {arguments.to}: exists and holds no {what}; choose another directory")
    name_classes(arguments.model)
    check_complete(arguments.model)
    if not (arguments.to or arguments.dry_run):
        check_shareable(arguments.model, arguments.allow_adapted)
    with tempfile.TemporaryDirectory() as scratch:
        onnx = arguments.model / "onnx"
        paths = [onnx / "model_quantized.onnx"] if arguments.space else sorted(onnx.glob("*.onnx"))
        onnx_files = {f"onnx/{path.name}": path for path in paths}
        if not arguments.to and not arguments.space:
            onnx_files |= processor_files(arguments.model, Path(scratch))
        check_vectors(arguments.model, onnx_files)
        files = space_files(arguments.model) if arguments.space else model_files(arguments, onnx_files)
        sizes = {n: len(c) if isinstance(c, bytes) else c.stat().st_size for n, c in files.items()}
        for name, size in sizes.items():
            print(f"{size / 1e6:9.3f} MB  {name}")
        print(f"{sum(sizes.values()) / 1e6:9.3f} MB  in {len(files)} files")
        if arguments.to:
            with atomic_directory(arguments.to.resolve()) as directory:
                lay_out(files, directory)
        elif not arguments.dry_run:
            commit = Path(scratch, "commit")
            lay_out(files, commit)
            print(push(commit, arguments))


if __name__ == "__main__":
    run(main)

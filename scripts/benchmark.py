"""Measure speed, size and memory beside the teacher: model directories -> `build/results/benchmark.{md,json}`.

    python scripts/benchmark.py build/model

The teacher and every form of every model (PyTorch, ONNX fp32, INT8) are measured in one run, on the CPU, each
through the loader that its users call, tokenisation included:

- Time to embed one text of 12 and one of 128 of the teacher's tokens, the same texts for all. The forms take
  turns, so that a slow spell of the machine meets all, and a speed-up compares figures of the same minutes.
- Texts per second over real texts of natural length, which each form cuts at its own limit.
- Time from process start to the loaded model and to the first vector, and peak memory over 100 texts, in
  fresh processes. Size is that of the weights and tokenizer.json; MB are 10^6 bytes.
"""

import argparse
import itertools
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from asterisk import AsteriskEncoder
from asterisk.console import InputError, atomic_path, run, write_json
from asterisk.hub import model_directory
from asterisk.training_data import iterate_texts, load_pairs, load_teacher_model

SEED = 0
BATCH_SIZE = 32
LATENCY_TOKENS = (12, 128)
ROUND_CALLS = 20
THROUGHPUT_ROUNDS = 3
FRESH_RUNS = 3
FRESH_TEXTS = 100
PACKAGES = ("onnxruntime", "torch", "sentence-transformers", "transformers", "tokenizers", "numpy")
# A token each in nearly every vocabulary; the time does not depend on which words they are.
WORDS = [
    "the",
    "old",
    "house",
    "by",
    "the",
    "river",
    "was",
    "sold",
    "last",
    "year",
    "to",
    "a",
    "young",
    "family",
    "from",
    "the",
    "city",
]

Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Form:
    """One way to run a model.

    Attributes:
        name: Its row in the table.
        files: What a user downloads; tokenizer.json is the first.
        load: Returns the function that embeds texts.

    """

    name: str
    files: tuple[Path, ...]
    load: Callable[[], Encode]


def load_teacher(name: str) -> Encode:
    """Load the teacher with sentence-transformers."""
    model, _ = load_teacher_model(name, device="cpu")
    return partial(model.encode, batch_size=BATCH_SIZE, show_progress_bar=False)


def load_pytorch(directory: Path) -> Encode:
    """Load a model directory with sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(directory), device="cpu", trust_remote_code=True, local_files_only=True)
    return partial(model.encode, batch_size=BATCH_SIZE, show_progress_bar=False)


def load_onnx(directory: Path, file_name: str, threads: int) -> Encode:
    """Load one ONNX file of a model directory."""
    return partial(AsteriskEncoder(str(directory), file_name, threads).encode, batch_size=BATCH_SIZE)


def teacher_form(name: str) -> Form:
    """Find the teacher."""
    directory = model_directory(name, ("tokenizer.json", "*.safetensors"))
    tokenizer, weights = directory / "tokenizer.json", sorted(directory.rglob("*.safetensors"))
    if not (tokenizer.is_file() and weights):
        raise InputError(f"{name}: lacks tokenizer.json or safetensors; choose another --teacher_model")
    return Form("teacher (PyTorch)", (tokenizer, *weights), partial(load_teacher, name))


def model_forms(directory: Path, label: str, threads: int) -> list[Form]:
    """List the forms of a model directory.

    Raises:
        InputError: If the directory or a file of it is missing.

    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; train a model with train_accelerate.py")
    kinds = {
        "PyTorch": ("model.safetensors", partial(load_pytorch, directory)),
        "ONNX fp32": ("onnx/model.onnx", partial(load_onnx, directory, "onnx/model.onnx", threads)),
        "INT8 ONNX": (
            "onnx/model_quantized.onnx",
            partial(load_onnx, directory, "onnx/model_quantized.onnx", threads),
        ),
    }
    for file in ("tokenizer.json", *(file for file, _ in kinds.values())):
        if not (directory / file).is_file():
            mend = "export it with export_optimum.py" if file.endswith(".onnx") else "train the model again"
            raise InputError(f"{directory / file}: no such file; {mend}")
    return [
        Form(f"{label} ({kind})", (directory / "tokenizer.json", directory / file), load)
        for kind, (file, load) in kinds.items()
    ]


def choose_texts(directory: Path, count: int) -> list[str]:
    """Choose up to `count` texts of the pairs at random."""
    pairs, _ = load_pairs(directory)
    rng = np.random.default_rng(SEED)
    texts = list(iterate_texts(pairs.select(rng.permutation(len(pairs))[:count])))
    if not texts:
        raise InputError(f"{directory}: no text in these pairs; run scripts/prepare_data.py")
    return [texts[i] for i in rng.permutation(len(texts))[:count]]


def text_of_tokens(tokens: int, tokenizer: Tokenizer) -> str:
    """Return words of `tokens` tokens, special ones included, or of the next number that whole words make."""
    texts = itertools.accumulate(itertools.cycle(WORDS), "{} {}".format)
    return next(text for text in texts if len(tokenizer.encode(text)) >= tokens)


def peak_memory_mb() -> float:
    """Return the largest resident memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss of a child starts from that of its parent
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def report_fresh(form: Form) -> None:
    """In a fresh process: load the form, embed the texts of standard input, print the figures as JSON."""
    task = json.load(sys.stdin)
    encode = form.load()
    load_s = time.monotonic() - task["started"]
    encode(task["texts"][:1])
    first_vector_s = time.monotonic() - task["started"]
    encode(task["texts"])
    print(json.dumps([load_s, first_vector_s, peak_memory_mb()]))


def measure_fresh(form: Form, texts: list[str]) -> list[float]:
    """Return the figures of `report_fresh`: seconds to the model and to a vector, peak memory in MB.

    Raises:
        InputError: If the form does not load because of the user's mistake.

    """
    command = [sys.executable, __file__, *sys.argv[1:], f"--measure={form.name}"]
    task = json.dumps({"started": time.monotonic(), "texts": texts})
    child = subprocess.run(command, input=task, capture_output=True, text=True, check=False)
    if child.returncode == 2:
        raise InputError(child.stderr.strip().splitlines()[-1].removeprefix("error: "))
    if child.returncode:
        raise RuntimeError(f"{form.name}: its fresh process ended with {child.returncode}\n{child.stderr}")
    return json.loads(child.stdout.splitlines()[-1])


def time_calls(encode: Encode, texts: list[str], calls: int) -> list[float]:
    """Return the seconds of each of `calls` calls, after a warm-up."""
    # It also outlasts the threads of the form before, which spin for some milliseconds when they fall idle.
    warm = time.perf_counter() + 0.1
    while time.perf_counter() < warm:
        encode(texts[:BATCH_SIZE])
    clock = [time.perf_counter()]
    for _ in range(calls):
        encode(texts)
        clock.append(time.perf_counter())
    return np.diff(clock).tolist()


def measure(forms: list[Form], texts: list[str], repeats: int) -> list[dict]:
    """Measure all forms, the teacher first; return the figures of each."""
    tokenizer = Tokenizer.from_file(str(forms[0].files[0]))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tasks = {f"{tokens} tokens": [text_of_tokens(tokens, tokenizer)] for tokens in LATENCY_TOKENS}
    rounds = [(task, min(ROUND_CALLS, repeats - i)) for i in range(0, repeats, ROUND_CALLS) for task in tasks]
    rounds += [("texts", 1)] * THROUGHPUT_ROUNDS
    tasks["texts"] = texts
    fresh = [[] for _ in forms]
    seconds = [{task: [] for task in tasks} for _ in forms]
    with tqdm(total=len(forms) * (FRESH_RUNS + len(rounds)), desc="fresh processes", unit=" measurements") as bar:
        # The first run finds the files outside the disk cache; the median over the runs passes it by.
        for _, (form, runs) in itertools.product(range(FRESH_RUNS), list(zip(forms, fresh, strict=True))):
            runs.append(measure_fresh(form, texts[:FRESH_TEXTS]))
            bar.update()
        encoders = [form.load() for form in forms]
        for task, calls in rounds:
            bar.set_description(task)
            for encode, taken in zip(encoders, seconds, strict=True):
                taken[task] += time_calls(encode, tasks[task], calls)
                bar.update()
    return [
        summarize(form, runs, taken, seconds[0], len(texts))
        for form, runs, taken in zip(forms, fresh, seconds, strict=True)
    ]


def summarize(
    form: Form,
    fresh: list[list[float]],
    seconds: dict[str, list[float]],
    teacher_seconds: dict[str, list[float]],
    texts: int,
) -> dict:
    """Turn the measurements of one form into its figures.

    Args:
        form: The form.
        fresh: What `measure_fresh` returned, run by run.
        seconds: Time of each call: `12 tokens` and the like for one text, `texts` for all.
        teacher_seconds: The same of the teacher.
        texts: Number of texts in `texts`.

    """
    load_s, first_vector_s, peak_memory = np.median(fresh, axis=0).tolist()
    return {
        "form": form.name,
        "size_mb": sum(file.stat().st_size for file in form.files) / 1e6,
        "load_s": load_s,
        "first_vector_s": first_vector_s,
        "peak_memory_mb": peak_memory,
        "p50_p95_p99_ms": {
            task: (np.percentile(calls, (50, 95, 99)) * 1000).tolist()
            for task, calls in seconds.items()
            if task != "texts"
        },
        "texts_per_s": texts / float(np.median(seconds["texts"])),
        "speed_up": {task: float(np.median(teacher_seconds[task]) / np.median(seconds[task])) for task in seconds},
    }


def render_table(figures: list[dict]) -> str:
    """Lay out the figures of each form as an aligned Markdown table."""
    latencies = list(figures[0]["p50_p95_p99_ms"])
    rows = [["", "size MB", "load s", "first vector s", "memory MB", *(f"{t}, ms" for t in latencies), "texts/s"]]
    for of in figures:
        rows.append([of["form"], *(f"{of[key]:.1f}" for key in ("size_mb", "load_s", "first_vector_s"))])
        cells = {task: " / ".join(f"{ms:.2f}" for ms in of["p50_p95_p99_ms"][task]) for task in latencies}
        cells["texts"] = f"{of['texts_per_s']:.0f}"
        rows[-1].append(f"{of['peak_memory_mb']:.0f}")
        rows[-1] += [f"{cell} ({of['speed_up'][task]:.1f}x)" for task, cell in cells.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    padded = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def describe_run(arguments: argparse.Namespace, texts: int) -> dict:
    """Say where, when and with what the figures are taken."""
    cpuinfo = Path("/proc/cpuinfo")
    cpu = re.search(r"^(?:model name|Model)\s*: (.+)", cpuinfo.read_text() if cpuinfo.exists() else "", re.M)
    return {
        "teacher": arguments.teacher_model,
        "platform": platform.platform(),
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "threads": arguments.threads or "all",
        "date": time.strftime("%Y-%m-%d"),
        "texts": texts,
        "repeats": arguments.repeats,
        "seed": SEED,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", type=Path, default=[Path("build/model")], metavar="MODEL", help="model directories"
    )
    parser.add_argument(
        "--teacher_model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="Hub id or directory of a SentenceTransformer",
    )
    parser.add_argument("--pairs", type=Path, default=Path("data/pairs"), help="text pairs with the real texts")
    parser.add_argument("--texts", type=int, default=1000, help="real texts to embed for the throughput")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 means all cores")
    parser.add_argument("--repeats", type=int, default=200, help="calls for each latency")
    parser.add_argument("--output", type=Path, default=Path("build/results"), help="directory of the results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    if arguments.texts < 1 or arguments.repeats < 1 or arguments.threads < 0:
        raise InputError("--texts and --repeats must be 1 or more, --threads 0 or more")
    if arguments.threads:  # read by torch and by tokenizers when they start
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(arguments.threads))
    names = [directory.resolve().name for directory in arguments.models]
    forms = []
    for directory, name in zip(arguments.models, names, strict=True):
        label = name if names.count(name) == 1 else str(directory)
        forms += model_forms(directory, label, arguments.threads)
    forms.insert(0, teacher_form(arguments.teacher_model))
    if arguments.measure:
        report_fresh(next(form for form in forms if form.name == arguments.measure))
        return
    texts = choose_texts(arguments.pairs, arguments.texts)
    figures = measure(forms, texts, arguments.repeats)
    facts = describe_run(arguments, len(texts))
    table = render_table(figures)
    print(table)
    notes = (
        f"One text: p50 / p95 / p99. Texts/s: batches of {BATCH_SIZE}. In brackets: times the teacher's speed.\n\n"
        + "; ".join(f"{key}: {value}" for key, value in facts.items())
    )
    write_json(arguments.output / "benchmark.json", {"run": facts, "figures": figures})
    with atomic_path(arguments.output / "benchmark.md") as temporary:
        temporary.write_text(f"# Speed, size and memory\n\n{table}\n\n{notes}\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)

"""Measure speed, size and memory beside the teacher: model directories -> `build/results/benchmark.{md,json}`.

    python scripts/benchmark.py release/asterisk

The teacher and every form of every model (PyTorch, ONNX fp32, INT8) are measured in one run, on the CPU, with one
thread and then with all cores, each through the loader that its users call, tokenisation included:

- Time to embed one text of 12, 32 and 128 of the teacher's tokens, the same texts for all. The forms take
  turns, so that a slow spell of the machine meets all, and a speed-up compares figures of the same minutes.
- Texts per second, and processor time of each, over real texts of natural length, which each form cuts at its own
  limit.
- Time from process start to the loaded model and to the first vector, and peak memory over 100 texts, in
  fresh processes. Size is that of the weights and tokenizer.json; MB are 10^6 bytes.
- The share of an INT8 Asterisk file's time that its bare INT8 matrix products take: how near it is to what ONNX
  Runtime reaches on this processor.

Run it alone: beside other work PyTorch's threads, which wait for one another in a busy loop, become many times
slower, ONNX Runtime's hardly, and the speed-ups are too good to be true.

With --train it measures the speed of training and of the teacher beside plain loops, with --memory the peak
memory of each step of the pipeline as the rows grow.
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
import tempfile
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
from asterisk.console import InputError, atomic_directory, read_json, run, write_json, write_text
from asterisk.hub import model_directory
from asterisk.training_data import PairTexts, load_pairs, load_teacher_model

SEED = 0
BATCH_SIZE = 32
LATENCY_TOKENS = (12, 32, 128)
ROUND_CALLS = 20
THROUGHPUT_ROUNDS = 3
FRESH_RUNS = 3
FRESH_TEXTS = 100
ONNX_FORMS = {"ONNX fp32": "onnx/model.onnx", "INT8 ONNX": "onnx/model_quantized.onnx"}
TEACHER_ONNX = {"ONNX fp32": "onnx/model.onnx", "INT8 ONNX": "onnx/model_int8.onnx"}
TEACHER_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
PACKAGES = ("onnxruntime", "torch", "sentence-transformers", "transformers", "tokenizers", "numpy")
# A token each in nearly every vocabulary; the time does not depend on which words they are.
SENTENCE = "the old house by the river was sold last year to a young family from the city"

Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Form:
    """One way to run a model: its row in the table, its files (tokenizer.json first), and how to load it."""

    name: str
    files: tuple[Path, ...]
    load: Callable[[], Encode]


def load_pytorch(name: str, is_teacher: bool) -> Encode:
    """Load the teacher or a model directory with sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    if is_teacher:
        model, _ = load_teacher_model(name, device="cpu")
    else:
        model = SentenceTransformer(name, device="cpu", trust_remote_code=True, local_files_only=True)
    return partial(model.encode, batch_size=BATCH_SIZE, show_progress_bar=False)


def load_onnx(directory: Path, file_name: str, threads: int) -> Encode:
    """Load one ONNX file of a model directory."""
    return partial(AsteriskEncoder(str(directory), file_name, threads).encode, batch_size=BATCH_SIZE)


def load_teacher_onnx(directory: Path, file_name: str, threads: int) -> Encode:
    """Load an ONNX file of the teacher with sentence-transformers."""
    from onnxruntime import SessionOptions
    from sentence_transformers import SentenceTransformer

    options = SessionOptions()
    options.intra_op_num_threads = threads
    keywords = {"file_name": file_name, "provider": "CPUExecutionProvider", "session_options": options}
    model = SentenceTransformer(str(directory), backend="onnx", local_files_only=True, model_kwargs=keywords)
    return partial(model.encode, batch_size=BATCH_SIZE, show_progress_bar=False)


def export_teacher(teacher: Path, directory: Path) -> None:
    """Write the teacher's own ONNX files, fp32 and INT8, made by sentence-transformers for this processor."""
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    keywords = {"export": True, "provider": "CPUExecutionProvider"}
    model = SentenceTransformer(str(teacher), backend="onnx", local_files_only=True, model_kwargs=keywords)
    cpuinfo = Path("/proc/cpuinfo")
    vnni = "avx512_vnni" if cpuinfo.exists() and "avx512_vnni" in cpuinfo.read_text() else "avx2"
    kind = "arm64" if platform.machine() in ("aarch64", "arm64") else vnni
    with atomic_directory(directory) as temporary:
        model.save_pretrained(str(temporary), create_model_card=False)
        export_dynamic_quantized_onnx_model(model, kind, str(temporary), file_suffix="int8")


def list_forms(models: list[Path], teacher: str, teacher_onnx: Path, threads: int) -> list[Form]:
    """List the forms to measure, the teacher first.

    Raises:
        InputError: If a file of a model is missing, or the teacher cannot be found.
    """
    forms = []
    names = [model.resolve().name for model in models]
    for model, name in zip(models, names, strict=True):
        kinds = {"PyTorch": ("model.safetensors", partial(load_pytorch, str(model), is_teacher=False))}
        if read_json(model / "config.json").get("model_type") == "asterisk":
            for kind, file in ONNX_FORMS.items():
                kinds[kind] = (file, partial(load_onnx, model, file, threads))
        for kind, (file, load) in kinds.items():
            files = (model / "tokenizer.json", model / file)
            for path in files:
                if not path.is_file():
                    mend = "train a model with train_accelerate.py, then export it with export_optimum.py"
                    raise InputError(f"{path}: no such file; {mend}")
            label = name if names.count(name) == 1 else model
            forms.append(Form(f"{label} ({kind})", files, load))
    directory = model_directory(teacher, TEACHER_FILES)
    files = (directory / "tokenizer.json", *sorted(directory.rglob("*.safetensors")))
    if not files[0].is_file() or len(files) == 1:
        raise InputError(f"{teacher}: lacks tokenizer.json or safetensors; choose another --teacher_model")
    teachers = [Form("teacher (PyTorch)", files, partial(load_pytorch, teacher, is_teacher=True))]
    for kind, file in TEACHER_ONNX.items():
        files = (directory / "tokenizer.json", teacher_onnx / file)
        teachers.append(Form(f"teacher ({kind})", files, partial(load_teacher_onnx, teacher_onnx, file, threads)))
    return [*teachers, *forms]


def choose_texts(directory: Path, count: int) -> list[str]:
    """Choose up to `count` texts of the pairs at random."""
    pairs, _ = load_pairs(directory)
    rng = np.random.default_rng(SEED)
    texts = list(PairTexts(pairs.select(rng.permutation(len(pairs))[:count])))
    if not texts:
        raise InputError(f"{directory}: no text in these pairs; run scripts/prepare_data.py")
    return [texts[i] for i in rng.permutation(len(texts))[:count]]


def text_of_tokens(tokens: int, tokenizer: Tokenizer) -> str:
    """Return words of `tokens` tokens, special ones included, or of the next number that whole words make."""
    texts = itertools.accumulate(itertools.cycle(SENTENCE.split()), "{} {}".format)
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


def time_calls(encode: Encode, texts: list[str], calls: int) -> list[tuple[float, float]]:
    """Return the seconds of each of `calls` calls, after a warm-up, and those of the processor."""
    # It also outlasts the threads of the form before, which spin for some milliseconds when they fall idle.
    warm = time.perf_counter() + 0.1
    while time.perf_counter() < warm:
        encode(texts[:BATCH_SIZE])
    clock = [(time.perf_counter(), time.process_time())]
    for _ in range(calls):
        encode(texts)
        clock.append((time.perf_counter(), time.process_time()))
    return np.diff(clock, axis=0).tolist()


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
        for _, row in itertools.product(range(FRESH_RUNS), range(len(forms))):
            fresh[row].append(measure_fresh(forms[row], texts[:FRESH_TEXTS]))
            bar.update()
        encoders = [form.load() for form in forms]
        for (task, calls), row in itertools.product(rounds, range(len(forms))):
            bar.set_description(task)
            seconds[row][task] += time_calls(encoders[row], tasks[task], calls)
            bar.update()
    return [summarize(form, fresh[i], seconds[i], seconds[0], len(texts)) for i, form in enumerate(forms)]


def summarize(form: Form, fresh: list, seconds: dict, teacher_seconds: dict, texts: int) -> dict:
    """Turn what `measure_fresh` returned and the seconds of each call, by task, into the figures of a form."""
    load_s, first_vector_s, peak_memory_mb = np.median(fresh, axis=0).tolist()
    processor_s = float(np.median(seconds["texts"], axis=0)[1])
    seconds, teacher_seconds = (
        {task: [wall for wall, _ in calls] for task, calls in taken.items()}
        for taken in (seconds, teacher_seconds)
    )
    latency = {task: calls for task, calls in seconds.items() if task != "texts"}
    return {
        "form": form.name,
        "size_mb": sum(file.stat().st_size for file in form.files) / 1e6,
        "load_s": load_s,
        "first_vector_s": first_vector_s,
        "peak_memory_mb": peak_memory_mb,
        "p50_p95_p99_ms": {t: (np.percentile(s, (50, 95, 99)) * 1000).tolist() for t, s in latency.items()},
        "texts_per_s": texts / float(np.median(seconds["texts"])),
        "processor_ms_per_text": 1000 * processor_s / texts,
        "speed_up": {t: float(np.median(teacher_seconds[t]) / np.median(s)) for t, s in seconds.items()},
    }


def render_table(figures: list[dict]) -> str:
    """Lay out the figures of each form as an aligned Markdown table."""
    tasks = list(figures[0]["p50_p95_p99_ms"])
    rows = [["", "size MB", "load s", "first vector s", "memory MB", *(f"{t}, ms" for t in tasks), "texts/s"]]
    rows[0].append("processor ms/text")
    for form in figures:
        rows.append([form["form"], *(f"{form[key]:.1f}" for key in ("size_mb", "load_s", "first_vector_s"))])
        rows[-1].append(f"{form['peak_memory_mb']:.0f}")
        speeds = [" / ".join(f"{ms:.2f}" for ms in form["p50_p95_p99_ms"][task]) for task in tasks]
        speeds.append(f"{form['texts_per_s']:.0f}")
        rows[-1] += [f"{s} ({x:.1f}x)" for s, x in zip(speeds, form["speed_up"].values(), strict=True)]
        rows[-1].append(f"{form['processor_ms_per_text']:.2f}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    padded = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def describe_run(threads: int) -> dict:
    """Say where, when and with what the figures are taken."""
    cpuinfo = Path("/proc/cpuinfo")
    cpu = re.search(r"^(?:model name|Model)\s*: (.+)", cpuinfo.read_text() if cpuinfo.exists() else "", re.M)
    return {
        "platform": platform.platform(),
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads or "all",
        "load_average": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d"),
        "seed": SEED,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def report_speed(arguments: argparse.Namespace, forms: list[Form]) -> None:
    """Measure all forms with the given number of threads, print the table and write it."""
    from product_speed import measure_products

    texts = choose_texts(arguments.pairs, arguments.texts)
    facts = {"teacher": arguments.teacher_model} | describe_run(arguments.threads)
    facts |= {"texts": len(texts), "repeats": arguments.repeats}
    figures = measure(forms, texts, arguments.repeats)
    files = {form.name: form.files[1] for form in forms}
    for form in figures:
        if files[form["form"]].name == "model_quantized.onnx":
            form["products"] = measure_products(files[form["form"]], arguments.threads)
    write_report(
        arguments.output / "benchmark",
        "Speed, size and memory",
        render({"run": facts, "figures": figures}),
        figures,
        facts,
    )


def heading(threads: int) -> str:
    """Return the heading of the table for a number of threads."""
    return "One thread" if threads == 1 else f"{threads} threads"


def render(part: dict) -> str:
    """Lay out one number of threads: the table of the forms, and the share of the bare products."""
    from product_speed import render_products

    lines = [
        render_table(part["figures"]),
        "",
        f"One text: p50 / p95 / p99. Texts/s: batches of {BATCH_SIZE}. In brackets: times the teacher's speed.",
    ]
    for form in part["figures"]:
        if "products" in form:
            lines += [
                "",
                f"{form['form']}: what its bare INT8 matrix products take",
                "",
                render_products(form["products"]),
            ]
    return "\n".join(lines)


def report_pipeline(arguments: argparse.Namespace) -> None:
    """Measure training or memory, print the table and write it."""
    # Here, not above: the fresh processes whose start is timed must not load torch.
    from memory_growth import report_memory
    from training_speed import report_training

    facts = {"teacher": arguments.teacher_model} | describe_run(arguments.threads)
    if arguments.train:
        title, name = "Speed of training", "training"
        table, figures = report_training(
            arguments.pairs, arguments.teacher, arguments.teacher_model, arguments.tokenizer
        )
    else:
        title, name = "Memory as the rows grow", "memory"
        pairs, _ = load_pairs(arguments.pairs)
        table, figures = report_memory(pairs, arguments.rows, arguments.output / "memory.png")
    write_report(arguments.output / name, title, table, figures, facts)


def write_report(path: Path, title: str, table: str, figures: dict | list, facts: dict) -> None:
    """Print the table; write it to `path`.md, and the figures to `path`.json."""
    print(table)
    notes = "; ".join(f"{key}: {value}" for key, value in facts.items())
    write_json(path.with_suffix(".json"), {"run": facts, "figures": figures})
    write_text(path.with_suffix(".md"), f"# {title}\n\n{table}\n\n{notes}\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="*",
        type=Path,
        default=[Path("release/asterisk")],
        metavar="MODEL",
        help="model directories",
    )
    parser.add_argument(
        "--teacher_model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="Hub id, directory or installed package of a SentenceTransformer",
    )
    parser.add_argument("--pairs", type=Path, default=Path("data/pairs"), help="text pairs with the real texts")
    parser.add_argument("--texts", type=int, default=1000, help="real texts to embed for the throughput")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 measures with one and then with all cores"
    )
    parser.add_argument(
        "--teacher_onnx", type=Path, default=Path("build/teacher_onnx"), help="the teacher's own ONNX files"
    )
    parser.add_argument("--repeats", type=int, default=200, help="calls for each latency")
    parser.add_argument("--output", type=Path, default=Path("build/results"), help="directory of the results")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--train", action="store_true", help="measure the speed of training and teacher instead")
    what.add_argument(
        "--memory", action="store_true", help="measure the memory of the pipeline as rows grow instead"
    )
    parser.add_argument("--teacher", type=Path, default=Path("build/teacher"), help="its vectors, for --train")
    parser.add_argument("--tokenizer", default="wordpiece:30000", help="of the student, for --train")
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000, 1_000_000], help="for --memory")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    if arguments.texts < 1 or arguments.repeats < 1 or arguments.threads < 0:
        raise InputError("--texts and --repeats must be 1 or more, --threads 0 or more")
    if arguments.threads:  # read by torch and by tokenizers when they start
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(arguments.threads))
    if arguments.train or arguments.memory:
        report_pipeline(arguments)
        return
    teacher_onnx = arguments.teacher_onnx / arguments.teacher_model.replace("/", "--")
    forms = list_forms(arguments.models, arguments.teacher_model, teacher_onnx, arguments.threads)
    if arguments.measure:
        report_fresh(next(form for form in forms if form.name == arguments.measure))
        return
    if not teacher_onnx.is_dir():
        teacher = model_directory(arguments.teacher_model, TEACHER_FILES)
        export_teacher(teacher, teacher_onnx)
    if arguments.threads:
        report_speed(arguments, forms)
        return
    # Libraries read the number of threads when they start: each number has a process of its own.
    parts = []
    for threads in sorted({1, os.cpu_count() or 1}):
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, __file__, *sys.argv[1:], f"--threads={threads}", f"--output={scratch}"]
            if code := subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
                sys.exit(code)
            parts.append(read_json(Path(scratch, "benchmark.json")))
    table = "\n\n".join(f"## {heading(part['run']['threads'])}\n\n{render(part)}" for part in parts)
    facts = parts[-1]["run"] | {"threads": [part["run"]["threads"] for part in parts]}
    figures = [form | {"threads": part["run"]["threads"]} for part in parts for form in part["figures"]]
    write_report(arguments.output / "benchmark", "Speed, size and memory", table, figures, facts)


if __name__ == "__main__":
    run(main)

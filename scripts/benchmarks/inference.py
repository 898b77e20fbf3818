"""Measure speed, size and memory beside the teacher: models -> `<output>/benchmark.md`, `benchmark.json`.

    python scripts/benchmarks/inference.py release/asterisk

The teacher and every form of every model (PyTorch, ONNX fp32, INT8) are measured in one run, on the CPU, with one
thread and then with all cores, each through the loader that its users call, tokenisation included:

- Time to embed one text of 12, 32 and 128 of the teacher's tokens, the same texts for all. The forms take
  turns, so that a slow spell of the machine meets all, and a speed-up compares figures of the same minutes.
- Texts per second, and processor time of each, over real texts of natural length, which each form cuts at its own
  limit.
- Time from process start to the loaded model and to the first vector, and peak memory over 100 texts, in
  fresh processes. Size is that of the weights and tokenizer.json; MB are 10^6 bytes.

Run it alone: beside other work PyTorch's threads, which wait for one another in a busy loop, become many times
slower, ONNX Runtime's hardly, and the speed-ups are too good to be true.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import (
    BATCH_SIZE,
    machine_facts,
    peak_memory_mb,
    run_fresh,
    sample_texts,
    text_of_tokens,
    time_calls,
    write_report,
)
from asterisk.evaluation.models import FORM_NAMES, MODEL_FILES, Encode, Form, load_forms
from asterisk.evaluation.results import markdown_table
from asterisk.files import atomic_directory, read_json
from asterisk.hub import find_model, public_name

LATENCY_TOKENS = (12, 32, 128)
ROUND_CALLS = 20
THROUGHPUT_ROUNDS = 3
FRESH_RUNS = 3
FRESH_TEXTS = 100
TEACHER_ONNX = {"onnx_fp32": "onnx/model.onnx", "onnx_int8": "onnx/model_int8.onnx"}


def load_teacher_onnx(directory: Path, file_name: str, threads: int) -> Encode:
    """Load an ONNX file of the teacher with sentence-transformers."""
    from onnxruntime import SessionOptions
    from sentence_transformers import SentenceTransformer

    options = SessionOptions()
    options.intra_op_num_threads = threads
    keywords = {"file_name": file_name, "provider": "CPUExecutionProvider", "session_options": options}
    return SentenceTransformer(str(directory), backend="onnx", local_files_only=True, model_kwargs=keywords).encode


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


def list_forms(models: list[str], teacher: str, teacher_onnx: Path, threads: int) -> dict[str, Form]:
    """List the forms to measure by the names of their rows, the teacher's first.

    Raises:
        InputError: If a file of a model is missing.
    """
    pytorch = load_forms(teacher)["pytorch"]
    forms = {"teacher (PyTorch)": pytorch}
    for kind, file in TEACHER_ONNX.items():
        load = partial(load_teacher_onnx, teacher_onnx, file, threads)
        forms[f"teacher ({FORM_NAMES[kind]})"] = Form((pytorch.files[0], teacher_onnx / file), load)
    names = ["teacher", *(Path(model).resolve().name for model in models)]
    for model, name in zip(models, names[1:], strict=True):
        for kind, form in load_forms(model, threads).items():
            if not form.files[-1].is_file():
                raise InputError(f"{form.files[-1]}: no such file; export the model with export_optimum.py")
            forms[f"{name if names.count(name) == 1 else model} ({FORM_NAMES[kind]})"] = form
    return forms


def measure_fresh(form: Form) -> list[float]:
    """Measure a form in this process, which nothing else was done in.

    Returns:
        Seconds from the start of the process to the loaded model and to the first vector; peak memory in MB over
        the texts of standard input.
    """
    job = json.load(sys.stdin)
    encode = form.load()
    load_s = time.monotonic() - job["started"]
    encode(job["texts"][:1])
    first_vector_s = time.monotonic() - job["started"]
    encode(job["texts"])
    return [load_s, first_vector_s, peak_memory_mb()]


def measure(forms: dict[str, Form], texts: list[str], repeats: int) -> list[dict]:
    """Measure all forms, the teacher first; return the figures of each."""
    tokenizer = Tokenizer.from_file(str(next(iter(forms.values())).files[0]))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tasks = {f"{tokens} tokens": [text_of_tokens(tokens, tokenizer)] for tokens in LATENCY_TOKENS}
    rounds = [(task, min(ROUND_CALLS, repeats - i)) for i in range(0, repeats, ROUND_CALLS) for task in tasks]
    rounds += [("texts", 1)] * THROUGHPUT_ROUNDS
    tasks["texts"] = texts
    fresh: dict[str, list] = {name: [] for name in forms}
    seconds: dict[str, dict[str, list]] = {name: {task: [] for task in tasks} for name in forms}
    with tqdm(total=len(forms) * (FRESH_RUNS + len(rounds)), desc="fresh processes", unit=" measurements") as bar:
        # The first run finds the files outside the disk cache; the median over the runs passes it by.
        for _, name in itertools.product(range(FRESH_RUNS), forms):
            job = {"started": time.monotonic(), "texts": texts[:FRESH_TEXTS]}
            fresh[name].append(run_fresh([__file__, *sys.argv[1:], f"--measure={name}"], job))
            bar.update()
        encoders = {name: form.load() for name, form in forms.items()}
        for (task, calls), name in itertools.product(rounds, forms):
            bar.set_description(task)
            seconds[name][task] += time_calls(encoders[name], tasks[task], calls)
            bar.update()
    teacher_seconds = next(iter(seconds.values()))
    return [
        {"form": name, "size_mb": form.megabytes}
        | summarize(fresh[name], seconds[name], teacher_seconds, len(texts))
        for name, form in forms.items()
    ]


def summarize(fresh: list, seconds: dict, teacher_seconds: dict, texts: int) -> dict:
    """Turn what `measure_fresh` returned and the seconds of each call, by task, into the figures of a form."""
    load_s, first_vector_s, memory_mb = np.median(fresh, axis=0).tolist()
    processor_s = float(np.median(seconds["texts"], axis=0)[1])
    wall, teacher_wall = (
        {task: np.array(calls)[:, 0] for task, calls in taken.items()} for taken in (seconds, teacher_seconds)
    )
    return {
        "load_s": load_s,
        "first_vector_s": first_vector_s,
        "peak_memory_mb": memory_mb,
        "p50_p95_p99_ms": {
            task: (np.percentile(calls, (50, 95, 99)) * 1000).tolist()
            for task, calls in wall.items()
            if task != "texts"
        },
        "texts_per_s": texts / float(np.median(wall["texts"])),
        "processor_ms_per_text": 1000 * processor_s / texts,
        "speed_up": {
            task: float(np.median(teacher_wall[task]) / np.median(calls)) for task, calls in wall.items()
        },
    }


def render_table(figures: list[dict]) -> str:
    """Lay out the figures of each form as a Markdown table."""
    tasks = list(figures[0]["p50_p95_p99_ms"])
    rows = []
    for form in figures:
        speeds = [" / ".join(f"{ms:.2f}" for ms in form["p50_p95_p99_ms"][task]) for task in tasks]
        speeds.append(f"{form['texts_per_s']:.0f}")
        rows.append(
            [
                form["form"],
                *(f"{form[key]:.1f}" for key in ("size_mb", "load_s", "first_vector_s")),
                f"{form['peak_memory_mb']:.0f}",
                *(f"{speed} ({x:.1f}x)" for speed, x in zip(speeds, form["speed_up"].values(), strict=True)),
                f"{form['processor_ms_per_text']:.2f}",
            ]
        )
    sizes = ("size MB", "load s", "first vector s", "memory MB")
    header = ["", *sizes, *(f"{task}, ms" for task in tasks), "texts/s", "processor ms/text"]
    return markdown_table(header, rows)


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
        "--teacher_model",
        default="sentence-transformers/all-MiniLM-L6-v2",
        help="Hub id, directory or installed package of a SentenceTransformer",
    )
    add("--pairs", type=Path, default=Path("data/pairs"), help="text pairs with the real texts")
    add("--texts", type=int, default=1000, help="real texts to embed for the throughput")
    add("--threads", type=int, default=0, help="CPU threads; 0 measures with one and then with all cores")
    add("--teacher_onnx", type=Path, default=Path("build/teacher_onnx"), help="the teacher's own ONNX files")
    add("--repeats", type=int, default=200, help="calls for each latency")
    add("--output", type=Path, default=Path("build/results"), help="directory of the results")
    add("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure all forms with each number of threads, and write the tables."""
    arguments = parse_arguments()
    if arguments.texts < 1 or arguments.repeats < 1 or arguments.threads < 0:
        raise InputError("--texts and --repeats must be 1 or more, --threads 0 or more")
    if arguments.threads:  # read by torch and by tokenizers when they start
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(arguments.threads))
    teacher_onnx = arguments.teacher_onnx / arguments.teacher_model.replace("/", "--")
    forms = list_forms(arguments.models, arguments.teacher_model, teacher_onnx, arguments.threads)
    if arguments.measure:
        print(json.dumps(measure_fresh(forms[arguments.measure])))
        return
    if not teacher_onnx.is_dir():
        export_teacher(find_model(arguments.teacher_model, MODEL_FILES), teacher_onnx)
    if arguments.threads:
        texts = sample_texts(arguments.pairs, arguments.texts)
        facts = {"teacher": public_name(arguments.teacher_model)} | machine_facts(arguments.threads)
        facts |= {"texts": len(texts), "repeats": arguments.repeats}
        figures = [form | {"threads": arguments.threads} for form in measure(forms, texts, arguments.repeats)]
    else:  # libraries read the number of threads when they start: each number has a process of its own
        facts, figures = {}, []
        for threads in sorted({1, os.cpu_count() or 1}):
            with tempfile.TemporaryDirectory() as scratch:
                command = [sys.executable, __file__, *sys.argv[1:], f"--threads={threads}", f"--output={scratch}"]
                if code := subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
                    sys.exit(code)
                report = read_json(Path(scratch, "benchmark.json"))
            facts = report["run"] | {"threads": [*facts.get("threads", []), threads]}
            figures += report["figures"]
    parts = [
        f"## {'One thread' if threads == 1 else f'{threads} threads'}\n\n{render_table(list(rows))}"
        for threads, rows in itertools.groupby(figures, key=lambda form: form["threads"])
    ]
    parts.append(
        f"One text: p50 / p95 / p99. Texts/s: batches of {BATCH_SIZE}. In brackets: times the teacher's speed."
    )
    write_report(arguments.output / "benchmark", "Speed, size and memory", "\n\n".join(parts), figures, facts)


if __name__ == "__main__":
    run(main)

"""What benchmarks share: texts, times, fresh processes, facts of the machine, reports.

The imports are few and light, because they are part of what a fresh process is measured with.
"""

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
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from asterisk.errors import InputError
from asterisk.files import write_json, write_text

SEED = 0
BATCH_SIZE = 32  # that of every loader
FRESH_SECONDS = 600  # none takes minutes
PACKAGES = ("onnxruntime", "torch", "sentence-transformers", "transformers", "tokenizers", "numpy")
# A token each in nearly every vocabulary; the time does not depend on which words they are.
SENTENCE = "the old house by the river was sold last year to a young family from the city"


def sample_texts(directory: Path, count: int) -> list[str]:
    """Choose up to `count` texts of the pairs at random.

    Raises:
        InputError: If there is none.
    """
    from asterisk.data.pairs import PairTexts, load_pairs

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


def time_calls(
    encode: Callable[[list[str]], np.ndarray], texts: list[str], calls: int
) -> list[tuple[float, float]]:
    """Return the seconds of each of `calls` calls, after a warm-up, and those of the processor."""
    # It also outlasts the idle threads of what was timed before, which first wait for work in a busy loop.
    warm = time.perf_counter() + 0.1
    while time.perf_counter() < warm:
        encode(texts[:BATCH_SIZE])
    times = []
    for _ in range(calls):
        wall, processor = time.perf_counter(), time.process_time()
        encode(texts)
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return times


def peak_memory_mb() -> float:
    """Return the largest resident memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss of a child starts from that of its parent
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def energy_counters(directory: Path = Path("/sys/class/powercap")) -> dict[Path, int]:
    """Return what the packages of the processor have used, in microjoules, where the machine says so."""
    counters = {}
    for path in directory.glob("intel-rapl:[0-9]/energy_uj"):
        with suppress(OSError):  # many systems let only root read it
            if path.with_name("name").read_text().startswith("package"):  # not psys, which includes them
                counters[path] = int(path.read_text())
    return counters


def energy_used(before: dict[Path, int], after: dict[Path, int]) -> float:
    """Return the joules between two readings of `energy_counters`, of which each may begin at zero again once."""
    used = 0
    for path, start in before.items():
        used += (after[path] - start) % (int(path.with_name("max_energy_range_uj").read_text()) + 1)
    return used / 1e6


def run_fresh(arguments: list[str], job: object = None) -> Any:
    """Run a script in a fresh process, with `job` as JSON on its standard input.

    Returns:
        The JSON of the last line that it prints.

    Raises:
        InputError: If it ends with a user's mistake.
        RuntimeError: If it fails otherwise.
    """
    command = [sys.executable, *arguments]
    child = subprocess.run(
        command, input=json.dumps(job), capture_output=True, text=True, check=False, timeout=FRESH_SECONDS
    )
    if child.returncode == 2:
        raise InputError(child.stderr.strip().splitlines()[-1].removeprefix("error: "))
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}\n{child.stderr}")
    return json.loads(child.stdout.splitlines()[-1])


def machine_facts(threads: int) -> dict[str, Any]:
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


def write_report(path: Path, title: str, text: str, figures: object, facts: dict[str, Any]) -> None:
    """Print the text; write it to `path`.md, and the figures to `path`.json."""
    print(text)
    notes = "; ".join(f"{key}: {value}" for key, value in facts.items())
    write_json(path.with_suffix(".json"), {"run": facts, "figures": figures})
    write_text(path.with_suffix(".md"), f"# {title}\n\n{text}\n\n{notes}\n")

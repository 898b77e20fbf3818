"""What the commands of README.md, search.md and dedupe.md print, with the released weights.

cog -I docs -r docs/search.md docs/dedupe.md    # at the root of the repository: run them again
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from asterisk.evaluation.results import markdown_table
from asterisk.files import read_json

ROOT = Path(__file__).parents[1]
DATA = tempfile.TemporaryDirectory(prefix="asterisk-docs-")
WIDTH = 115
MODES = ("hybrid", "semantic", "words")


def run(command: str, directory: Path = ROOT / "docs") -> str:
    """Run a command line of `asterisk` in a directory, with an index of its own; return it with its output."""
    data = Path(DATA.name) / directory.name
    environment = os.environ | {"ASTERISK_INDEX": f"{data}/index.sqlite", "STATE": f"{data}", "COLUMNS": "100"}
    data.mkdir(exist_ok=True)
    script = f'asterisk() {{ {shlex.quote(sys.executable)} -m asterisk.cli "$@"; }}\n{command}'
    done = subprocess.run(
        ["bash", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    # The only words that change from run to run, and from machine to machine.
    output = re.sub(r" in [\d.]+ s, \d+% of it embedding", "", done.stdout)
    output = output.replace(str(data), "~/.local/share/asterisk").replace(f"{ROOT}/", "~/asterisk/")
    return f"```console\n$ {command.replace('$STATE/', '')}\n{output.rstrip()}\n```\n"


def figures() -> dict[str, Any]:
    """Return what `scripts/benchmarks/search.py` measured."""
    return read_json(ROOT / "results" / "search.json")["figures"]


def retrieval() -> str:
    """Lay out how good each mode is."""
    rows = [
        [name.replace("_", " "), row["files"], row["queries"]]
        + ["{ndcg_at_10:.2f} / {recall_at_10:.1f}".format(**row[mode]) for mode in MODES]
        for name, row in figures()["retrieval"]["scores"].items()
    ]
    return markdown_table(["", "files", "queries", *MODES], rows) + "\n"


def neighbours() -> str:
    """Lay out how fast vectors are found in each way, and which."""
    rows = [
        [f"{int(count):,}", name, row["ms"], row["processor_ms"], row["recall"], f"{row['mb']:.0f}"]
        for count, ways in figures()["neighbours"].items()
        for name, row in ways.items()
    ]
    return markdown_table(["vectors", "way", "ms", "of the processor", "recall, %", "MB"], rows) + "\n"


def speed() -> str:
    """Say how long whole queries take, and indexing."""
    whole, vault = figures()["latency"], figures()["retrieval"]["indexing"][-1]
    machine = read_json(ROOT / "results" / "search.json")["run"]
    warm, cold = whole["warm"]["hybrid"], whole["cold_ms"]["hybrid"]
    text = (
        f"Among {whole['passages']:,} passages ({whole['index_mb']:.0f} MB), a query takes {warm['ms']:.0f} ms "
        f"with the process running, {warm['processor_ms']:.0f} ms of it of the processor, and {cold:.0f} ms from "
        f"the shell. Indexing wrote "
        f"{vault['passages'] / vault['processor_seconds']:.0f} passages in a second of the "
        f"processor, {vault['embedding_seconds'] / vault['seconds']:.0%} of the time in the model, with "
        f"{vault['peak_mb']:.0f} MB of memory. Measured on {machine['cores']} cores ({machine['cpu']}) at a load "
        f"of {machine['load_average']:g}."
    )
    return textwrap.fill(text, WIDTH) + "\n"


def grouping() -> str:
    """Lay out how good each way to group a feed is, and how fast ours."""
    result = read_json(ROOT / "results" / "dedupe.json")
    figures, machine = result["figures"], result["run"]
    measures = ("precision", "recall", "F1", "B-cubed F1", "largest")
    table = markdown_table(
        ["", *measures], [[name, *map(row.get, measures)] for name, row in figures["feed"].items()]
    )
    quick = figures["speed"]
    embedding, grouped = quick["embedding"], quick["grouping"]
    text = (
        f"Of {quick['items']:,} items of 30 days, embedding took {embedding['seconds']:.0f} s "
        f"({embedding['processor_s']:.0f} s of the processor), grouping {grouped['seconds']:.0f} s "
        f"({grouped['processor_s']:.0f} s), with {quick['peak_mb']:,} MB of memory, on {machine['cores']} cores "
        f"({machine['cpu']}) at a load of {machine['load_average']:g}."
    )
    return f"{table}\n\n{textwrap.fill(text, WIDTH)}\n"


def thresholds() -> str:
    """Say how near the threshold from the feed comes to the best, and how near a fixed one does."""
    rows = read_json(ROOT / "results" / "dedupe.json")["figures"]["subjects"]
    own, fixed = ([row[name] / row["best F1"] for row in rows.values()] for name in ("F1", "F1, fixed"))
    names = ", ".join(rows).replace("_", " ")
    text = (
        f"On {len(rows)} feeds about one subject each ({names}), it keeps {min(own):.0%} to {max(own):.0%} of the "
        f"F1 that the best threshold for each would give; the fixed one that is best for the feed below keeps "
        f"{min(fixed):.0%} to {max(fixed):.0%}."
    )
    return textwrap.fill(text, WIDTH) + "\n"

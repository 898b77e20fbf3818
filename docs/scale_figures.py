"""The figures and the arithmetic of scale.md, from what `scripts/benchmarks/scale.py` measured."""

import textwrap
from pathlib import Path
from typing import Any

from asterisk.evaluation.results import markdown_table
from asterisk.files import read_json

RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
WIDTH = 115
BILLION = 1_000_000_000
EUROS_PER_CORE_HOUR = 0.02  # an example, not a measurement: put in what yours costs
ENCODERS = 100  # cores that are rented for the example


def measured() -> dict[str, Any]:
    """Return what was measured."""
    return read_json(RESULTS)["figures"]


def paragraph(text: str) -> str:
    """Lay out a paragraph."""
    return textwrap.fill(text, WIDTH, break_on_hyphens=False) + "\n"


def machine() -> str:
    """Say where the figures are from."""
    run, figures = read_json(RESULTS)["run"], measured()
    return paragraph(
        f"Measured on {run['cores']} cores ({run['cpu']}) on {run['date']}, with other work on the machine (load "
        f"at the end: {run['load_average']:g}), over {figures['texts']:,} texts of {figures['characters']:.0f} "
        f"characters and {figures['speed']['session, batches of 8']['tokens']:.0f} tokens on average. The time "
        "to start is not in them. Texts a second suffer from the other work, processor time hardly."
    )


def speed() -> str:
    """Lay out the speed of each way."""
    ways = measured()["speed"]
    names = {
        "session, batches of 8": "bare session, all threads, tokenised and sorted beforehand, batches of 8",
        "session, batches of 32": "the same, batches of 32",
        "local": "`asterisk embed`: a process for each core, a thread each (in use)",
        "local, threads": "`asterisk embed`: one process, a thread for each core",
        "local, one": "`asterisk embed --threads 1`: one process, one thread",
        "ray": "`--engine ray`, an encoder for each core",
        "ray, one": "`--engine ray --threads 1`: one encoder",
    }
    bare = min(ways[name]["processor_ms_per_text"] for name in names if name.startswith("session"))
    rows = [
        [
            text,
            f"{ways[name]['processor_ms_per_text']:.2f}",
            f"{100 * bare / ways[name]['processor_ms_per_text']:.0f}",
            f"{ways[name]['texts_per_s']:,.0f}",
        ]
        for name, text in names.items()
    ]
    header = ["", "ms of the processor a text", "% of the bare session", "texts a second"]
    return markdown_table(header, rows) + "\n"


def ray_cost() -> str:
    """Say what Ray costs, and where."""
    ways = measured()["speed"]
    two, one = (ways[ray][UNIT] / ways[local][UNIT] - 1 for ray, local in PAIRS)
    parts = ways["ray"]["seconds"]
    return paragraph(
        f"For each text, Ray Data takes {change(two)} of the processor than the local engine with an encoder for "
        f"each core, and {change(one)} with one. What it takes besides does not grow much with the rows: in this "
        f"run {parts['start']:.0f} s to start Ray, {parts['count']:.0f} s for the pass that counts and "
        f"{parts['proof']:.0f} s for the proof that no id is there twice, beside {parts['embed']:.0f} s of "
        "embedding. Small jobs belong to the local engine."
    )


PAIRS, UNIT = (("ray", "local"), ("ray, one", "local, one")), "processor_ms_per_text"


def change(cost: float) -> str:
    """Say how much more or less of the processor something takes."""
    return f"{100 * abs(cost):.0f} % {'more' if cost > 0 else 'less'}"


def memory() -> str:
    """Lay out the peak memory by rows."""
    peaks = measured()["memory"]
    sizes = list(peaks["local"])
    rows = [[engine, *(f"{by_rows[size]:,.0f}" for size in sizes)] for engine, by_rows in peaks.items()]
    return markdown_table(["engine, peak MB", *(f"{int(size):,} rows" for size in sizes)], rows) + "\n"


def billion() -> str:
    """Work out what a billion texts take."""
    milliseconds = measured()["speed"]["local"]["processor_ms_per_text"]
    hours = BILLION * milliseconds / 1000 / 3600
    return paragraph(
        f"A text takes {milliseconds:.2f} ms of a core, so a billion take {hours:,.0f} core hours: "
        f"{hours / ENCODERS / 24:.1f} days on {ENCODERS} such cores. At {EUROS_PER_CORE_HOUR:.2f} euros a core "
        f"hour (an example; put in your own price), that is {hours * EUROS_PER_CORE_HOUR:,.0f} euros. Texts of "
        "twice the length take about twice as long."
    )


def storage() -> str:
    """Lay out bytes, index and recall of each precision, and a billion of them."""
    rows = []
    for precision, row in measured()["storage"].items():
        hours = BILLION * row["index_processor_ms_per_row"] / 1000 / 3600
        rows.append(
            [
                precision,
                f"{row['bytes_per_row']:,.0f}",
                f"{BILLION * row['bytes_per_row'] / 1e9:,.0f}",
                f"{BILLION * row['index_bytes_per_row'] / 1e9:,.0f}",
                f"{hours:,.0f}",
                f"{row['recall']:.1f}",
            ]
        )
    header = [
        "precision",
        "bytes a vector",
        "GB a billion",
        "GB of HNSW a billion (estimate)",
        "core hours to build it (estimate)",
        "recall@10, %",
    ]
    return markdown_table(header, rows) + "\n"

"""Measure the page of `web/` in Chromium: a novel, and many passages -> `<output>/browser.md`, `browser.json`.

    python scripts/benchmarks/browser.py --text standard_ebooks.txt.gz

The text is a file with a sentence a line. Its beginning is the novel, with a blank line after every fifth
sentence. What follows makes the many passages, a row of JSONL each.
"""

import argparse
import gzip
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asterisk.errors import InputError, run
from asterisk.evaluation.browser import add_files, browser_context, wait_for
from asterisk.evaluation.measuring import machine_facts, write_report
from asterisk.evaluation.results import markdown_table

PARAGRAPH = 5  # sentences
CHARACTERS = 560  # of a passage; the page cuts at 600
QUERIES = [
    "a storm at sea",
    "the price of corn",
    "she refused to marry him",
    "a letter from the lawyer",
    "grief",
] * 4
# The times of the page's messages, and of whatever kept its main thread busy for more than 50 ms.
RECORDER = """
window.messages = [];
window.busy = [];
addEventListener("DOMContentLoaded", () => {
    const status = document.getElementById("status");
    new MutationObserver(() => window.messages.push([performance.now(), status.textContent])).observe(status, {
        childList: true,
    });
});
new PerformanceObserver((list) => {
    for (const { startTime, duration } of list.getEntries()) window.busy.push([startTime, duration]);
}).observe({ type: "longtask", buffered: true });
"""
TYPE = """(query) => new Promise((resolve) => {
    const [input, results] = [document.getElementById("query"), document.getElementById("results")];
    const start = performance.now();
    new MutationObserver((_, observer) => {
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
    }).observe(results, { childList: true });
    input.value = query;
    input.dispatchEvent(new Event("input"));
})"""
SLIDE = """(threshold) => new Promise((resolve) => {
    const slider = document.getElementById("threshold");
    const start = performance.now();
    slider.value = threshold;
    slider.dispatchEvent(new Event("input"));
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
})"""
POINT = """() => new Promise((resolve) => {
    const box = document.getElementById("canvas-box");
    const start = performance.now();
    box.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
})"""
SPEED = """async ([texts, threads]) => {
    const { wrap } = await import("./vendor/comlink.mjs");
    const { timeSentence } = await import("./device.js");
    const worker = new Worker("worker.js", { type: "module" });
    const model = wrap(worker);
    await model.load("wasm", threads);
    const sentence = await timeSentence(model);
    const start = performance.now();
    await model.embed(texts);
    const seconds = (performance.now() - start) / 1000;
    worker.terminate();
    return { sentence, passages: texts.length / seconds };
}"""


def sentences(path: Path) -> Iterator[str]:
    """Yield the lines of a file that may be gzipped.

    Raises:
        InputError: If it does not exist.
    """
    if not path.is_file():
        raise InputError(f"--text {path}: no such file; give one with a sentence a line")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        yield from filter(None, map(str.strip, lines))


def novel(lines: Iterator[str], words: int) -> str:
    """Join lines until there are so many words, in paragraphs."""
    taken = []
    while words > 0 and (line := next(lines, "")):
        taken.append(line)
        words -= len(line.split())
    return "\n\n".join(" ".join(taken[start : start + PARAGRAPH]) for start in range(0, len(taken), PARAGRAPH))


def passages(lines: Iterator[str]) -> Iterator[str]:
    """Yield neighbouring lines, joined to passages."""
    text = ""
    for line in lines:
        if text and len(text) + len(line) > CHARACTERS:
            yield text
            text = ""
        text = f"{text} {line}".strip()[:CHARACTERS]


def add(page: Any, file: Path) -> dict[str, float]:
    """Add a file; return the seconds of each step, and the longest time in ms that the page could not answer."""
    page.evaluate("() => { window.messages = []; window.busy = []; window.started = performance.now(); }")
    add_files(page, [file])
    started, messages, busy = page.evaluate("() => [window.started, window.messages, window.busy]")
    at = {text.partition(" ")[0].rstrip("."): moment for moment, text in messages}
    names = ("Embedding", "Grouping", "Drawing", "Ready")
    steps = {name.lower(): (at[after] - at[name]) / 1000 for name, after in itertools.pairwise(names)}
    longest = max((duration for _, duration in busy), default=0.0)
    return {"reading": (at["Embedding"] - started) / 1000, **steps, "longest_busy_ms": longest}


def visit(context: Any, url: str) -> tuple[Any, float]:
    """Open the page; return it and the seconds until it was ready."""
    start = time.perf_counter()
    page = context.new_page()
    page.goto(url)
    wait_for(page, "#status", "Ready.")
    return page, time.perf_counter() - start


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Do what a visitor does, twice, and time it.

    Raises:
        InputError: If the text is too short.
    """
    lines = sentences(arguments.text)
    book = novel(lines, arguments.words)
    (scratch / "novel.txt").write_text(book, encoding="utf-8")
    rows = list(itertools.islice(passages(lines), arguments.passages))
    if len(rows) < arguments.passages:
        raise InputError(
            f"--text {arguments.text}: too short for {arguments.passages:,} passages behind the novel"
        )
    (scratch / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    figures: dict[str, Any] = {"words": len(book.split())}
    with browser_context(arguments.model) as (context, url):
        figures["browser"] = f"Chromium {context.browser.version}" if context.browser else ""
        context.add_init_script(RECORDER)
        page, figures["first_visit_s"] = visit(context, url)
        figures["downloaded"] = page.inner_text("#device-bytes").partition(" of ")[0]
        figures["threads"] = {
            threads: page.evaluate(SPEED, [rows[:128], threads]) for threads in arguments.threads
        }
        figures["novel"] = add(page, scratch / "novel.txt")
        figures["novel_passages"] = page.inner_text("#delete").split()[1]
        page.click("#delete")
        wait_for(page, "#status", "deleted")
        figures["many"] = add(page, scratch / "rows.jsonl")
        figures["many_passages"] = page.inner_text("#delete").split()[1]
        figures["search_ms"] = statistics.median(page.evaluate(TYPE, query) for query in QUERIES)
        thresholds = [f"{0.5 + 0.02 * step:.2f}" for step in range(20)]
        figures["slider_ms"] = statistics.median(page.evaluate(SLIDE, threshold) for threshold in thresholds)
        figures["point_ms"] = statistics.median(page.evaluate(POINT) for _ in range(20))
        used = page.evaluate("() => navigator.storage.estimate()")
        figures["stored_mb"] = used["usageDetails"]["indexedDB"] / 1e6
        page.close()
        page, figures["second_visit_s"] = visit(context, url)
    return figures


def lay_out(figures: dict[str, Any]) -> str:
    """Write the figures as Markdown."""
    table = []
    for key, name in (("novel", f"a novel of {figures['words']:,} words"), ("many", "many passages")):
        steps = [f"{figures[key][step]:.1f}" for step in ("reading", "embedding", "grouping", "drawing")]
        pause = figures[key]["longest_busy_ms"]
        table.append([name, figures[f"{key}_passages"], *steps, f"{pause:.0f}" if pause else "under 50"])
    speeds = [
        [threads, f"{speed['sentence']:.1f}", f"{speed['passages']:.0f}"]
        for threads, speed in figures["threads"].items()
    ]
    many = figures["many_passages"]
    header = ["seconds", "passages", "reading", "embedding", "grouping", "map", "longest pause, ms"]
    first = (
        f"A first visit downloads {figures['downloaded']} and is ready after {figures['first_visit_s']:.1f} s, "
        f"from a server on the same machine. The second visit, with {many} passages, is ready after "
        f"{figures['second_visit_s']:.1f} s. The passages take {figures['stored_mb']:.1f} MB."
    )
    fluid = (
        "The longest pause is the longest time that the page did not answer to keys and pointer. With "
        f"{many} passages, medians from the event to the painted page: {figures['search_ms']:.0f} ms from a "
        f"keystroke to the passages found, {figures['slider_ms']:.0f} ms from a move of the slider to other "
        f"groups and colours, {figures['point_ms']:.0f} ms to the next dot of the map."
    )
    speed = markdown_table(["threads", "a sentence, ms", "passages a second"], speeds)
    return "\n\n".join([first, markdown_table(header, table), fluid, speed])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", default=Path("release/asterisk"), help="model directory")
    parser.add_argument("--text", type=Path, required=True, help="file with a sentence a line, also .gz")
    parser.add_argument("--words", type=int, default=111_000, help="words of the novel")
    parser.add_argument("--passages", type=int, default=10_000, help="how many are many")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads to compare")
    parser.add_argument("--output", type=Path, default=Path("build/results"), help="directory of the page")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write the page."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments, Path(scratch))
    facts = {"browser": figures.pop("browser"), "model": arguments.model.name, **machine_facts(0)}
    write_report(arguments.output / "browser", "The page in a browser", lay_out(figures), figures, facts)


if __name__ == "__main__":
    run(main)

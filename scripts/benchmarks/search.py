"""Measure the search of one's own files: how good, how fast, how large -> `<output>/search.md`, `search.json`.

    python scripts/benchmarks/search.py --cranfield DIRECTORY --rows build/held_out/rows.tsv

- Retrieval, through the command `asterisk` as a user calls it: the Cranfield collection as files, and a vault of
  held-out bodies with their titles as queries. The fusion is tuned on the vault.
- Neighbours: how sqlite-vec finds them among many vectors in float32, int8, and by their signs with int8 to rank
  again, beside a NumPy product over a memory map; recall against exact search in float32.
- Speed of whole queries, with the process running and from the shell.
- Speed and memory of indexing.

Times are medians of wall and processor time: where they differ, the machine did other work.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import sqlite_vec
from tqdm import tqdm

from asterisk import AsteriskEncoder
from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import SEED, machine_facts, run_fresh, write_report
from asterisk.evaluation.results import markdown_table
from asterisk.evaluation.task_files import load_retrieval
from asterisk.released import released_model
from asterisk.search import Index
from asterisk.search.documents import Block, Document
from asterisk.search.passages import cut
from asterisk.search.ranking import (
    DEPTH,
    RANK_CONSTANT,
    WORDS_SHARE,
    Mode,
    best_passages,
    fuse,
    rank_by_vector,
    rank_by_words,
)
from asterisk.search.store import Filter, State, entry
from asterisk.search.vectors import cosines, quantise

MODES: tuple[Mode, ...] = ("hybrid", "semantic", "words")
SHOWN = 10
BODIES, QUERIES = 1500, 300  # of a source, at most
TIMED_QUERIES, COLD_STARTS = 30, 9
TOGETHER = 10
CONSTANTS, SHARES = (1.0, 3.0, 10.0, 60.0), (0.4, 0.5, 0.6)
INDEXING = """
import json, resource, sys
from asterisk.search import Index
path, directory = json.load(sys.stdin)
report = Index(path).index(directory)
used = resource.getrusage(resource.RUSAGE_SELF)
# Linux counts the peak of the process that started this one into ru_maxrss.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"files": report.added, "passages": report.passages, "seconds": report.seconds,
    "embedding_seconds": report.embedding_seconds, "processor_seconds": used.ru_utime + used.ru_stime,
    "peak_mb": int(peak) / 1000}))
"""
Row = tuple[str, str, str]  # where from, a title, a body
Judged = tuple[str, set[str]]  # a query, and the names of the files that answer it


def new_directory(path: Path) -> Path:
    """Make a directory."""
    path.mkdir(parents=True)
    return path


def write_cranfield(directory: Path, target: Path) -> list[Judged]:
    """Write the collection as Markdown files; return the queries and their files."""
    task = load_retrieval(directory)
    with (directory / "corpus.jsonl").open(encoding="utf-8") as lines:
        for row, document in enumerate(map(json.loads, lines)):
            text = f"# {document.get('title', '')}\n\n{document['text']}\n"
            (target / f"{row}.md").write_text(text, encoding="utf-8")
    answers = [{f"{row}.md" for row in np.flatnonzero(grades)} for grades in task.relevance]
    return [(query, files) for query, files in zip(task.queries, answers, strict=True) if files]


def read_rows(path: Path) -> list[Row]:
    """Read a file with the columns source, summary and article."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["source"], row["summary"] or "", row["article"] or "") for row in rows]


def write_vault(rows: list[Row], target: Path) -> dict[str, list[Judged]]:
    """Write bodies as notes that are named by numbers; return titles and their files for each source of titles."""
    rng, number = np.random.default_rng(SEED), itertools.count()
    judged: dict[str, list[Judged]] = {}
    for source in sorted({source for source, title, body in rows if "title" in source and title and body}):
        own = [row[1:] for row in rows if row[0] == source and row[1] and len(row[2].split()) > 15]
        queries: list[Judged] = []
        for row in rng.permutation(len(own))[:BODIES]:
            name = f"{next(number)}.md"
            (target / name).write_text(own[row][1] + "\n", encoding="utf-8")
            queries.append((own[row][0], {name}))
        judged[source.partition(".")[0]] = queries[:QUERIES]
    return judged


def scores(judged: list[Judged], found: list[list[str]]) -> dict[str, float]:
    """Return mean nDCG and recall at `SHOWN`, in percent."""
    gains = 1 / np.log2(np.arange(SHOWN) + 2)
    ndcg, recall = [], []
    for names, (_, relevant) in zip(found, judged, strict=True):
        hits = np.array([name in relevant for name in names[:SHOWN]], dtype=bool)
        ndcg.append(gains[: len(hits)][hits].sum() / gains[: len(relevant)].sum())
        recall.append(hits.sum() / len(relevant))
    return {
        "ndcg_at_10": round(100 * float(np.mean(ndcg)), 2),
        "recall_at_10": round(100 * float(np.mean(recall)), 1),
    }


def search_by_command(index: Path, judged: list[Judged], mode: Mode) -> list[list[str]]:
    """Return the names of the files that the command finds for each query, a line each.

    Raises:
        RuntimeError: If it fails.
    """
    queries = "".join(f"{' '.join(query.split())}\n" for query, _ in judged)
    options = ["--json", f"--limit={SHOWN}", f"--mode={mode}", f"--index={index}"]
    command = [sys.executable, "-m", "asterisk.cli", "search", *options]
    child = subprocess.run(command, input=queries, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(child.stderr)
    return [[Path(hit["path"]).name for hit in json.loads(line)["hits"]] for line in child.stdout.splitlines()]


def tune(path: Path, judged: list[Judged]) -> dict[str, float]:
    """Return nDCG for each constant of the fusion and share of the words."""
    with Index(path) as index:
        store = index.store()
        sql = "select documents.id, path from documents join files on files.id = documents.file"
        names = {number: Path(os.fsdecode(file)).name for number, file in store.rows(sql)}
        rankings = [
            [
                best_passages(rank_by_words(store, query, DEPTH, Filter())),
                best_passages(rank_by_vector(store, index.encoder.encode(query), DEPTH, Filter())),
            ]
            for query, _ in judged
        ]

    def score(constant: float, share: float) -> float:
        fused = [fuse(words, vectors, constant, share) for words, vectors in rankings]
        return scores(judged, [[names[hit.document] for hit in hits] for hits in fused])["ndcg_at_10"]

    return {f"{constant:g}, {share:g}": score(constant, share) for constant in CONSTANTS for share in SHARES}


def retrieval(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Index both collections in a process of their own, score each mode, and tune the fusion on the vault."""
    cranfield = write_cranfield(arguments.cranfield, new_directory(directory / "Cranfield"))
    vault = write_vault(read_rows(arguments.rows), new_directory(directory / "vault"))
    figures: dict[str, Any] = {"scores": {}, "indexing": []}
    for name, parts in {"Cranfield": {"Cranfield": cranfield}, "vault": vault}.items():
        index = directory / f"{name}.sqlite"
        measured = run_fresh(["-c", INDEXING], [str(index), str(directory / name)])
        figures["indexing"].append({"name": name, "index_mb": index.stat().st_size / 1e6} | measured)
        for part, judged in parts.items():
            found = {mode: scores(judged, search_by_command(index, judged, mode)) for mode in MODES}
            figures["scores"][part] = {"files": measured["files"], "queries": len(judged)} | found
    figures["tuning"] = {part: tune(directory / "vault.sqlite", judged) for part, judged in vault.items()}
    return figures


def real_vectors(rows: list[Row], cache: Path, count: int) -> tuple[list[str], np.ndarray]:
    """Return texts and their vectors, which are kept in a file."""
    texts = list(dict.fromkeys(text for row in rows for text in row[1:] if text))[:count]
    if not cache.exists() or len(np.load(cache, mmap_mode="r")) != len(texts):
        np.save(cache, AsteriskEncoder(released_model()).encode(texts, show_progress_bar=True))
    return texts, np.load(cache)


def many_vectors(real: np.ndarray, count: int) -> np.ndarray:
    """Return the real vectors, and between pairs of them as many more as are asked for: `[count, dim]`."""
    rng = np.random.default_rng(SEED)
    vectors = np.empty((count, real.shape[1]), dtype=np.float32)
    vectors[: len(real)] = real[:count]
    for start in range(len(real), count, len(real)):
        block = vectors[start : start + len(real)]
        pairs = rng.integers(len(real), size=(2, len(block)))
        block[:] = real[pairs[0]] + real[pairs[1]]
        block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
    return vectors


def timed(call: Callable[[Any], Any], items: Iterable[Any]) -> tuple[list[Any], dict[str, float]]:
    """Call for each item; return results, and median milliseconds of wall and of processor time."""
    results, times = [], []
    for item in items:
        wall, processor = time.perf_counter(), time.process_time()
        results.append(call(item))
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    wall_ms, processor_ms = 1000 * np.median(times[len(times) // 10 :], axis=0)  # the first warm up
    return results, {"ms": round(float(wall_ms), 1), "processor_ms": round(float(processor_ms), 1)}


def product(vectors: np.ndarray, query: np.ndarray) -> list[int]:
    """Return the rows nearest to a query, by a product with all."""
    likeness = vectors @ query
    nearest = np.argpartition(-likeness, SHOWN)[:SHOWN]
    return nearest[np.argsort(-likeness[nearest])].tolist()


def signs(vectors: np.ndarray) -> np.ndarray:
    """Return one bit a number, as sqlite-vec packs them: `[n, dim / 8]`."""
    return np.packbits(vectors > 0, axis=-1, bitorder="little")


@dataclass
class Way:
    """A form of the vectors in sqlite-vec, and how many nearest in it are ranked again by int8; 0 ranks none."""

    declaration: str
    function: str
    form: Callable[[np.ndarray], np.ndarray]
    candidates: int = 0


WAYS = {
    "float32, cosine": Way("float[256] distance_metric=cosine", "?", np.asarray),
    "int8, cosine": Way("int8[256] distance_metric=cosine", "vec_int8(?)", quantise),
    "int8, L2": Way("int8[256]", "vec_int8(?)", quantise),
    f"int8, L2, {DEPTH} again (in use)": Way("int8[256]", "vec_int8(?)", quantise, DEPTH),
    "signs, 200 again": Way("bit[256]", "vec_bit(?)", signs, 200),
    "signs, 1,000 again": Way("bit[256]", "vec_bit(?)", signs, 1000),
    "signs in chunks of 64, 1,000 again": Way("bit[256], chunk_size=64", "vec_bit(?)", signs, 1000),
}


class Vectors:
    """Vectors in a table of sqlite-vec, in one file; beside signs, `kept` holds them in int8."""

    def __init__(self, path: Path, way: Way, vectors: np.ndarray) -> None:
        path.unlink(missing_ok=True)
        self.way = way
        self.connection = apsw.Connection(str(path))
        self.connection.enable_load_extension(True)
        self.connection.load_extension(sqlite_vec.loadable_path())
        self.connection.execute(f"pragma synchronous=off; pragma mmap_size={1 << 34}")
        self.connection.execute(f"create virtual table v using vec0(id integer primary key, e {way.declaration})")
        self.connection.execute("create table kept(id integer primary key, e blob)")
        self.find = f"from v where e match {way.function} and k = ?"
        self.stored = f"select id, e {self.find}"
        with self.connection:
            self.insert(f"insert into v(id, e) values(?, {way.function})", way.form(vectors))
            if way.form is signs:
                self.insert("insert into kept values(?, ?)", quantise(vectors))
                self.stored = f"select id, e from kept where id in (select id {self.find})"

    def insert(self, sql: str, rows: np.ndarray) -> None:
        """Write rows under their numbers."""
        self.connection.executemany(sql, ((number, row.tobytes()) for number, row in enumerate(rows)))

    def nearest(self, query: np.ndarray) -> list[int]:
        """Return the rows nearest to a query."""
        form = self.way.form(query).tobytes()
        if not self.way.candidates:
            sql = f"select id {self.find} order by distance"
            return [row for (row,) in self.connection.execute(sql, (form, SHOWN))]
        rows: list[Any] = self.connection.execute(self.stored, (form, self.way.candidates)).fetchall()
        best = np.argsort(-cosines(query, [stored for _, stored in rows]), kind="stable")[:SHOWN]
        return [rows[i][0] for i in best]


def neighbours(real: np.ndarray, count: int, directory: Path) -> dict[str, Any]:
    """Find the nearest of `count` vectors in each way: time, size, and recall of the ten nearest."""
    order = np.random.default_rng(SEED + 1).permutation(len(real))
    queries, vectors = real[order[:TIMED_QUERIES]], many_vectors(real[order[TIMED_QUERIES:]], count)
    np.save(directory / "vectors.npy", vectors)
    exact, times = timed(partial(product, np.load(directory / "vectors.npy", mmap_mode="r")), queries)
    figures = {"NumPy product, float32": times | {"mb": vectors.nbytes / 1e6, "recall": 100.0}}

    path = directory / "vectors.sqlite"
    for name, way in WAYS.items():
        found, taken = timed(Vectors(path, way, vectors).nearest, queries)
        recall = float(np.mean([len(set(a) & set(b)) / SHOWN for a, b in zip(exact, found, strict=True)]))
        figures[name] = taken | {"mb": path.stat().st_size / 1e6, "recall": round(100 * recall, 1)}
    return figures


def fill(path: Path, texts: list[str], vectors: np.ndarray) -> None:
    """Make an index of as many passages as there are vectors, `TOGETHER` a note; texts may come again."""
    with Index(path) as index:
        store, tokenizer = index.store(writable=True), index.encoder.tokenizer
        for start in tqdm(range(0, len(vectors), TOGETHER), desc="index"):
            chosen = [texts[row % len(texts)] for row in range(start, min(start + TOGETHER, len(vectors)))]
            document = Document(f"note {start}", [Block(text) for text in chosen])
            passages = [cut(Document("", [block]), tokenizer)[0] for block in document.blocks]
            entries = [entry(passage, vectors[start + i]) for i, passage in enumerate(passages)]
            state = State("stamp", 0.0, start.to_bytes(8, "big"))
            store.write(Path(f"/notes/{start}.md"), start, 0, [(document, entries)], state)
        store.tidy()


def from_shell(path: Path, mode: Mode, query: str) -> None:
    """Search from the shell; nothing found is an answer, too."""
    command = [sys.executable, "-m", "asterisk.cli", "search", query, f"--mode={mode}", f"--index={path}"]
    subprocess.run(command, capture_output=True, check=False)


def latency(path: Path, queries: list[str]) -> dict[str, Any]:
    """Time whole queries: with the process running, and from the shell."""
    with Index(path) as index:
        warm = {mode: timed(partial(index.search, mode=mode), queries)[1] for mode in MODES}
    cold = {mode: timed(partial(from_shell, path, mode), queries[:COLD_STARTS])[1]["ms"] for mode in MODES}
    return {"warm": warm, "cold_ms": cold, "index_mb": path.stat().st_size / 1e6}


def render(figures: dict[str, Any]) -> str:
    """Lay out the figures."""
    tuning, speed = figures["retrieval"]["tuning"], figures["latency"]
    retrieved = [
        [part, row["files"], row["queries"]]
        + ["{ndcg_at_10:.2f} / {recall_at_10:.1f}".format(**row[mode]) for mode in MODES]
        for part, row in figures["retrieval"]["scores"].items()
    ]
    tuned = [[name, *(f"{part[name]:.2f}" for part in tuning.values())] for name in next(iter(tuning.values()))]
    found = [
        [f"{int(count):,}", name, row["ms"], row["processor_ms"], row["recall"], f"{row['mb']:.0f}"]
        for count, ways in figures["neighbours"].items()
        for name, row in ways.items()
    ]
    whole = [
        [mode, speed["warm"][mode]["ms"], speed["warm"][mode]["processor_ms"], f"{speed['cold_ms'][mode]:.0f}"]
        for mode in MODES
    ]
    indexed = [
        [row["name"], row["files"], row["passages"]]
        + [f"{row['passages'] / row[seconds]:.0f}" for seconds in ("seconds", "processor_seconds")]
        + [f"{row['embedding_seconds'] / row['seconds']:.0%}", f"{row['peak_mb']:.0f}", f"{row['index_mb']:.1f}"]
        for row in figures["retrieval"]["indexing"]
    ]
    columns = ["", "files", "passages", "a second", "a processor second", "embedding", "peak, MB", "index, MB"]
    parts = [
        "Retrieval through the command `asterisk search`: nDCG@10 / recall@10, in percent.",
        markdown_table(["collection", "files", "queries", *MODES], retrieved),
        "The fusion was tuned on the vault, that is on all but Cranfield: nDCG@10 by the constant added to ranks "
        f"and the share of the ranking by words. In use: {RANK_CONSTANT:g}, {WORDS_SHARE:g}.",
        markdown_table(["constant, share", *tuning], tuned),
        "The ten nearest of many vectors: milliseconds a query, of the processor, recall against exact search, "
        f"and size of the file. {figures['real_vectors']:,} vectors are real; the others lie between two of them.",
        markdown_table(["vectors", "way", "ms", "processor, ms", "recall, %", "MB"], found),
        f"A whole query among {speed['passages']:,} passages, {speed['index_mb']:.0f} MB: milliseconds with the "
        "process running, of its processor time, and from the shell.",
        markdown_table(["mode", "ms", "processor, ms", "from the shell, ms"], whole),
        "Indexing: passages a second, a second of the processor, share of the time in the model, peak memory, and "
        "size of the index.",
        markdown_table(columns, indexed),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Measure all, and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--cranfield", type=Path, required=True, help="the collection in BEIR's layout")
    add("--rows", type=Path, required=True, help="held-out texts, by scripts/recipes/wide_text.py")
    add("--counts", type=int, nargs="+", default=[100_000, 1_000_000], help="how many vectors to search")
    add("--passages", type=int, default=100_000, help="how many passages to time whole queries with")
    add("--cache", type=Path, default=Path("build/search"), help="directory of the texts' vectors")
    add("--output", type=Path, default=Path("results"), help="directory of the figures")
    arguments = parser.parse_args()
    rows = read_rows(arguments.rows)
    titles = [title for _, title, body in rows if title and body]
    if not titles:
        raise InputError(f"{arguments.rows}: no row with source, summary and article")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    facts = {"model": Path(released_model()).name} | machine_facts(0)
    with tempfile.TemporaryDirectory(dir=arguments.cache) as name:
        directory = Path(name)
        figures: dict[str, Any] = {"retrieval": retrieval(arguments, directory)}
        texts, real = real_vectors(rows, arguments.cache / "vectors.npy", max(arguments.counts))
        figures["real_vectors"] = len(real)
        figures["neighbours"] = {count: neighbours(real, count, directory) for count in arguments.counts}
        fill(directory / "index.sqlite", texts, many_vectors(real, arguments.passages))
        queries = titles[:: max(len(titles) // TIMED_QUERIES, 1)]
        figures["latency"] = latency(directory / "index.sqlite", queries) | {"passages": arguments.passages}
    write_report(arguments.output / "search", "Search", render(figures), figures, facts)


if __name__ == "__main__":
    run(main)

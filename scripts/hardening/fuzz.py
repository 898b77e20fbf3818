"""Fuzz everything that reads a stranger's bytes, guided by coverage -> `results/fuzzing.md`.

    pip install atheris
    python scripts/hardening/fuzz.py --minutes 10
    python scripts/hardening/fuzz.py --target feed --replay build/fuzz/feed/crash-...

A target is run until its time is up. It may refuse what it reads in one of the ways that `REFUSALS` names. Any
other exception, 20 seconds for one input, or 4 GB of memory count as a crash; `build/fuzz` keeps the input.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import atheris
from tqdm import tqdm

with atheris.instrument_imports(include=["asterisk", "frontmatter", "markdown_it", "feedparser"]):
    from asterisk.data.sources import Selection, Tally, raw_pairs
    from asterisk.data.teacher_vectors import load_teacher_vectors
    from asterisk.dedupe.feeds import read_stream
    from asterisk.dedupe.state import State
    from asterisk.embed import Job
    from asterisk.embed.reading import file_tables
    from asterisk.search.archivebox import archived_pages
    from asterisk.search.documents import Unreadable
    from asterisk.search.passages import cut
    from asterisk.search.serve import application
    from asterisk.search.sources import Source, read
from starlette.testclient import TestClient
from tabulate import tabulate

from asterisk.encoder import AsteriskEncoder
from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import machine_facts, write_report
from asterisk.files import write_json
from asterisk.search import Index
from asterisk.training.pca import load_pca

MODEL = Path("release/asterisk")
REFUSALS = (InputError, Unreadable, OSError)
SEEDS = Path(__file__).with_name("seeds")
WORK = Path(tempfile.mkdtemp(prefix="asterisk-fuzz-"))
encoder = AsteriskEncoder(str(MODEL), threads=1)


def note(suffix: str, kind: str) -> Callable[[bytes], None]:
    """Return a target that reads a note of a kind, and cuts it into passages."""

    def target(data: bytes) -> None:
        path = WORK / f"note{suffix}"
        path.write_bytes(data)
        for document in read(Source(path, kind, "", len(data), 0.0), data):
            cut(document, encoder.tokenizer)

    return target


def pairs(suffix: str) -> Callable[[bytes], None]:
    """Return a target that reads text pairs from a file of a type."""

    def target(data: bytes) -> None:
        path = WORK / f"pairs{suffix}"
        path.write_bytes(data)
        list(raw_pairs(str(path), Selection([str(path)]), Tally()))

    return target


def embedded(suffix: str) -> Callable[[bytes], None]:
    """Return a target that reads the rows to embed from a file of a type."""
    path = WORK / f"rows{suffix}"
    path.touch()
    job = Job([str(path)], WORK / "vectors", str(MODEL))

    def target(data: bytes) -> None:
        path.write_bytes(data)
        list(file_tables(str(path), job))

    return target


def feed(data: bytes) -> None:
    """Read the items of a feed of any kind."""
    for item in read_stream(io.BufferedReader(io.BytesIO(data)), "feed", lambda line: None):
        _ = item.address, item.label, item.beginning, item.content


def archive_database(data: bytes) -> None:
    """Read the database of an ArchiveBox."""
    (WORK / "archive").mkdir(exist_ok=True)
    (WORK / "index.sqlite3").write_bytes(data)
    list(archived_pages(WORK))


def archive_page(data: bytes) -> None:
    """Read a page's own index in an ArchiveBox without a database."""
    page = WORK / "box" / "archive" / "1700000000"
    page.mkdir(parents=True, exist_ok=True)
    (page / "output.html").touch()
    (page / "index.json").write_bytes(data)
    list(archived_pages(WORK / "box"))


def model_file(name: str) -> Callable[[bytes], None]:
    """Return a target that opens a model of which one file was exchanged."""
    directory = WORK / f"model-{Path(name).stem}"
    for file in ("tokenizer.json", "config.json", "onnx/model_quantized.onnx", "onnx/export_state.json"):
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        if file != name:
            (directory / file).symlink_to((MODEL / file).resolve())

    def target(data: bytes) -> None:
        (directory / name).write_bytes(data)
        AsteriskEncoder(str(directory), threads=1)

    return target


def array(data: bytes) -> None:
    """Open a PCA map and a teacher's vectors."""
    for name in ("teacher_pca.npy", "teacher_summaries.npy", "teacher_articles.npy"):
        (WORK / name).write_bytes(data)
    write_json(WORK / "teacher_meta.json", {"dataset_fingerprint": "x", "rows": 2, "dim": 4})
    for load in (lambda: load_pca(WORK, 4), lambda: load_teacher_vectors(WORK, "x")):
        with suppress(*REFUSALS):
            load()


def teacher_meta(data: bytes) -> None:
    """Open a teacher's vectors with any description."""
    (WORK / "teacher_meta.json").write_bytes(data)
    load_teacher_vectors(WORK, "x")


@contextmanager
def opened_index(path: Path) -> Iterator[Index]:
    """Open an index with the model that is loaded already."""
    with Index(path, str(MODEL), threads=1) as index:
        index.__dict__ |= {"encoder": encoder, "query_encoder": encoder}
        yield index


def index_file(data: bytes) -> None:
    """Search a damaged index."""
    (WORK / "index.sqlite").write_bytes(data)
    with opened_index(WORK / "index.sqlite") as index:
        index.search("bread")
        index.status()


def dedupe_state(data: bytes) -> None:
    """Open a damaged state of `asterisk dedupe`."""
    (WORK / "state.sqlite").write_bytes(data)
    State(WORK / "state.sqlite", encoder.fingerprint).close()


def made_index() -> bytes:
    """Return the bytes of a small index."""
    (WORK / "vault").mkdir(exist_ok=True)
    (WORK / "vault" / "note.md").write_bytes((SEEDS / "note.md").read_bytes())
    with opened_index(WORK / "made.sqlite") as index:
        index.index(WORK / "vault")
    return (WORK / "made.sqlite").read_bytes()


def made_state() -> bytes:
    """Return the bytes of an empty state."""
    State(WORK / "made_state.sqlite", encoder.fingerprint).close()
    return (WORK / "made_state.sqlite").read_bytes()


def served() -> Callable[[bytes], None]:
    """Return a target that sends a body to `/v1/embeddings` and a query to `/search`."""
    made_index()
    with opened_index(WORK / "made.sqlite") as index:
        client = TestClient(application(index, []), base_url="http://localhost")

    def target(data: bytes) -> None:
        answers = [client.post("/v1/embeddings", content=data)]
        query = data.decode("latin-1").replace("#", "")
        with suppress(ValueError, TypeError):  # the client's own, for what is no address
            answers.append(client.get(f"/search?{query}"))
        assert all(answer.status_code in (200, 400, 404, 405, 413) for answer in answers)

    return target


def made_parquet() -> bytes:
    """Return a Parquet file of two rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"row": [1, 2], "text": ["Quake", None]}), sink)
    return sink.getvalue()


def made_array() -> bytes:
    """Return a small array as a file of NumPy's."""
    import numpy as np

    sink = io.BytesIO()
    np.save(sink, np.zeros((2, 4), dtype=np.float16))
    return sink.getvalue()


def small_tokenizer() -> bytes:
    """Return a tokenizer with the settings of the released one, and the beginning of its vocabulary."""
    tokenizer = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {token: number for token, number in vocabulary.items() if number < 200}
    return json.dumps(tokenizer).encode()


# What each target is, made when it is run, and what it begins with: files of `seeds`, or what a function returns.
TARGETS: dict[str, tuple[Callable[[], Callable[[bytes], None]], list[str | Callable[[], bytes]]]] = {
    "pairs_table": (lambda: pairs(".csv"), ["table.csv"]),
    "pairs_lines": (lambda: pairs(".jsonl"), ["rows.jsonl"]),
    "note_markdown": (lambda: note(".md", "markdown"), ["note.md"]),
    "note_html": (lambda: note(".html", "html"), ["page.html"]),
    "note_message": (lambda: note(".eml", "message"), ["message.eml"]),
    "note_mbox": (lambda: note(".mbox", "mbox"), ["mailbox.mbox"]),
    "note_pdf": (lambda: note(".pdf", "pdf"), ["document.pdf"]),
    "feed": (lambda: feed, ["rss.xml", "atom.xml", "outline.opml", "feed.json", "rows.jsonl", "table.csv"]),
    "embed_table": (lambda: embedded(".csv"), ["table.csv"]),
    "embed_lines": (lambda: embedded(".jsonl"), ["rows.jsonl"]),
    "embed_parquet": (lambda: embedded(".parquet"), [made_parquet]),
    "archive_database": (lambda: archive_database, [made_state]),
    "archive_page": (lambda: archive_page, ["page.json"]),
    "tokenizer": (lambda: model_file("tokenizer.json"), [small_tokenizer]),
    "config": (lambda: model_file("config.json"), [lambda: (MODEL / "config.json").read_bytes()]),
    "onnx": (lambda: model_file("onnx/model_quantized.onnx"), [lambda: b"\x08\x08\x12\x00\x3a\x00"]),
    "array": (lambda: array, [made_array]),
    "teacher_meta": (lambda: teacher_meta, ["meta.json"]),
    "index": (lambda: index_file, [made_index]),
    "dedupe_state": (lambda: dedupe_state, [made_state]),
    "serve": (served, ["embeddings.json", "query.txt"]),
}


def run_target(name: str, arguments: list[str]) -> None:
    """Hand this process over to libFuzzer."""
    make, _ = TARGETS[name]
    function = make()

    def target(data: bytes) -> None:
        with suppress(*REFUSALS):
            function(data)

    atheris.Setup([sys.argv[0], *arguments], target)
    atheris.Fuzz()


def fuzz(name: str, seconds: float, directory: Path, bar: tqdm) -> dict[str, Any]:
    """Run a target until its time is up, anew after each crash; return what was tried and found."""
    corpus = directory / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name][1]):
        data = (SEEDS / seed).read_bytes() if isinstance(seed, str) else seed()
        (corpus / f"seed-{number}").write_bytes(data)
    runs, coverage, started = 0, 0, time.monotonic()
    while (left := seconds - (time.monotonic() - started)) > 1:
        command = [
            *(sys.executable, __file__, "--target", name, "--fuzz", str(corpus)),
            *(f"-max_total_time={int(left)}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=65536"),
            *(f"-artifact_prefix={directory / name}/", "-print_final_stats=1"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        (directory / name / "last.log").write_text(done.stderr, encoding="utf-8")
        counts = re.findall(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
        runs += int(counts[-1]) if counts else 0
        coverage = max([coverage, *map(int, re.findall(r" cov: (\d+)", done.stderr))])
        if not coverage:
            raise InputError(f"{name}: does not run; see {directory / name / 'last.log'}")
    bar.update()
    found = [path.name for path in (directory / name).iterdir() if re.match("crash|timeout|oom|slow", path.name)]
    return {
        "seconds": round(time.monotonic() - started),
        "runs": runs,
        "coverage": coverage,
        "crashes": len(found),
    }


def main() -> None:
    """Fuzz the chosen targets, or replay an input."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--target", choices=TARGETS, action="append", help="what to fuzz; all if left out")
    parser.add_argument("--minutes", type=float, default=10, help="time for each target")
    parser.add_argument("--work", type=Path, default=Path("build/fuzz"), help="inputs, and those that broke it")
    parser.add_argument("--output", type=Path, default=Path("results/fuzzing"), help="what was found")
    parser.add_argument("--replay", type=Path, help="read this input once")
    parser.add_argument("--fuzz", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.target or list(TARGETS)
    if arguments.fuzz:
        run_target(names[0], arguments.fuzz)
    if arguments.replay:
        try:
            TARGETS[names[0]][0]()(arguments.replay.read_bytes())
        except REFUSALS as error:
            print(f"refused: {error}")
        return
    found = {}
    with tqdm(total=len(names), unit=" targets") as bar:
        for name in names:
            bar.set_description(name)
            found[name] = fuzz(name, 60 * arguments.minutes, arguments.work, bar)
    rows = [{"target": name, **counts} for name, counts in found.items()]
    text = tabulate(rows, headers="keys", tablefmt="github", intfmt=",")
    write_report(arguments.output, "Fuzzing", text, rows, machine_facts(1))


if __name__ == "__main__":
    run(main)

"""Measure bulk embedding, from one core to Ray -> `<output>/scale.md`, `scale.json`.

    python scripts/benchmarks/scale.py --pairs data/pairs

- Speed: one ONNX Runtime session over texts that are tokenised and sorted already, the local engine with a process
  for each core and with one process of many threads, Ray Data with as many encoders. Every way is timed with few
  and with many texts; the speed is that of the texts between, so that the start does not count. It is the best of
  several rounds: other work on the machine can only slow it down. Processor time suffers less from it.
- Memory: all processes together, with few and with many rows.
- Bytes of a row in each precision, and what an index over them needs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm
from usearch.index import Index

from asterisk import AsteriskEncoder
from asterisk.embed.local import BATCH_SIZE, usable_cores
from asterisk.embed.vectors import PRECISIONS, Precision, pack
from asterisk.errors import run
from asterisk.evaluation.measuring import SEED, machine_facts, run_fresh, sample_texts, write_report
from asterisk.evaluation.results import markdown_table
from asterisk.released import released_model

FEW = 64
NEIGHBOURS, QUERIES = 10, 200
# Each reads its job from standard input and prints a JSON line, in a process of its own.
BARE = """
import json, sys, time
import numpy as np, pyarrow.parquet as pq
from asterisk import AsteriskEncoder
from asterisk.released import released_model
path, batch_size, threads = json.load(sys.stdin)
encoder = AsteriskEncoder(released_model(), threads=threads)
texts = pq.read_table(path)["text"].to_pylist()
ids = sorted((encoding.ids for encoding in encoder.tokenizer.encode_batch_fast(texts)), key=len)
encoder.embed_tokens(ids[:batch_size])
started, processor = time.perf_counter(), time.process_time()
for start in range(0, len(ids), batch_size):
    encoder.embed_tokens(ids[start : start + batch_size])
print(json.dumps({"texts_per_s": len(ids) / (time.perf_counter() - started),
    "tokens": sum(map(len, ids)) / len(ids),
    "processor_ms_per_text": 1000 * (time.process_time() - processor) / len(ids)}))
"""
ENGINE = """
import json, sys
from pathlib import Path
from asterisk.embed import embed_locally, make_job
from asterisk.released import released_model
if __name__ == "__main__":
    engine, path, output, workers, threads, precision = json.loads(sys.argv[1])
    job = make_job([path], Path(output), released_model(), id_columns=["number"], precision=precision)
    if engine == "ray":
        from asterisk.embed.ray_data import embed_on_ray
        manifest = embed_on_ray(job, workers=workers)
    else:
        manifest = embed_locally(job, workers=workers, threads=threads)
    print(json.dumps(manifest["seconds"]))
"""


def write_texts(texts: list[str], path: Path) -> Path:
    """Write texts with their numbers to a Parquet file."""
    pq.write_table(pa.table({"number": range(len(texts)), "text": texts}), path, row_group_size=10_000)
    return path


def watch(command: list[str]) -> tuple[str, float, float]:
    """Run a command.

    Returns:
        What it prints, the most memory in MB that it and its processes had of their own at one time, and their
        seconds of the processor.

    Raises:
        RuntimeError: If it fails.
    """
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        peak, used = 0, {}
        while child.poll() is None:
            total = 0
            with suppress(psutil.Error):  # the command has ended
                for process in [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]:
                    with suppress(psutil.Error):  # this one has
                        used[process.pid] = sum(process.cpu_times()[:2])
                        total += process.memory_full_info().uss
            peak = max(peak, total)
            time.sleep(0.2)
        output.seek(0)
        if child.returncode:
            raise RuntimeError(f"{command} ended with {child.returncode}")
        return output.read(), peak / 1e6, sum(used.values())


def run_engine(script: Path, *job: Any) -> dict[str, float]:
    """Run an engine in a process of its own; return the seconds of its parts, and those of the processor."""
    task = json.dumps([str(item) if isinstance(item, Path) else item for item in job])
    printed, _, processor = watch([sys.executable, str(script), task])
    return dict(json.loads(printed.splitlines()[-1])) | {"processor": processor}


def speed(few: Path, many: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    """Return texts a second of each way, and what else was measured with it."""
    cores, rows = usable_cores(), pq.read_metadata(many).num_rows
    script = scratch / "engine.py"
    script.write_text(ENGINE)
    ways = {
        "local": (cores, 1),
        "local, threads": (1, 0),
        "local, one": (1, 1),
        "ray": (cores, 1),
        "ray, one": (1, 1),
    }
    best: dict[str, dict[str, Any]] = {}
    for number in tqdm(range(rounds), desc="rounds"):
        for batch_size in (BATCH_SIZE, 32):
            bare = run_fresh(["-c", BARE], [str(many), batch_size, 0])
            name = f"session, batches of {batch_size}"
            best[name] = max(best.get(name, bare), bare, key=lambda way: way["texts_per_s"])
        for name, (workers, threads) in ways.items():
            engine = name.partition(",")[0]
            start, whole = (
                run_engine(
                    script, engine, path, scratch / f"{name} {number} {path.stem}", workers, threads, "float16"
                )
                for path in (few, many)
            )
            measured = {
                "texts_per_s": (rows - FEW) / (whole["embed"] - start["embed"]),
                "processor_ms_per_text": 1000 * (whole["processor"] - start["processor"]) / (rows - FEW),
                "start_seconds": sum(start.values()) - start["processor"],
                "seconds": whole,
            }
            best[name] = max(best.get(name, measured), measured, key=lambda way: way["texts_per_s"])
    return best


def memory(texts: list[str], sizes: list[int], scratch: Path) -> dict[str, dict[int, float]]:
    """Return the peak memory of each engine, in MB, by rows: the first words of texts, again and again."""
    peaks: dict[str, dict[int, float]] = {"local": {}, "ray": {}}
    short = [" ".join(text.split()[:5]) for text in texts]
    for size in sizes:
        path = write_texts((short * (size // len(short) + 1))[:size], scratch / f"memory{size}.parquet")
        for engine, by_rows in peaks.items():
            command = [sys.executable, "-m", "asterisk.cli", "embed", str(path), "--id_column", "number"]
            output = scratch / f"memory {engine} {size}"
            by_rows[size] = watch([*command, "--engine", engine, "--output", str(output)])[1]
    return peaks


def storage(scratch: Path, texts: list[str]) -> dict[str, dict[str, float]]:
    """Return what a vector and its entry in an index of usearch need, and what the index finds."""
    encoder = AsteriskEncoder(released_model())
    vectors = encoder.encode(texts, BATCH_SIZE)
    queries = np.random.default_rng(SEED).permutation(len(texts))[:QUERIES]
    exact = np.argsort(-(vectors[queries] @ vectors.T), axis=1)[:, :NEIGHBOURS]
    kinds: dict[Precision, tuple[str, str]] = {
        "float16": ("cos", "f16"),
        "int8": ("cos", "i8"),
        "binary": ("hamming", "b1"),
    }
    found: dict[str, dict[str, float]] = {}
    for precision in PRECISIONS:
        packed = pack(vectors, precision)
        metric, kind = kinds[precision]
        index = Index(ndim=vectors.shape[1], metric=metric, dtype=kind)
        processor = time.process_time()
        index.add(np.arange(len(packed)), packed)
        building = time.process_time() - processor
        started = time.perf_counter()
        hits = [index.search(packed[query], NEIGHBOURS).keys for query in queries]
        searching = time.perf_counter() - started
        path = scratch / f"{precision}.usearch"
        index.save(str(path))
        found[precision] = {
            "bytes_per_row": packed[0].nbytes,
            "index_bytes_per_row": path.stat().st_size / len(packed),
            "index_processor_ms_per_row": 1000 * building / len(packed),
            "search_ms": 1000 * searching / len(queries),
            "recall": 100
            * float(np.mean([len({*a} & {*b}) / NEIGHBOURS for a, b in zip(hits, exact, strict=True)])),
        }
    return found


def main() -> None:
    """Measure everything and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=Path, default=Path("data/pairs"), help="text pairs to embed")
    add("--texts", type=int, default=20_000, help="how many texts")
    add("--rounds", type=int, default=2, help="how often each way is timed")
    add("--rows", type=int, nargs="+", default=[50_000, 200_000], help="rows for the peak memory, growing")
    add("--output", type=Path, default=Path("build/results"), help="directory of the results")
    arguments = parser.parse_args()
    # Else other work on the machine holds up Ray alone.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    texts = sample_texts(arguments.pairs, arguments.texts)
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        few, many = (write_texts(texts[:count], scratch / f"{count}.parquet") for count in (FEW, len(texts)))
        figures: dict[str, Any] = {
            "texts": len(texts),
            "characters": sum(map(len, texts)) / len(texts),
            "storage": storage(scratch, texts),
            "speed": speed(few, many, scratch, arguments.rounds),
            "memory": memory(texts, arguments.rows, scratch),
        }
    table = [
        [name, f"{way['processor_ms_per_text']:.2f}", f"{way['texts_per_s']:.0f}"]
        for name, way in figures["speed"].items()
    ]
    facts = {"model": Path(released_model()).name} | machine_facts(0)
    write_report(
        arguments.output / "scale",
        "Bulk embedding",
        markdown_table(["way", "ms of the processor a text", "texts a second"], table),
        figures,
        facts,
    )


if __name__ == "__main__":
    run(main)

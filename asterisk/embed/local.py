"""Embed on one machine: worker processes, each with one thread of ONNX Runtime.

One process reads, and hands blocks of rows to the workers; these tokenise them, sort them by length and embed
them. Blocks come back in order and make up files. A file holds the vectors of `rows_per_file` rows of the input.
Which rows those are depends on the input alone: a run that goes on after a kill makes the files that are missing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from asterisk.embed.job import EMBEDDING, Counts, Job
from asterisk.embed.reading import PROBLEM, TEXT, read
from asterisk.embed.vectors import Precision, pack, vector_array
from asterisk.encoder import AsteriskEncoder
from asterisk.errors import InputError
from asterisk.files import atomic_path

# What a worker gets at a time. Sorted by length, larger blocks need hardly less padding, and workers end together.
BLOCK_ROWS, BLOCK_BYTES = 1024, 1 << 24
BATCH_SIZE = 8  # what one core works on stays in its cache
ENGINE = "local"
METADATA = b"asterisk"  # the key in a file's metadata under which the rows of the input are counted
encoder: AsteriskEncoder  # that of a worker


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def embed_table(table: pa.Table, encoder: AsteriskEncoder, dim: int, precision: Precision) -> pa.Table:
    """Put vectors in the place of texts; rows without a text get none."""
    texts = table[TEXT]
    vectors = encoder.encode(
        texts.drop_null().to_pylist(), BATCH_SIZE, truncate_dim=dim if dim < encoder.dim else None
    )
    column = vector_array(pack(vectors, precision), np.array(texts.is_valid()))
    return table.drop_columns([TEXT]).append_column(EMBEDDING, column)


def end_with_parent() -> None:
    """End this worker when the process that reads has been killed."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def start_worker(model: str, threads: int) -> None:
    """Load the model, once in each worker."""
    global encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process that reads; it ends the workers
    Thread(target=end_with_parent, daemon=True).start()
    if threads == 1:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    encoder = AsteriskEncoder(model, threads=threads)


def embed_block(table: pa.Table, dim: int, precision: Precision) -> pa.Table:
    """Embed a block in a worker."""
    return embed_table(table, encoder, dim, precision)


def blocks(job: Job) -> Iterator[tuple[int, pa.Table, float | None]]:
    """Yield the number of a file, rows that go into it, and the share of the input that has been read."""
    row, waiting, size = 0, [], 0
    share: float | None = None
    for table, share in read(job):
        while len(table):
            part = table.slice(0, job.rows_per_file - row % job.rows_per_file)
            table = table.slice(len(part))
            waiting.append(part)
            row += len(part)
            size += part.nbytes
            if row % job.rows_per_file == 0 or sum(map(len, waiting)) >= BLOCK_ROWS or size >= BLOCK_BYTES:
                yield (row - 1) // job.rows_per_file, pa.concat_tables(waiting).combine_chunks(), share
                waiting, size = [], 0
    if waiting:
        yield (row - 1) // job.rows_per_file, pa.concat_tables(waiting).combine_chunks(), share


def file_name(number: int) -> str:
    """Return the name of a file of vectors."""
    return f"part-{number:06}.parquet"


def written_rows(path: Path) -> tuple[int, int]:
    """Return the rows of a file of vectors, and those of the input that it stands for; zeros if it is damaged."""
    try:
        metadata = pq.read_metadata(path)
        return metadata.num_rows, json.loads(metadata.metadata[METADATA])["rows_in"]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return 0, 0


@dataclass
class Writer:
    """Collects the blocks of a file, which must come in order, and writes it when it is whole."""

    job: Job
    number: int = -1

    def __post_init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.rows_in = 0

    def add(self, number: int, table: pa.Table) -> None:
        """Take a block of a file."""
        if number != self.number:
            self.flush()
            self.number = number
        self.rows_in += len(table)
        if self.job.on_error == "skip":
            table = table.filter(table[PROBLEM].is_null())
        self.tables.append(table.drop_columns([PROBLEM]))

    def flush(self) -> None:
        """Write the file, whole or not at all."""
        if not self.tables:
            return
        table = pa.concat_tables(self.tables)
        rows = json.dumps({"rows_in": self.rows_in}).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: rows})
        # Vectors do not get smaller by compression.
        compression = dict.fromkeys(table.column_names, "zstd") | {f"{EMBEDDING}.list.element": "none"}
        compression.pop(EMBEDDING)
        with atomic_path(self.job.output / file_name(self.number)) as temporary:
            pq.write_table(
                table, temporary, compression=compression, use_dictionary=False, write_statistics=[self.job.key]
            )
        self.tables, self.rows_in = [], 0


def embed_locally(job: Job, workers: int = 0, threads: int = 1) -> dict[str, Any]:
    """Embed the sources of a job into its directory; what is there already is left as it is.

    Args:
        job: What to embed.
        workers: Processes; 0 means one for each core.
        threads: Threads of each; 0 means all cores.

    Returns:
        The manifest.

    Raises:
        InputError: If an input cannot be read, or the directory holds something else.
    """
    started = time.monotonic()
    if manifest := job.start(ENGINE):
        return manifest
    for left in job.output.glob(".part-*.tmp"):  # by a run that was killed
        left.unlink()
    counts, seen, skipped = Counts(), 0, 0
    rows_in: dict[int, int] = {}
    done = {
        number: rows
        for path in sorted(job.output.glob("part-*.parquet"))
        if (rows := written_rows(path)[1]) and (number := int(path.stem.removeprefix("part-"))) >= 0
    }
    pool = ProcessPoolExecutor(
        workers or usable_cores(),
        multiprocessing.get_context("spawn"),
        initializer=start_worker,
        initargs=(job.model, threads),
    )
    pending: deque[tuple[int, Future[pa.Table]]] = deque()
    writer = Writer(job)
    progress = tqdm(desc="embed", unit=" rows", disable=None, smoothing=0)

    def take() -> None:
        number, future = pending.popleft()
        table = future.result()
        writer.add(number, table)
        progress.update(len(table))

    try:
        for number, table, share in blocks(job):
            seen += len(table)
            progress.total = int(seen / share) if share else None
            counts.rows += len(table)
            rows_in[number] = rows_in.get(number, 0) + len(table)
            counts.report(table[PROBLEM].drop_null().to_pylist(), job.on_error)
            if number in done:
                skipped += len(table)
                progress.initial = skipped
                progress.update(len(table))
                continue
            while len(pending) > 2 * (workers or usable_cores()):
                take()
            pending.append((number, pool.submit(embed_block, table, job.dim, job.precision)))
        while pending:
            take()
        writer.flush()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, perhaps for want of memory; run the same command again to go on"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        progress.close()
    files = check(job, rows_in)
    schema = pq.read_schema(job.output / file_name(0)) if files else pa.schema([])
    return job.finish(schema, files, counts, {"embed": time.monotonic() - started})


def check(job: Job, rows_in: dict[int, int]) -> dict[str, int]:
    """Prove that every row of the input is in the files, once; return the rows of each file.

    Each file says for how many rows of the input it stands; files stand for rows that follow each other.

    Raises:
        RuntimeError: If a file is missing or holds other rows than its part of the input.
    """
    files = {}
    for number, expected in rows_in.items():
        path = job.output / file_name(number)
        rows, found = written_rows(path)
        if found != expected:
            raise RuntimeError(f"{path}: stands for {found:,} rows of the input instead of {expected:,}")
        files[path.name] = rows
    others = {path.name for path in job.output.glob("*.parquet")} - files.keys()
    if others:
        raise RuntimeError(f"{job.output}: {sorted(others)[0]} belongs to no part of the input")
    return files

"""Embed on a cluster with Ray Data: read, an actor pool of encoders, write.

What is not Ray's is the reading of text files row by row, and the proof at the end.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.block import Block
from ray.data.checkpoint import CheckpointConfig
from ray.data.datasource import FileBasedDatasource
from ray.data.expressions import col
from ray.exceptions import RayError

from asterisk.embed.job import Counts, Job
from asterisk.embed.local import BLOCK_ROWS, embed_table, usable_cores
from asterisk.embed.reading import PROBLEM, arrow_table, check_columns, file_format, stream_tables
from asterisk.encoder import AsteriskEncoder
from asterisk.errors import InputError, first_line

ENGINE = "ray"
CHECKPOINT = ".checkpoint"  # in the output; readers of Parquet directories pass over it
# Reading and writing wait for disks; the cores are for the encoders.
LIGHT: dict[str, Any] = {"num_cpus": 0.25, "memory": 512 << 20}
# Ray lists files in a task that takes a core, and filters by the checkpoint in an actor that does. With an encoder
# on each core, these would wait for ever.
OTHERS = 2
# A block is what an encoder gets at a time. Ray's own size, 128 MiB, is minutes of work.
BLOCK_BYTES = 4 << 20


class TextFiles(FileBasedDatasource):
    """JSON lines, tables and text files, a file at a time."""

    def __init__(self, job: Job) -> None:
        self.job, self.names = job, {str(Path(source).resolve()): source for source in job.sources}
        super().__init__(list(self.names))

    def _read_stream(self, f: pa.NativeFile, path: str) -> Iterator[Block]:
        yield from stream_tables(io.BufferedReader(f, 1 << 20), self.names[path], self.job)


class Encoder:
    """An actor that holds a model: batches of texts in, vectors out."""

    def __init__(self, job: Job) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self.job, self.encoder = job, AsteriskEncoder(job.model, threads=1)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Embed a batch."""
        if self.job.on_error == "skip":
            table = table.filter(table[PROBLEM].is_null())
        return embed_table(table.drop_columns([PROBLEM]), self.encoder, self.job.dim, self.job.precision)


def open_rows(job: Job) -> Dataset:
    """Open the sources as rows of ids, text and what is wrong with a malformed row.

    Raises:
        InputError: If a file lacks a column, Parquet files and others are mixed, or it is a dataset on the Hub.
    """
    if job.revision is not None:
        # Ray's own reader of such datasets would take another revision than the one that was found.
        raise InputError(
            f"--engine ray reads files; bring them here with: hf download --repo-type dataset {job.sources[0]}"
        )
    formats = {file_format(source) == ".parquet" for source in job.sources}
    if len(formats) > 1:
        raise InputError("--engine ray: name Parquet files or text files, not both")
    if not formats.pop():
        return ray.data.read_datasource(TextFiles(job), **LIGHT)
    if not job.id_columns:
        raise InputError("--engine ray: choose a column of ids, each there once, with --id_column")
    name = job.sources[0] if len(job.sources) == 1 else f"{len(job.sources)} files"
    for source in job.sources:
        try:
            check_columns(source, pq.read_schema(source).names, job)
        except pa.ArrowException as error:
            raise InputError(f"{source}: damaged ({first_line(error)})") from error
    paths = [str(Path(source).resolve()) for source in job.sources]
    rows = ray.data.read_parquet(paths, **LIGHT).select_columns([job.column, *job.id_columns])
    return rows.map_batches(
        lambda table: arrow_table(table, name, None, job), batch_size=BLOCK_ROWS, batch_format="pyarrow", **LIGHT
    )


def count_batch(table: pa.Table, job: Job) -> pa.Table:
    """Count the rows of a batch and name its malformed ones, in a worker whose words Ray passes on.

    Raises:
        InputError: If a row has no id.
    """
    if table[job.key].null_count:
        raise InputError(f"a row has no {job.key}; with --engine ray each needs an id of its own")
    problems = table[PROBLEM].drop_null().to_pylist()
    counts = Counts()
    counts.report(problems, job.on_error)
    return pa.table({"rows": [len(table)], "malformed": [len(problems)]})


def count(job: Job) -> Counts:
    """Read everything once without embedding it; the counts are what the output must hold."""
    counted = open_rows(job).map_batches(
        lambda table: count_batch(table, job), batch_size=BLOCK_ROWS, batch_format="pyarrow", **LIGHT
    )
    sums = counted.sum(["rows", "malformed"])
    return Counts(int(sums["sum(rows)"] or 0), int(sums["sum(malformed)"] or 0))


def write(job: Job, workers: int) -> None:
    """Embed what the checkpoint does not name, in as many actors as there are workers."""
    rows = open_rows(job).map_batches(
        Encoder,
        fn_constructor_args=(job,),
        batch_size=BLOCK_ROWS,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    rows.write_parquet(
        str(job.output.resolve()),
        min_rows_per_file=job.rows_per_file,
        max_rows_per_file=job.rows_per_file,
        ray_remote_args=LIGHT,
    )


def repeated(job: Job) -> int:
    """Return how many ids are in the output more than once."""
    if not any(job.output.glob("*.parquet")):
        return 0
    ids = ray.data.read_parquet(str(job.output.resolve())).select_columns([job.key])
    return int(ids.groupby(job.key).count().filter(expr=col("count()") > 1).count())


def embed_on_ray(job: Job, address: str | None = None, workers: int = 0) -> dict[str, Any]:
    """Embed the sources of a job into its directory with Ray Data, and go on where an earlier run was ended.

    Args:
        job: What to embed. All machines of the cluster must see its files under the same paths.
        address: A running cluster, or `auto`; None starts one on this machine.
        workers: Encoders, a core each; 0 means one for each core, less two of a running cluster.

    Returns:
        The manifest.

    Raises:
        InputError: If an input cannot be read, or the directory holds something else.
        RuntimeError: If rows are missing in the output, or in it twice.
    """
    if manifest := job.start(ENGINE):
        return manifest
    started_here = not ray.is_initialized()
    times = [time.monotonic()]
    if started_here:
        try:
            here: dict[str, Any] = {"num_cpus": (workers or usable_cores()) + OTHERS, "include_dashboard": False}
            ray.init(address, logging_level=logging.WARNING, **({} if address else here))
        except ConnectionError as error:
            raise InputError(f"--address {address}: no Ray cluster answers there") from error
    context = DataContext.get_current()
    if not sys.stderr.isatty():
        logging.getLogger("ray.data").setLevel(logging.WARNING)  # else a line for each step every few seconds
    context.target_max_block_size = BLOCK_BYTES
    checkpoint = job.output / CHECKPOINT
    try:
        times.append(time.monotonic())
        counts = count(job)
        times.append(time.monotonic())
        # Not deleted by Ray at the end of the writing, but after the proof.
        context.checkpoint_config = CheckpointConfig(
            job.key, str(checkpoint.resolve()), delete_checkpoint_on_success=False
        )
        write(job, workers or max(1, int(ray.cluster_resources()["CPU"]) - OTHERS))
        times.append(time.monotonic())
        context.checkpoint_config = None
        if twice := repeated(job):
            raise RuntimeError(f"{twice:,} values of {job.key} are in {job.output} more than once")
        files = {path.name: pq.read_metadata(path).num_rows for path in sorted(job.output.glob("*.parquet"))}
        schema = pq.read_schema(job.output / next(iter(files))) if files else pa.schema([])
        times.append(time.monotonic())
        parts = dict(zip(("start", "count", "embed", "proof"), np.diff(times).tolist(), strict=True))
        manifest = job.finish(schema, files, counts, parts)
        shutil.rmtree(checkpoint)
        return manifest
    except RayError as error:
        # The exception of a worker comes as text.
        if mistake := re.search(r"InputError: (.+)", str(error)):
            raise InputError(mistake[1]) from error
        raise
    finally:
        context.checkpoint_config = None
        if started_here:
            ray.shutdown()

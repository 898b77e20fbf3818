"""Datasets on the Hub, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import datasets
import httpx
import huggingface_hub
import pyarrow as pa
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from asterisk.embed.job import Job
from asterisk.embed.reading import ROWS, arrow_table, check_columns
from asterisk.errors import InputError, first_line

if TYPE_CHECKING:
    from datasets import IterableDataset


def find_revision(name: str) -> str:
    """Return the commit that the main branch of a dataset is at, so that a run that goes on reads the same.

    Raises:
        InputError: If there is no such file or dataset, or the Hub does not answer.
    """
    try:
        return str(huggingface_hub.HfApi().dataset_info(name, timeout=10).sha)
    except HFValidationError as error:
        raise InputError(f"{name}: no such file, and not the id of a dataset on the Hub either") from error
    except HfHubHTTPError as error:
        raise InputError(f"{name}: no such file, and no such dataset on the Hub; check the name") from error
    except (OSError, httpx.HTTPError) as error:
        raise InputError(f"{name}: no such file, and the Hugging Face Hub cannot be reached") from error


def open_dataset(job: Job) -> IterableDataset:
    """Open the dataset without reading its rows.

    Raises:
        InputError: If it cannot be read, or lacks a column.
    """
    datasets.utils.logging.set_verbosity_error()
    name = job.sources[0]
    try:
        rows = datasets.load_dataset(name, split=job.split, revision=job.revision, streaming=True)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        raise InputError(f"{name}, split {job.split}: {first_line(error)}") from error
    if rows.column_names:
        check_columns(name, rows.column_names, job)
        rows = rows.select_columns([job.column, *job.id_columns])
    return rows


def hub_tables(job: Job) -> Iterator[pa.Table]:
    """Read a dataset from the Hub as it arrives.

    Raises:
        InputError: If it cannot be read, or lacks a column.
    """
    row = 0
    try:
        for table in open_dataset(job).with_format("arrow").iter(ROWS):
            yield arrow_table(table, job.sources[0], row + 1, job)
            row += len(table)
    except (OSError, RuntimeError, httpx.HTTPError) as error:
        raise InputError(
            f"{job.sources[0]} row {row + 1}: {first_line(error)}; run the same command again to go on"
        ) from error

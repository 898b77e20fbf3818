"""Embed many texts into Parquet files: on all cores of one machine, or on a cluster with Ray Data."""

from pathlib import Path
from typing import Any

from asterisk.embed.job import Job
from asterisk.embed.local import embed_locally
from asterisk.embed.reading import check_sources, is_hub_dataset

__all__ = ["Job", "embed_locally", "make_job"]


def make_job(sources: list[str], output: Path, model: str, **settings: Any) -> Job:
    """Check what is to be embedded.

    Args:
        sources: Files, or the id of one dataset on the Hub.
        output: Directory of the Parquet files.
        model: Model directory or Hub id.
        settings: Further attributes of a `Job`.

    Raises:
        InputError: If a source is missing or of an unknown type, or the Hub does not answer.
    """
    check_sources(sources)
    if is_hub_dataset(sources):
        from asterisk.embed.hub_dataset import find_revision

        settings["revision"] = find_revision(sources[0])
    return Job(sources, output, model, **settings)

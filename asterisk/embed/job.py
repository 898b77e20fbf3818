"""What is to be embedded and how, and the manifest of what has been."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from asterisk.embed.vectors import Precision, scale, vector_type
from asterisk.encoder import AsteriskEncoder
from asterisk.errors import InputError
from asterisk.files import read_json, write_json

# Readers of Parquet directories pass over names that begin with an underscore.
MANIFEST = "_manifest.json"
EMBEDDING = "embedding"
PLACE = "id"  # the column that says where a row came from, if no other is chosen
SHOWN = 10  # malformed rows named one by one


@dataclass
class Job:
    """What to embed and how.

    Attributes:
        sources: Files, or one Hub dataset.
        output: Directory of the Parquet files.
        model: Model directory or Hub id.
        column: The column of the texts.
        id_columns: Columns to keep; without any, `id` says where each row came from.
        precision: Type of the numbers.
        truncate_dim: Keep the first so many numbers of a vector; all if None.
        on_error: Whether a malformed row is kept, without a vector, or left out.
        split: Which split of a Hub dataset.
        rows_per_file: Rows of the input that go into one file.
        revision: The commit of the Hub dataset.
    """

    sources: list[str]
    output: Path
    model: str
    column: str = "text"
    id_columns: Sequence[str] = ()
    precision: Precision = "float16"
    truncate_dim: int | None = None
    on_error: str = "null"
    split: str = "train"
    rows_per_file: int = 65_536
    revision: str | None = None

    def __post_init__(self) -> None:
        self.id_columns = list(self.id_columns)
        if EMBEDDING in self.id_columns:
            raise InputError(f"--id_column {EMBEDDING}: the vectors take this name; rename the column")
        if self.column in self.id_columns:
            raise InputError(f"--id_column {self.column}: this is the column of the texts; choose another")
        encoder = AsteriskEncoder(self.model, threads=1)
        if self.truncate_dim and self.truncate_dim > encoder.dim:
            raise InputError(f"--truncate_dim {self.truncate_dim}: the model's vectors have {encoder.dim} numbers")
        self.dim = self.truncate_dim or encoder.dim
        if self.precision == "binary" and self.dim % 8:
            raise InputError(f"--truncate_dim {self.dim}: for --precision binary it must be a multiple of 8")
        self.model_fingerprint = encoder.fingerprint

    @property
    def key(self) -> str:
        """The column that tells rows apart."""
        return self.id_columns[0] if self.id_columns else PLACE

    @property
    def vector_type(self) -> pa.DataType:
        """The type of the column of vectors."""
        return vector_type(self.dim, self.precision)

    def recipe(self, engine: str) -> dict[str, Any]:
        """Say what decides the content of the files."""
        stats = [Path(source).stat() for source in self.sources if self.revision is None]
        inputs = [
            {"path": source, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            for source, stat in zip(self.sources, stats, strict=False)
        ] or [{"dataset": self.sources[0], "revision": self.revision, "split": self.split}]
        kept = ("column", "id_columns", "precision", "on_error", "rows_per_file")
        return {
            "engine": engine,
            "model_fingerprint": self.model_fingerprint,
            "dim": self.dim,
            "inputs": inputs,
            **{name: value for name, value in asdict(self).items() if name in kept},
        }

    def start(self, engine: str) -> dict[str, Any]:
        """Say in the manifest what is being made.

        Returns:
            The manifest if all has been made before, else nothing.

        Raises:
            InputError: If the directory holds something else.
        """
        recipe, found = self.recipe(engine), read_json(self.output / MANIFEST)
        others = {path.name for path in self.output.iterdir()} - {MANIFEST} if self.output.exists() else set()
        if not others:  # an error left the manifest alone
            found = {}
        if not found and others:
            raise InputError(f"{self.output}: not empty, and no earlier output either; choose another --output")
        if found and found["recipe"] != recipe:
            changed = ", ".join(key for key in recipe if found["recipe"].get(key) != recipe[key])
            raise InputError(
                f"{self.output}: made with another {changed}; choose another --output, or delete the directory"
            )
        if found.get("files") and all(
            rows_of(self.output / name) == rows for name, rows in found["files"].items()
        ):
            return found
        if not found:
            write_json(self.output / MANIFEST, {"recipe": recipe})
        return {}

    def finish(
        self,
        schema: pa.Schema,
        files: dict[str, int],
        counts: Counts,
        seconds: dict[str, float],
    ) -> dict[str, Any]:
        """Write the manifest of the finished directory, and return it.

        Args:
            schema: That of the files.
            files: Rows of each file.
            counts: Rows read and malformed.
            seconds: How long each part of the run that finished it took.

        Raises:
            RuntimeError: If rows are missing or there are too many.
        """
        expected = counts.rows - (counts.malformed if self.on_error == "skip" else 0)
        if sum(files.values()) != expected:
            raise RuntimeError(
                f"{self.output}: {sum(files.values()):,} rows written, but {expected:,} read; the output is not "
                "complete: delete it and run the same command again"
            )
        manifest = {
            "recipe": read_json(self.output / MANIFEST)["recipe"],  # not of an input that has changed since
            "model": self.model,
            "version": version("asterisk-embedding"),
            "schema": {name: str(schema.field(name).type) for name in schema.names},
            **({"scale": scale(self.dim)} if self.precision == "int8" else {}),
            "rows_in": counts.rows,
            "rows_out": expected,
            "malformed": counts.malformed,
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "files": files,
        }
        write_json(self.output / MANIFEST, manifest)
        return manifest


def rows_of(path: Path) -> int | None:
    """Return the rows of a Parquet file; None if it is not there or damaged."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return None


@dataclass
class Counts:
    """Rows read, and how many of them are malformed."""

    rows: int = 0
    malformed: int = 0

    def report(self, problems: list[str], on_error: str) -> None:
        """Count malformed rows, and name the first ones."""
        for problem in problems:
            self.malformed += 1
            if self.malformed <= SHOWN:
                kept = "kept without a vector" if on_error == "null" else "left out"
                tqdm.write(f"{problem}; {kept}", file=sys.stderr)
            elif self.malformed == SHOWN + 1:
                tqdm.write("further malformed rows are only counted", file=sys.stderr)

"""Rows of files and Hub datasets as Arrow tables: the chosen ids, the text, and what is wrong with the row, if so.

The reading of Parquet is PyArrow's, that of a Hub dataset is done by `datasets`. JSON lines and tables are parsed
row by row with the standard library, because PyArrow gives up a whole block for one malformed row.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from asterisk.embed.job import PLACE, Job
from asterisk.errors import InputError, first_line
from asterisk.files import bounded_lines

TEXT, PROBLEM = "__text", "__problem"
TABLES, LINES = (".csv", ".tsv"), (".jsonl", ".ndjson", ".txt")
FORMATS = (".parquet", *TABLES, *LINES)
ROWS, CHARACTERS = 1024, 1 << 23  # of a table, at most; so many characters end it early
Numbered = Iterator[tuple[int, dict[str, Any] | ValueError]]  # a row, or what is wrong with it


def compression(name: str) -> str | None:
    """Return how a file is compressed, by its name."""
    try:
        return str(pa.Codec.detect(name).name)
    except (ValueError, TypeError):
        return None


def file_format(name: str) -> str:
    """Return the suffix that says what is in a file, that of its compression aside; empty if it is unknown."""
    path = Path(name.lower())
    suffix = path.with_suffix("").suffix if compression(path.name) else path.suffix
    return suffix if suffix in FORMATS else ""


def check_sources(sources: list[str]) -> None:
    """Refuse what is neither a file of a known type nor looks like one Hub dataset.

    Raises:
        InputError: If there is such a source, a file is missing or named twice, or a Hub dataset is not alone.
    """
    twice = {source for source in sources if sources.count(source) > 1}
    if twice:
        raise InputError(f"{sorted(twice)[0]}: named twice; its rows would be embedded twice")
    if is_hub_dataset(sources):
        return
    for source in sources:
        path = Path(source)
        if path.is_dir():
            raise InputError(f"{source}: a directory; name its files, as in {source}/*.parquet")
        if not path.is_file() and (file_format(source) or len(sources) == 1):
            raise InputError(f"{source}: no such file")
        if not path.is_file():
            raise InputError(f"{source}: no such file; a Hub dataset must be the only source")
        if not file_format(source):
            raise InputError(f"{source}: not one of the types {' '.join(FORMATS)}, also as .gz and .zst")


def is_hub_dataset(sources: list[str]) -> bool:
    """Say whether the only source is no file, but may be the id of a dataset."""
    name = sources[0]
    looks_so = not Path(name).exists() and not file_format(name) and name.count("/") < 2
    return len(sources) == 1 and looks_so and not name.startswith((".", "/", "~"))


def line_rows(stream: BinaryIO, name: str, column: str) -> Numbered:
    """Read a text a line, or a JSON object a line; blank lines of the latter are no rows."""
    plain = file_format(name) == ".txt"
    for number, line in enumerate(bounded_lines(stream), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if plain:
                yield number, {column: text}
            elif text.strip():
                row = json.loads(text)
                yield (
                    number,
                    row if isinstance(row, dict) else ValueError(f"a JSON {type(row).__name__}, no object"),
                )
        except UnicodeDecodeError:
            yield number, ValueError("not UTF-8")
        except (ValueError, RecursionError) as error:
            yield number, ValueError(f"not JSON ({first_line(error)})")


def table_rows(stream: BinaryIO, name: str) -> Numbered:
    """Read a TSV (no quoting) or CSV file with a header line.

    Raises:
        InputError: If there is no header.
    """
    style: dict[str, Any] = {"strict": True}
    if file_format(name) == ".tsv":
        style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    csv.field_size_limit(1 << 23)  # bounds what a quote that is never closed can swallow
    # Bytes that are not UTF-8 become lone surrogates, which are found later, row by row.
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(bounded_lines(text), **style)
    try:
        header = next(rows, [])
    except csv.Error:
        header = []
    if not header:
        raise InputError(f"{name} line 1: no header; the first line must name the columns")
    while True:
        number = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            text.detach()  # it would close the file with its own end
            return
        except csv.Error as error:
            yield number, ValueError(f"not a row of cells ({error})")
            continue
        if len(cells) == len(header):
            yield number, dict(zip(header, cells, strict=True))
        elif cells:
            yield number, ValueError(f"{len(cells)} cells instead of {len(header)}")


def check_columns(name: str, found: Iterable[str], job: Job) -> None:
    """Refuse a source that lacks a column.

    Raises:
        InputError: If it does.
    """
    for option, column in [("column", job.column), *(("id_column", column) for column in job.id_columns)]:
        if column not in found:
            raise InputError(
                f"{name}: no column {column!r}; there are: {', '.join(found)}; choose with --{option}"
            )


def text_cell(row: dict[str, Any], column: str) -> str:
    """Return a text of a row.

    Raises:
        ValueError: If it has none, or one that is not UTF-8.
    """
    text = row.get(column)
    if not isinstance(text, str):
        raise ValueError(f"no {column}" if text is None else f"{column} is of type {type(text).__name__}, no text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{column} is not UTF-8") from None
    return text


def id_cell(row: dict[str, Any], column: str) -> str | None:
    """Return an id of a row, what is no text as JSON.

    Raises:
        ValueError: If it is a text that is not UTF-8.
    """
    value = row.get(column)
    return text_cell(row, column) if isinstance(value, str) else None if value is None else json.dumps(value)


def stream_tables(stream: BinaryIO, name: str, job: Job) -> Iterator[pa.Table]:
    """Read a text file, decompressed already, into tables; ids are texts.

    An id that cannot be read is the row's place, so that it can be found.
    """
    rows = table_rows(stream, name) if file_format(name) in TABLES else line_rows(stream, name, job.column)
    if file_format(name) == ".txt" and job.id_columns:
        raise InputError(f"{name}: a text file has no columns; leave --id_column out")
    schema = pa.schema([(column, pa.string()) for column in (*(job.id_columns or [PLACE]), TEXT, PROBLEM)])
    block: list[tuple[str | None, ...]] = []
    characters, checked = 0, False
    for number, row in rows:
        ids: list[str | None] = [f"{name}:{number}", *[None] * (len(job.id_columns) - 1)]
        text = problem = None
        try:
            if isinstance(row, ValueError):
                raise row
            if not checked:
                check_columns(name, row, job)
                checked = True
            ids = [id_cell(row, column) for column in job.id_columns] or ids
            text = text_cell(row, job.column)
        except InputError:
            raise
        except ValueError as error:
            problem = f"{name} line {number}: {error}"
        block.append((*ids, text, problem))
        characters += len(text or "")
        if len(block) == ROWS or characters > CHARACTERS:
            yield pa.table([list(column) for column in zip(*block, strict=True)], schema=schema)
            block, characters = [], 0
    if block:
        yield pa.table([list(column) for column in zip(*block, strict=True)], schema=schema)


def arrow_table(table: pa.Table, name: str, first_row: int | None, job: Job) -> pa.Table:
    """Bring rows that are Arrow already into the form of the other readers.

    Args:
        table: Rows with the columns that were asked for.
        name: Their source.
        first_row: Number of the first row, counted from one; if None, a row is named by its id.
        job: What to read.

    Raises:
        InputError: If the column of texts is of another type.
    """
    check_columns(name, table.column_names, job)
    texts = table[job.column].combine_chunks()
    if pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    if not (
        pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type) or pa.types.is_null(texts.type)
    ):
        raise InputError(f"{name}: column {job.column} is of type {texts.type}, no text; choose with --column")
    cells: list[str | None] | None = None
    try:
        texts.validate(full=True)
        texts = texts.cast(pa.string())
    except pa.ArrowInvalid:
        cells = [decoded(cell) for cell in texts.cast(pa.large_binary()).to_pylist()]
        was_there, texts = texts.is_valid().to_pylist(), pa.array(cells, pa.string())

    def problem(row: int) -> str:
        place = f"row {first_row + row}" if first_row is not None else f"{job.key} {table[job.key][row]}"
        return (
            f"{name} {place}: {job.column} is not UTF-8"
            if cells and was_there[row]
            else f"{name} {place}: no {job.column}"
        )

    problems = pa.nulls(len(table), pa.string())
    if texts.null_count:
        problems = pa.array(
            [None if present else problem(row) for row, present in enumerate(texts.is_valid().to_pylist())],
            pa.string(),
        )
    if job.id_columns:
        kept = table.select(job.id_columns)
    else:
        kept = pa.table({PLACE: [f"{name}:{(first_row or 1) + row}" for row in range(len(table))]})
    return kept.append_column(TEXT, texts).append_column(PROBLEM, problems)


def decoded(cell: bytes | None) -> str | None:
    """Return a text, or None if there is none or it is not UTF-8."""
    try:
        return None if cell is None else cell.decode()
    except UnicodeDecodeError:
        return None


def parquet_tables(file: BinaryIO, name: str, job: Job) -> Iterator[tuple[pa.Table, float]]:
    """Read a Parquet file; with each table comes the share of the file that has been read."""
    # Without a buffer for whole row groups: those of some files are as large as memory.
    parquet = pq.ParquetFile(file, pre_buffer=False)
    check_columns(name, parquet.schema_arrow.names, job)
    row, rows = 0, parquet.metadata.num_rows
    for batch in parquet.iter_batches(ROWS, columns=[job.column, *job.id_columns]):
        yield arrow_table(pa.Table.from_batches([batch]), name, row + 1, job), (row + len(batch)) / rows
        row += len(batch)


def file_tables(name: str, job: Job) -> Iterator[tuple[pa.Table, float]]:
    """Read a file; with each table comes the share of the file that has been read.

    Raises:
        InputError: If the file is damaged or lacks a column.
    """
    size = max(Path(name).stat().st_size, 1)
    try:
        with Path(name).open("rb") as file:
            if file_format(name) == ".parquet":
                yield from parquet_tables(file, name, job)
                return
            stream = io.BufferedReader(pa.input_stream(file, compression=compression(name)), 1 << 20)
            for table in stream_tables(stream, name, job):
                yield table, file.tell() / size
    except (pa.ArrowException, EOFError) as error:
        raise InputError(f"{name}: damaged ({first_line(error)}); nothing of what was embedded is lost") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputError(f"{name}: damaged ({first_line(error)}); nothing of what was embedded is lost") from error


def read(job: Job) -> Iterator[tuple[pa.Table, float | None]]:
    """Read all sources in turn; with each table comes the share that has been read, None if it is unknown.

    Raises:
        InputError: If one cannot be read.
    """
    if job.revision is not None:
        from asterisk.embed.hub_dataset import hub_tables

        yield from ((table, None) for table in hub_tables(job))
        return
    sizes = [Path(name).stat().st_size for name in job.sources]
    before, total = 0, max(sum(sizes), 1)
    for name, size in zip(job.sources, sizes, strict=True):
        for table, share in file_tables(name, job):
            yield table, (before + share * size) / total
        before += size

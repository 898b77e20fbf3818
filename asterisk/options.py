"""What the commands of `asterisk` share: options, and how they read what a person types."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from asterisk.errors import InputError

HOURS = {"h": 1, "d": 24, "w": 7 * 24, "m": 30 * 24, "y": 365 * 24}

Command = Callable[..., Any]


def options(*shared: Command) -> Command:
    """Return a decorator that gives a command the options that several have."""

    def decorate(function: Command) -> Command:
        for option in reversed(shared):
            function = option(function)
        return function

    return decorate


at_least = click.IntRange
MODEL = click.option("--model", metavar="NAME", help="Model directory or Hub id; else the released model.")
THREADS = click.option(
    "--threads", type=at_least(0), default=0, metavar="N", help="Threads of the encoder; 0 means all cores."
)
INDEX = click.option(
    "--index",
    "index_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The index; else $ASTERISK_INDEX, or a file of the user's data.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON, a line for each hit.")
LIMIT = click.option(
    "--limit", type=at_least(1), default=10, show_default=True, metavar="N", help="Show so many documents."
)
# Options of `embed` that need --output.
BULK = (
    click.option(
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Write Parquet files there, with all cores.",
    ),
    click.option("--column", default="text", show_default=True, metavar="NAME", help="The column of the texts."),
    click.option(
        "--id_column",
        "id_columns",
        multiple=True,
        metavar="NAME",
        help="Keep this column; without any, `id` says where a row came from.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["float16", "int8", "binary"]),
        default="float16",
        show_default=True,
        help="Type of the numbers.",
    ),
    click.option(
        "--on-error",
        "on_error",
        type=click.Choice(["null", "skip"]),
        default="null",
        show_default=True,
        help="Keep malformed rows without a vector, or leave them out.",
    ),
    click.option("--split", default="train", show_default=True, help="The split of a dataset on the Hub."),
    click.option(
        "--rows_per_file",
        type=at_least(1),
        default=65_536,
        show_default=True,
        metavar="N",
        help="Rows of the input that go into one file.",
    ),
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="This machine, or Ray Data.",
    ),
    click.option("--address", metavar="ADDRESS", help="A running Ray cluster, or auto; else one is started here."),
)
BULK_NAMES = ("column", "id_columns", "precision", "on_error", "split", "rows_per_file", "engine", "address")
PATHS = click.argument("roots", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))


def lines_of(name: str) -> Iterator[str]:
    """Yield the lines of a file, or of standard input for `-`.

    Raises:
        OSError: If it cannot be read.
        InputError: If it is not UTF-8.
    """
    with sys.stdin.buffer if name == "-" else Path(name).open("rb") as stream:
        for row, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if row == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(f"{name} line {row}: not UTF-8; save the file as UTF-8") from error


@contextmanager
def extra_packages(extra: str) -> Iterator[None]:
    """Name the extra that brings a missing package.

    Raises:
        InputError: If a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("asterisk"):
            raise
        raise InputError(
            f"this needs the package {error.name}: pip install 'asterisk-embedding[{extra}]'"
        ) from error


def checked_query(text: str) -> str:
    """Refuse a query that is no text.

    Raises:
        InputError: If it is empty or not UTF-8.
    """
    if not text.strip():
        raise InputError("the query is empty: say what to look for")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # what the shell passed could not be decoded
        raise InputError("the query is not UTF-8: set the terminal to UTF-8") from error
    return text


def duration(text: str) -> float:
    """Return seconds of so many hours, days, weeks, months or years.

    Raises:
        InputError: If it is none of these.
    """
    if text[:-1].isdecimal() and text[-1] in HOURS and (number := int(text[:-1])):
        return number * HOURS[text[-1]] * 3600.0
    raise InputError(f"{text!r} is no length of time: give 12h, 3d, 2w, 6m or 1y")


def since_time(text: str | None) -> float | None:
    """Return seconds since 1970 of a date, or of so many days, weeks, months or years ago.

    Raises:
        InputError: If it is neither.
    """
    if text is None:
        return None
    try:
        if text[-1:] in HOURS and text[:-1].isdecimal():
            return (datetime.datetime.now() - datetime.timedelta(seconds=duration(text))).timestamp()
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"--since is {text!r}: give a date such as 2026-01-31, or 30d, 2w, 6m, 1y") from error

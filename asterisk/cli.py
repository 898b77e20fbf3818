"""The console command `asterisk`: embed texts, index one's own files, search them.

Exit codes: 0, 1 where a search finds nothing, 2 for a mistake of the user.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from asterisk import errors
from asterisk.encoder import AsteriskEncoder
from asterisk.errors import InputError
from asterisk.released import released_model

if TYPE_CHECKING:
    from asterisk.search import Hit, Index

ROWS = 1024
DAYS = {"d": 1, "w": 7, "m": 30, "y": 365}

app = typer.Typer(
    help="Sentence embeddings, and a search of your own notes and pages, on this machine alone.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Format(str, Enum):
    """How vectors are written."""

    jsonl = "jsonl"
    npy = "npy"


class SearchMode(str, Enum):
    """What a search ranks by."""

    hybrid = "hybrid"
    semantic = "semantic"
    words = "words"


ModelOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Model directory or Hub id; else the released model.")
]
ThreadsOption = Annotated[
    int, typer.Option(min=0, metavar="N", help="Threads of the encoder; 0 means all cores.", show_default=False)
]
IndexOption = Annotated[
    Path | None,
    typer.Option("--index", metavar="FILE", help="The index; else $ASTERISK_INDEX, or a file of the user's data."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, a line for each hit.")]
LimitOption = Annotated[int, typer.Option(min=1, metavar="N", help="Show so many documents.")]
Roots = list[Path] | None
Texts = list[str] | None


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


@app.command(
    epilog="""\b
Examples:
  echo "a cat sat on the mat" | asterisk embed
  asterisk embed titles.txt --format npy > titles.npy
"""
)
def embed(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="Texts, one a line; - is stdin.")
    ] = None,
    format: Annotated[Format, typer.Option(help="JSON lines, or one NumPy array.")] = Format.jsonl,
    dim: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep the first so many numbers of each vector.")
    ] = None,
    model: ModelOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """Write the vectors of texts, one a line, to standard output."""
    encoder = AsteriskEncoder(model or released_model(), threads=threads)
    if format is Format.npy and sys.stdout.isatty():
        raise InputError("--format npy is not for a terminal: write it to a file with > vectors.npy")
    texts = (line for name in files or ["-"] for line in lines_of(name))
    if format is Format.npy:
        np.save(sys.stdout.buffer, encoder.encode(texts, truncate_dim=dim))
        return
    while block := list(islice(texts, ROWS)):
        for text, vector in zip(block, encoder.encode(block, truncate_dim=dim), strict=True):
            row = {"text": text, "embedding": [round(number, 7) for number in vector.tolist()]}
            typer.echo(json.dumps(row, ensure_ascii=False))


def open_index(path: Path | None, model: str | None = None, threads: int = 0) -> Index:
    """Open the index; nothing is read yet.

    Raises:
        InputError: If the packages that search needs are not installed.
    """
    try:
        from asterisk.search import Index
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("asterisk"):
            raise
        raise InputError(
            f"this needs the package {error.name}: pip install 'asterisk-embedding[search]'"
        ) from error
    return Index(path, model, threads)


@app.command(
    epilog="""\b
Examples:
  asterisk index ~/Notes ~/ArchiveBox
  asterisk index
  asterisk index --watch
"""
)
def index(
    roots: Annotated[Roots, typer.Argument(metavar="[PATH]...", help="Directories or files.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on while files change.")] = False,
    index: IndexOption = None,
    model: ModelOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """Read notes, pages, mail and PDF files into the index; later, only what has changed.

    Without a path, all directories that were indexed before are brought up to date. Left out are hidden files and
    directories, symbolic links, and what the patterns of a file .asteriskignore in the directory match.
    """
    opened = open_index(index, model, threads)
    from asterisk.search.terminal import report_lines

    report = opened.index(*(roots or []), progress=sys.stderr.isatty())
    typer.echo("\n".join(report_lines(report)))
    if watch:
        from asterisk.search.watch import changed_roots

        for changed in changed_roots(opened):
            if (report := opened.index(*changed)).touched:
                typer.echo("\n".join(report_lines(report)))


@app.command(
    epilog="""\b
Examples:
  asterisk search how did we fix the boiler
  asterisk search "sourdough" --tag recipes --since 1y --json
  asterisk search --mode words --path Projects/ invoice
"""
)
def search(
    query: Annotated[
        list[str] | None, typer.Argument(help="Words or a question; without, a prompt opens.")
    ] = None,
    limit: LimitOption = 10,
    mode: Annotated[SearchMode, typer.Option(help="By meaning and words, or by one of them.")] = SearchMode.hybrid,
    path: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Only where the path contains this.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Only with this tag, or one below it.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only since 2026-01-31, or 30d, 2w, 6m, 1y.")
    ] = None,
    as_json: JsonOption = False,
    index: IndexOption = None,
    model: ModelOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """Search by meaning and by words.

    At the prompt, which keeps the model loaded, each line is a query; the lines may also come from a pipe.
    """
    opened = open_index(index, model, threads)
    earliest = since_time(since)

    def find(text: str) -> list[Hit]:
        return opened.search(text, limit, mode.value, tuple(path or ()), tuple(tag or ()), earliest)

    if query:
        show(find(checked_query(" ".join(query))), " ".join(query), as_json)
        return
    opened.store(need_model=mode is not SearchMode.words)
    for line in prompted():
        hits = find(checked_query(line))
        if as_json:
            typer.echo(json.dumps({"query": line, "hits": [hit.as_dict() for hit in hits]}))
        else:
            print_hits(hits, line)


@app.command(
    epilog="""\b
Example:
  asterisk similar ~/Notes/Boiler.md --limit 5
"""
)
def similar(
    file: Annotated[Path, typer.Argument(help="A file in the index.")],
    limit: LimitOption = 10,
    as_json: JsonOption = False,
    index: IndexOption = None,
) -> None:
    """Find what is nearest in meaning to a note."""
    show(open_index(index).similar(file, limit), "", as_json)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False, index: IndexOption = None
) -> None:
    """Say what the index holds, and which files were left out and why."""
    found = open_index(index).status()
    from asterisk.search.terminal import status_lines

    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    for line in status_lines(found):
        typer.echo(line)


@app.command(
    epilog="""\b
Examples:
  asterisk prune
  asterisk prune ~/OldNotes
"""
)
def prune(
    roots: Annotated[Roots, typer.Argument(metavar="[PATH]...", help="Forget these, too.")] = None,
    index: IndexOption = None,
) -> None:
    """Forget what is no longer there, and give back its space."""
    typer.echo(f"{open_index(index).prune(*(roots or [])):,} files forgotten")


@app.command(
    epilog="""\b
Examples:
  asterisk serve
  curl "http://127.0.0.1:8737/search?q=boiler&limit=3"
  curl http://127.0.0.1:8737/v1/embeddings -d '{"input": ["a text", "another"]}'
"""
)
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="The port; 0 takes a free one.")] = 8737,
    origin: Annotated[list[str] | None, typer.Option(metavar="URL", help="Let pages from there ask, too.")] = None,
    index: IndexOption = None,
    model: ModelOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """Answer other programs on this machine: /search, and /v1/embeddings in the shape of OpenAI's."""
    opened = open_index(index, model, threads)
    from asterisk.search.serve import serve as run_server

    run_server(opened, port, origin or [], lambda address: typer.echo(f"serving {address}"))


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


def since_time(text: str | None) -> float | None:
    """Return seconds since 1970 of a date, or of so many days, weeks, months or years ago.

    Raises:
        InputError: If it is neither.
    """
    if text is None:
        return None
    now = datetime.datetime.now()
    try:
        if text[-1:] in DAYS and text[:-1].isdecimal():
            return (now - datetime.timedelta(days=int(text[:-1]) * DAYS[text[-1]])).timestamp()
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"--since is {text!r}: give a date such as 2026-01-31, or 30d, 2w, 6m, 1y") from error


def prompted() -> Iterator[str]:
    """Yield the lines that a person types at the prompt, or those of a pipe."""
    if not sys.stdin.isatty():
        yield from (line for line in lines_of("-") if line.strip())
        return

    while True:
        try:
            line = input("search> ")
        except EOFError:
            typer.echo()
            return
        if line.strip():
            yield line


def show(hits: list[Hit], query: str, as_json: bool) -> None:
    """Print the hits; exit code 1 says that there are none."""
    if as_json:
        for hit in hits:
            typer.echo(json.dumps(hit.as_dict()))
    else:
        print_hits(hits, query)
    if not hits:
        raise typer.Exit(1)


def print_hits(hits: list[Hit], query: str) -> None:
    """Print the hits for a person."""
    from asterisk.search.terminal import hit_lines

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for hit in hits:
        typer.echo("\n".join([*hit_lines(hit, query, colour), ""]))
    if not hits:
        typer.echo("nothing found", err=True)


def command() -> None:
    """Run the command line; a mistake in it is one line, as any other of the user."""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="asterisk", standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except Exception as error:
        # Typer's own, for an unknown option and the like.
        format_message: Callable[[], str] | None = getattr(error, "format_message", None)
        if format_message is None:
            raise
        raise InputError(f"{format_message().rstrip('.')}; see asterisk --help") from error
    sys.exit(code or 0)


def main() -> None:
    """Run the console command."""
    # A path that is not UTF-8 is written as it is on the disk.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    errors.run(command)


if __name__ == "__main__":
    main()

"""The console command `asterisk`: embed texts, index one's own files and search them, group the items of feeds.

Exit codes: 0, 1 where a search finds nothing, 2 for a mistake of the user.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from click.core import ParameterSource

from asterisk import errors
from asterisk.encoder import AsteriskEncoder
from asterisk.errors import InputError
from asterisk.options import (
    BULK,
    BULK_NAMES,
    INDEX,
    JSON,
    LIMIT,
    MODEL,
    PATHS,
    THREADS,
    at_least,
    checked_query,
    duration,
    extra_packages,
    lines_of,
    options,
    since_time,
)
from asterisk.released import released_model

if TYPE_CHECKING:
    from asterisk.search import Hit, Index
    from asterisk.search.ranking import Mode

ROWS = 1024


@click.group(context_settings={"max_content_width": 100})
@click.version_option(package_name="asterisk-embedding", message="%(version)s")
def app() -> None:
    """Sentence embeddings, and a search of your own notes and pages, on this machine alone."""


@app.command(
    epilog="""\b
Examples:
  echo "a cat sat on the mat" | asterisk embed
  asterisk embed titles.txt --format npy > titles.npy
  asterisk embed corpus/*.parquet --column text --id_column url --output vectors/
  asterisk embed corpus/*.parquet --id_column url --output vectors/ --engine ray --address auto
"""
)
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "npy"]),
    default="jsonl",
    show_default=True,
    help="JSON lines, or one NumPy array.",
)
@click.option(
    "--truncate_dim",
    "--dim",
    "dim",
    type=at_least(1),
    metavar="N",
    help="Keep the first so many numbers of each vector.",
)
@options(MODEL, THREADS, *BULK)
def embed(
    files: tuple[str, ...],
    form: str,
    dim: int | None,
    model: str | None,
    threads: int,
    output: Path | None,
    engine: str,
    address: str | None,
    **bulk: Any,
) -> None:
    """Write the vectors of texts to standard output, or those of many texts to Parquet files.

    A text is a line of the files, or of standard input for - or without a file. With --output, files are Parquet,
    JSON lines, CSV, TSV or text, also as .gz or .zst, or there is one id of a dataset on the Hub; interrupted, the
    same command goes on.
    """
    if output:
        embed_files(files, output, engine, address, threads, model=model, truncate_dim=dim, **bulk)
        return
    context = click.get_current_context()
    for option in BULK_NAMES:
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise InputError(f"--{option.removesuffix('s')} is for many texts: name a directory with --output")
    encoder = AsteriskEncoder(model or released_model(), threads=threads)
    if form == "npy" and sys.stdout.isatty():
        raise InputError("--format npy is not for a terminal: write it to a file with > vectors.npy")
    texts = (line for name in files or ("-",) for line in lines_of(name))
    if form == "npy":
        np.save(sys.stdout.buffer, encoder.encode(texts, truncate_dim=dim))
        return
    while block := list(islice(texts, ROWS)):
        for text, vector in zip(block, encoder.encode(block, truncate_dim=dim), strict=True):
            row = {"text": text, "embedding": [round(number, 7) for number in vector.tolist()]}
            click.echo(json.dumps(row, ensure_ascii=False))


def embed_files(
    files: tuple[str, ...],
    output: Path,
    engine: str,
    address: str | None,
    threads: int,
    model: str | None,
    **settings: Any,
) -> None:
    """Embed files into a directory.

    Raises:
        InputError: If a file cannot be read, or the packages that this needs are not installed.
    """
    if not files or "-" in files:
        raise InputError("--output is for files, or a dataset on the Hub: name them")
    with extra_packages("ray" if engine == "ray" else "embed"):
        from asterisk.embed import make_job

        job = make_job(list(files), output, model or released_model(), **settings)
        if engine == "ray":
            from asterisk.embed.ray_data import embed_on_ray

            manifest = embed_on_ray(job, address, workers=threads)
        else:
            from asterisk.embed.local import embed_locally

            manifest = embed_locally(job, workers=threads)
    click.echo(
        f"{output}: {manifest['rows_out']:,} rows in {len(manifest['files']):,} files, of {manifest['rows_in']:,} "
        f"read; {manifest['malformed']:,} malformed"
    )


def open_index(path: Path | None, model: str | None = None, threads: int = 0) -> Index:
    """Open the index; nothing is read yet.

    Raises:
        InputError: If the packages that search needs are not installed.
    """
    with extra_packages("search"):
        from asterisk.search import Index
    return Index(path, model, threads)


@app.command(
    epilog="""\b
Examples:
  asterisk index ~/Notes ~/ArchiveBox
  asterisk index
  asterisk index --watch
"""
)
@PATHS
@click.option("--watch", is_flag=True, help="Go on while files change.")
@options(INDEX, MODEL, THREADS)
def index(roots: tuple[Path, ...], watch: bool, index_file: Path | None, model: str | None, threads: int) -> None:
    """Read what is new or changed into the index.

    Read are notes, web pages, mail and PDF files. Without a path, all directories that were indexed before are
    brought up to date. Left out are hidden files and directories, symbolic links, and what the patterns of a file
    .asteriskignore in the directory match.
    """
    opened = open_index(index_file, model, threads)
    from asterisk.search.terminal import report_lines

    report = opened.index(*roots, progress=sys.stderr.isatty())
    click.echo("\n".join(report_lines(report)))
    if watch:
        from asterisk.search.watch import changed_roots

        for changed in changed_roots(opened):
            if (report := opened.index(*changed)).touched:
                click.echo("\n".join(report_lines(report)))


@app.command(
    epilog="""\b
Examples:
  asterisk search how did we fix the boiler
  asterisk search "sourdough" --tag recipes --since 1y --json
  asterisk search --mode words --path Projects/ invoice
"""
)
@click.argument("query", metavar="[QUERY]...", nargs=-1)
@LIMIT
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "semantic", "words"]),
    default="hybrid",
    show_default=True,
    help="By meaning and words, or by one of them.",
)
@click.option("--path", "paths", multiple=True, metavar="TEXT", help="Only where the path contains this.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only with this tag, or one below it.")
@click.option("--since", metavar="DATE", help="Only since 2026-01-31, or 30d, 2w, 6m, 1y.")
@options(JSON, INDEX, MODEL)
def search(
    query: tuple[str, ...],
    limit: int,
    mode: Mode,
    paths: tuple[str, ...],
    tags: tuple[str, ...],
    since: str | None,
    as_json: bool,
    index_file: Path | None,
    model: str | None,
) -> None:
    """Search by meaning and by words.

    Without a query, a prompt opens that keeps the model loaded. Queries may also come from a pipe, one a line.
    """
    opened = open_index(index_file, model)
    earliest = since_time(since)

    def find(text: str) -> list[Hit]:
        return opened.search(text, limit, mode, paths, tags, earliest)

    if query:
        show(find(checked_query(" ".join(query))), " ".join(query), as_json)
        return
    opened.store(need_model=mode != "words")
    for line in prompted():
        hits = find(checked_query(line))
        if as_json:
            click.echo(json.dumps({"query": line, "hits": [hit.as_dict() for hit in hits]}))
        else:
            print_hits(hits, line)


@app.command(
    epilog="""\b
Example:
  asterisk similar ~/Notes/Boiler.md --limit 5
"""
)
@click.argument("file", type=click.Path(path_type=Path))
@options(LIMIT, JSON, INDEX)
def similar(file: Path, limit: int, as_json: bool, index_file: Path | None) -> None:
    """Find what is nearest in meaning to a note."""
    show(open_index(index_file).similar(file, limit), "", as_json)


@app.command()
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@INDEX
def status(as_json: bool, index_file: Path | None) -> None:
    """Say what the index holds, and what was left out."""
    found = open_index(index_file).status()
    from asterisk.search.terminal import status_lines

    if as_json:
        click.echo(json.dumps(found.as_dict()))
        return
    for line in status_lines(found):
        click.echo(line)


@app.command(
    epilog="""\b
Examples:
  asterisk prune
  asterisk prune ~/OldNotes
"""
)
@PATHS
@INDEX
def prune(roots: tuple[Path, ...], index_file: Path | None) -> None:
    """Forget what is gone or named, and give back its space."""
    click.echo(f"{open_index(index_file).prune(*roots):,} files forgotten")


@app.command(
    epilog="""\b
Examples:
  asterisk dedupe feeds/*.xml
  asterisk dedupe feeds.opml --window 2d --state feeds.state
  asterisk dedupe items.csv --borderline
  curl https://example.org/feed.xml | asterisk dedupe --json
"""
)
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option(
    "--window",
    default="3d",
    show_default=True,
    metavar="TIME",
    help="The longest time between the first and the last item of a story: 12h, 3d, 1w.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Remember what was seen; the next run shows what is new, and which story it joins.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    metavar="COSINE",
    help="How alike items of a story are on average; else chosen by how alike those of this feed are.",
)
@click.option("--borderline", is_flag=True, help="Show the pairs nearest to the threshold; what is new stays new.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, a line for each story.")
@options(MODEL, THREADS)
def dedupe(
    files: tuple[str, ...],
    window: str,
    state: Path | None,
    threshold: float | None,
    borderline: bool,
    as_json: bool,
    model: str | None,
    threads: int,
) -> None:
    """Group the items of feeds that tell the same story; nothing is deleted.

    Files, or standard input, are RSS, Atom, JSON Feed, OPML, JSON lines or CSV. Nothing is fetched from the net.
    """
    seconds = duration(window)
    with extra_packages("search"):
        from asterisk.dedupe import Deduplicator, read_items, terminal
    encoder = AsteriskEncoder(model or released_model(), threads=threads)

    problems: list[str] = []

    def report(problem: str) -> None:
        problems.append(problem)
        click.echo(terminal.printable(problem), err=True)

    with Deduplicator(encoder, state, seconds, threshold) as deduplicator:
        items = deduplicator.add(read_items(files or ("-",), report), progress=sys.stderr.isatty())
        if problems and not items:
            raise InputError("nothing could be read")
        stories = deduplicator.stories()
        if borderline:
            for pair in deduplicator.borderline():
                click.echo(json.dumps(asdict(pair)) if as_json else terminal.pair_line(pair))
            return
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        for story in stories:
            if as_json:
                click.echo(terminal.as_json(story))
            elif len(story.members) > 1:
                click.echo("\n".join([*terminal.story_lines(story, colour), ""]))
        if not as_json:
            click.echo(terminal.summary_line(stories, deduplicator.seen, deduplicator.threshold or 0.0))
        sys.stdout.flush()  # before it is kept: what could not be written is shown again
        deduplicator.keep()


@app.command(
    epilog="""\b
Examples:
  asterisk serve
  curl "http://127.0.0.1:8737/search?q=boiler&limit=3"
  curl http://127.0.0.1:8737/v1/embeddings -d '{"input": ["a text", "another"]}'
"""
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8737,
    show_default=True,
    metavar="N",
    help="The port; 0 takes a free one.",
)
@click.option("--origin", "origins", multiple=True, metavar="URL", help="Let pages from there ask, too.")
@options(INDEX, MODEL, THREADS)
def serve(port: int, origins: tuple[str, ...], index_file: Path | None, model: str | None, threads: int) -> None:
    """Answer other programs on this machine.

    They find /search, and /v1/embeddings in the shape of OpenAI's.
    """
    opened = open_index(index_file, model, threads)
    from asterisk.search.serve import serve as run_server

    run_server(opened, port, list(origins), lambda address: click.echo(f"serving {address}"))


def prompted() -> Iterator[str]:
    """Yield the lines that a person types at the prompt, or those of a pipe."""
    if not sys.stdin.isatty():
        yield from (line for line in lines_of("-") if line.strip())
        return
    with suppress(ImportError):
        import_module("readline")  # gives `input` a history
    while True:
        try:
            line = input("search> ")
        except EOFError:
            click.echo()
            return
        if line.strip():
            yield line


def show(hits: list[Hit], query: str, as_json: bool) -> None:
    """Print the hits; exit code 1 says that there are none."""
    if as_json:
        for hit in hits:
            click.echo(json.dumps(hit.as_dict()))
    else:
        print_hits(hits, query)
    if not hits:
        click.get_current_context().exit(1)


def print_hits(hits: list[Hit], query: str) -> None:
    """Print the hits for a person."""
    from asterisk.search.terminal import hit_lines

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for hit in hits:
        click.echo("\n".join([*hit_lines(hit, query, colour), ""]))
    if not hits:
        click.echo("nothing found", err=True)


def command() -> None:
    """Run the command line; a mistake in it is one line, as any other of the user."""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="asterisk", standalone_mode=False)
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        raise InputError(f"{error.format_message().rstrip('.')}; see asterisk --help") from error
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

"""Text sources, row by row: files, datasets, documentation strings; cleaned, with duplicates left out."""

import codecs
import csv
import gzip
import hashlib
import json
import random
import re
import sqlite3
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import datasets
import ftfy
import httpx
import huggingface_hub
from tqdm import tqdm

from asterisk.data.docstrings import docstring_files, docstrings, parse_docstring
from asterisk.data.pairs import COLUMNS
from asterisk.errors import InputError
from asterisk.files import bounded_lines

TABLES = (".tsv", ".csv")
# By byte-order mark. That of UTF-32 begins with that of UTF-16.
MARKED_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
TEXT_FILES = (*TABLES, ".jsonl", ".txt")
SHOWN = 10  # malformed rows reported one by one
Record = tuple[str, dict[str, Any]]  # what the readers yield: where it stands, {column: value}


@dataclass
class Selection:
    """Which sources to read, and which of their rows to keep; see the options of scripts/prepare_data.py."""

    dataset: list[str]
    columns: list[str] | None = None
    split: str = "train"
    limit: int = 0
    min_chars: int = 8
    max_chars: int = 10_000
    seed: int = 0


@dataclass
class Tally:
    """Counts of the rows read, kept and dropped."""

    strict: bool = False
    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str) -> None:
        """Count a row that was read and dropped."""
        self.read += 1
        self.dropped[reason] += 1

    def malformed(self, where: str, problem: str) -> None:
        """Report and count a row that cannot be read; an InputError if the run is strict."""
        if self.strict:
            raise InputError(f"{where}: {problem}; correct or delete the row, or run without --strict")
        self.drop("malformed")
        if self.dropped["malformed"] <= SHOWN:
            tqdm.write(f"{where}: {problem}; row skipped", file=sys.stderr)
        elif self.dropped["malformed"] == SHOWN + 1:
            tqdm.write("further malformed rows are only counted", file=sys.stderr)

    def __str__(self) -> str:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.most_common())
        return f"read {self.read:,} rows, kept {self.kept:,}; dropped {dropped or 'none'}"


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file, gzipped or not; a file that cannot be read is an InputError."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as file:
            start = file.read(4)
        encoding = next((name for mark, name in MARKED_ENCODINGS.items() if start.startswith(mark)), "utf-8-sig")
        with opener(path, "rt", encoding=encoding, errors="surrogateescape", newline="") as file:
            yield file
    except UnicodeError as error:
        raise InputError(
            f"{path}: not {encoding}, as its byte-order mark says ({error}); save it as UTF-8"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def table_rows(path: Path, tally: Tally) -> Iterator[Record]:
    """Read a TSV (no quoting) or CSV file with a header line."""
    style = {"strict": True} if file_type(str(path)) == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    csv.field_size_limit(1 << 23)  # bounds what a quote that is never closed can swallow
    with open_text(path) as file:
        lines = (line.replace("\0", "") for line in bounded_lines(file))  # Python 3.10 refuses NUL
        rows = csv.reader(lines, **style)
        try:
            header = next(rows, [])
        except csv.Error:
            header = []
        if not header:
            raise InputError(f"{path} line 1: no header; the first line must name the columns")
        while True:
            where = f"{path} line {rows.line_num + 1}"
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                tally.malformed(where, f"not a row of cells ({error})")
                continue
            if len(cells) == len(header):
                yield where, dict(zip(header, cells, strict=True))
            elif cells:
                tally.malformed(where, f"{len(cells)} cells instead of {len(header)}")
            else:
                tally.drop("empty")


def line_rows(path: Path, tally: Tally) -> Iterator[Record]:
    """Read a file with one text a line (.txt: summaries without articles) or one JSON object a line."""
    plain_text = file_type(str(path)) == ".txt"
    with open_text(path) as file:
        for number, line in enumerate(bounded_lines(file), 1):
            where = f"{path} line {number}"
            if plain_text or not line.strip("\0 \r\n"):
                yield where, dict(zip(COLUMNS, (line, None), strict=True))
                continue
            try:
                record = json.loads(line.replace("\0", ""))
            except (ValueError, RecursionError) as error:
                tally.malformed(where, f"not JSON ({error})")
                continue
            if isinstance(record, dict):
                yield where, record
            else:
                tally.malformed(where, f"a JSON {type(record).__name__}, not an object")


def dataset_rows(dataset: str, split: str) -> Iterator[Record]:
    """Read a local datasets directory, or stream a dataset from the Hub."""
    datasets.utils.logging.set_verbosity_error()
    huggingface_hub.utils.logging.set_verbosity_error()
    path = Path(dataset).resolve()
    local = path.is_dir()
    try:
        if not local:
            huggingface_hub.HfApi().dataset_info(dataset, timeout=10)  # load_dataset retries for half a minute
        if (path / "dataset_dict.json").is_file():
            path /= split
        if (path / "state.json").is_file():
            rows = datasets.load_from_disk(str(path))
        else:
            rows = datasets.load_dataset(str(path) if local else dataset, split=split, streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"{dataset} row {number}", row
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        if local:
            reason = " ".join(str(error).split())
            raise InputError(f"cannot read {dataset}, split {split}: {reason}") from error
        raise InputError(
            f"cannot reach {dataset} on the Hugging Face Hub ({type(error).__name__}); check the name and the "
            "network, or run `make quickstart`, which needs no Hub"
        ) from error


def docstring_rows(seed: int, tally: Tally) -> Iterator[Record]:
    """Read (summary line, description) pairs from documentation strings; nothing is imported."""
    for path in docstring_files(seed):
        try:
            found = docstrings(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            tally.drop("unparsable file")
            continue
        for summary, article in map(parse_docstring, found):
            if article:
                yield str(path), {"summary": summary, "article": article}
            else:
                tally.drop("without description" if summary else "without summary line")


FTFY = ftfy.TextFixerConfig(unescape_html=True, explain=False)
NOTHING_TO_FIX = re.compile(r"[\t\n\r !-%'-~]*")  # printable ASCII without "&"
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))  # U+200D stays: it joins emoji


def clean(text: str) -> str:
    """Mend mojibake, entities, control characters and Newsroom's quotes; collapse white space."""
    if not NOTHING_TO_FIX.fullmatch(text):
        text = ftfy.fix_text(text, FTFY).translate(INVISIBLE)
    text = re.sub(r"``(.*?)''", r'"\1"', " ".join(text.split()))
    return re.sub(r'""+', '"', text)


def file_type(dataset: str) -> str:
    """Return the suffix of a text file's name, `.gz` aside; an empty string for any other source."""
    suffix = Path(dataset.lower().removesuffix(".gz")).suffix
    return suffix if suffix in TEXT_FILES else ""


def source_state(dataset: str) -> dict[str, Any]:
    """Return what tells whether a source has changed; a missing or unknown file is an InputError."""
    path, suffix = Path(dataset), file_type(dataset)
    if dataset == "docstrings":
        installed = sorted(f"{item.name} {item.version}" for item in metadata.distributions())
        digest = hashlib.sha256("\n".join([sys.version, *installed]).encode())
        return {"source": dataset, "packages": digest.hexdigest()[:16]}
    if not path.exists() and (suffix or path.is_absolute() or dataset.startswith(".")):
        raise InputError(f"no such file: {dataset}")
    if path.is_dir() and suffix:
        raise InputError(f"{dataset} is a directory, but a source of that name must be a file")
    if path.is_file() and not suffix:
        raise InputError(f"{dataset}: not one of the known types {' '.join(TEXT_FILES)} (also .gz)")
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    stats = [(str(file), file.stat()) for file in files]
    return {"source": dataset, "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}


def split_share(source: str) -> tuple[str, float]:
    """Split `SOURCE=SHARE` into the source and the share of its rows to read, 1 if none is given."""
    name, _, share = source.rpartition("=")
    if not name:
        return source, 1.0
    try:
        if 0 < float(share) <= 1:
            return name, float(share)
    except ValueError:
        pass
    raise InputError(f"--dataset {source}: the share after = must be more than 0 and at most 1")


def read_source(dataset: str, selection: Selection, tally: Tally) -> Iterator[Record]:
    """Return the reader of a source."""
    if dataset == "docstrings":
        return docstring_rows(selection.seed, tally)
    if suffix := file_type(dataset):
        return (table_rows if suffix in TABLES else line_rows)(Path(dataset), tally)
    return dataset_rows(dataset, selection.split)


def choose_columns(dataset: str, record: dict[str, Any], wanted: list[str] | None) -> list[str]:
    """Return the names of the summary and article columns; an InputError if `record` lacks one."""
    columns = ["summary", "text"] if Path(dataset).name.lower() == "newsroom" else list(COLUMNS)
    if file_type(dataset) in TABLES:
        columns = list(record)[:2]
    if wanted and dataset != "docstrings" and file_type(dataset) != ".txt":
        columns = wanted
    if len(columns) < 2 or not set(columns) <= set(record):
        raise InputError(
            f"{dataset}: two columns are needed ({' and '.join(columns)}), and there are: {', '.join(record)}; "
            "rename two, or name them to prepare_data.py with --columns SUMMARY ARTICLE"
        )
    return columns


def text_of(record: dict[str, Any], column: str) -> str:
    """Return a text, empty if absent. Raises ValueError for other types and undecodable bytes."""
    text = record.get(column)
    if not isinstance(text, str | None):
        raise ValueError(f"{column} is a {type(text).__name__}, not a text")
    try:
        (text or "").encode()
    except UnicodeEncodeError:  # undecodable bytes were read as lone surrogates
        raise ValueError(f"{column} is not UTF-8") from None
    return text or ""


def raw_pairs(dataset: str, selection: Selection, tally: Tally) -> Iterator[tuple[str, str]]:
    """Yield the (summary, article) texts of one source, not yet clean."""
    columns: list[str] = []
    dataset, share = split_share(dataset)
    chance = random.Random(f"{selection.seed} {dataset}")
    for where, record in read_source(dataset, selection, tally):
        if share < 1 and chance.random() >= share:
            continue
        columns = columns or choose_columns(dataset, record, selection.columns)
        try:
            summary, article = (text_of(record, column) for column in columns)
        except ValueError as error:
            tally.malformed(where, str(error))
            continue
        if Path(dataset).name.lower() == "newsroom":
            article = re.split(r"\n\s*\n", article.strip(), maxsplit=1)[0]
        yield summary, article


class Seen:
    """The 64-bit hashes of all texts so far, in a temporary database on disk."""

    def __init__(self) -> None:
        self.database = sqlite3.connect("", isolation_level=None)
        self.database.executescript(
            "PRAGMA journal_mode = OFF; CREATE TABLE seen (hash INTEGER PRIMARY KEY); BEGIN"
        )

    def add(self, text: str) -> bool:
        """Remember `text`; return whether it is new."""
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        row = (int.from_bytes(digest, "big", signed=True),)
        return self.database.execute("INSERT OR IGNORE INTO seen VALUES (?)", row).rowcount == 1


def kept_pairs(selection: Selection, tally: Tally) -> Iterator[tuple[str, str]]:
    """Yield the clean (summary, article) pairs of all sources up to the limit; an article may be empty."""
    seen = Seen()
    for dataset in selection.dataset:
        for texts in raw_pairs(dataset, selection, tally):
            if max(map(len, texts)) > 4 * selection.max_chars:
                tally.drop("too long")  # not worth cleaning
                continue
            summary, article = map(clean, texts)
            lengths = [len(text) for text in (summary, article) if text]
            if not summary:
                tally.drop("empty")
            elif min(lengths) < selection.min_chars:
                tally.drop("too short")
            elif max(lengths) > selection.max_chars:
                tally.drop("too long")
            elif not seen.add(f"{summary}\0{article}".casefold()):
                tally.drop("duplicate")
            else:
                tally.read += 1
                tally.kept += 1
                yield summary, article
                if tally.kept == selection.limit:
                    return

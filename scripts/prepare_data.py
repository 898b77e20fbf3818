"""Turn text sources into `data/pairs`: Newsroom, any dataset, text files, or installed documentation.

Reads Hub datasets (streamed), local datasets, .tsv/.csv/.jsonl/.txt files (also .gz) and documentation
strings. Writes a `datasets` directory with the columns `summary: string` and `article: string | null`, and
`prepare_state.json` beside the Arrow file: arguments, sources, counts.

Rows pass through one at a time, and duplicates are known by 64-bit hashes in a temporary table on disk, so
memory does not grow with the number of rows. Only a whole new directory replaces the old one. A row without
an article is kept with a null article; if either text is too short or too long, the row is dropped.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from asterisk.data import docstrings, pairs, sources
from asterisk.data.pairs import STATE, load_pairs, write_pairs
from asterisk.data.sources import Selection, Tally, kept_pairs, source_state, split_share
from asterisk.errors import InputError, run
from asterisk.files import atomic_directory, code_fingerprint, read_json, write_json


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Turn text sources into pairs of texts for training.")
    add = parser.add_argument
    sources = "a Hub id, a local datasets directory, .tsv/.csv/.jsonl/.txt files (also .gz), or: docstrings"
    newsroom = ["LogeshChandran/newsroom"]
    shares = "SOURCE=0.1 reads a tenth of its rows"
    add("--dataset", nargs="+", default=newsroom, help=f"{sources}; {shares} (default: {newsroom[0]})")
    columns = "default: summary text for newsroom, the first two of a .tsv or .csv, else summary article"
    add("--columns", nargs=2, metavar=("SUMMARY", "ARTICLE"), help=f"the columns to read ({columns})")
    add("--split", default="train", help="split of a dataset (default: %(default)s)")
    add("--limit", type=int, default=0, help="rows to keep, 0 for all (default: %(default)s)")
    add("--min_chars", type=int, default=8, help="shortest text kept, in characters (default: %(default)s)")
    add("--max_chars", type=int, default=10000, help="longest text kept, in characters (default: %(default)s)")
    add("--seed", type=int, default=0, help="order of docstrings, choice of a share (default: %(default)s)")
    add("--strict", action="store_true", help="stop at the first malformed row (default: skip and count)")
    add("--output", type=Path, default=Path("data/pairs"), help="directory to write (default: %(default)s)")
    return parser.parse_args()


def is_whole(directory: Path, rows: int) -> bool:
    """Say whether the pairs in `directory` can be read and are as many as were written."""
    try:
        return len(load_pairs(directory)[0]) == rows
    except InputError:
        return False


def main() -> None:
    """Write the pairs, unless the output is up to date."""
    args, started = parse_arguments(), time.perf_counter()
    if args.limit < 0:
        raise InputError(f"--limit is {args.limit}: it must be 0 (all rows) or more")
    state: dict[str, Any] = {
        "arguments": {name: value for name, value in vars(args).items() if name != "output"},
        "sources": [source_state(split_share(dataset)[0]) for dataset in args.dataset],
        "code": code_fingerprint(docstrings, pairs, sources),
    }
    old = read_json(args.output / STATE)
    if state == {name: old.get(name) for name in state} and is_whole(args.output, old["counts"]["kept"]):
        print(f"{args.output} is up to date ({old['counts']['kept']:,} rows)")
        return
    if args.output.exists() and not old:
        raise InputError(f"{args.output} exists and was not written by this script; choose another --output")
    tally = Tally(args.strict)
    with atomic_directory(args.output) as directory:
        options = {name: getattr(args, name) for name in Selection.__dataclass_fields__}
        rows = kept_pairs(Selection(**options), tally)
        write_pairs(tqdm(rows, total=args.limit or None, unit=" rows", disable=None), directory)
        if not tally.kept:
            raise InputError(f"no row of {', '.join(args.dataset)} can be used: {tally}")
        state["counts"] = {"read": tally.read, "kept": tally.kept, "dropped": dict(tally.dropped)}
        state["seconds"] = round(time.perf_counter() - started, 1)
        write_json(directory / STATE, state)
    print(f"{args.output}: {tally} ({state['seconds']} s)")


if __name__ == "__main__":
    run(main)

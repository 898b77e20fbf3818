"""Evaluation files: TSV with a header line and no quoting."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from asterisk.errors import InputError


def read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read the named columns of a TSV file (UTF-8, a header line, no quoting), as text; others are ignored.

    The index holds the number of the line that each row comes from; blank lines are no rows.

    Raises:
        InputError: If the file, a column or a cell is missing, or a row is not UTF-8 or too long, naming the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        # Read as if there were neither a header nor blank lines, so that row 0 is line 1.
        cells = pd.read_csv(
            io.StringIO(text),
            sep="\t",
            quoting=csv.QUOTE_NONE,
            dtype=str,
            keep_default_na=False,
            header=None,
            skip_blank_lines=False,
        )
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} near line {line}: not UTF-8; convert the file") from error
    except ValueError as error:
        reason = str(error).rpartition("error: ")[2].strip()
        raise InputError(f"{path}: {reason}") from error
    cells.index += 1
    cells.columns = pd.Index(cells.iloc[0])
    for name in columns:
        if list(cells.columns).count(name) != 1:
            raise InputError(
                f"{path} line 1: column {name!r} is missing or repeated; the header must name {columns}"
            )
    blank = cells.apply(lambda column: column.str.strip() == "")
    table: pd.DataFrame = cells[~blank.all(axis=1)].loc[2:, list(columns)]
    for name in columns:
        for line in table.index[blank.loc[table.index, name]]:
            raise InputError(f"{path} line {line}: no {name}; correct or delete the row")
    if table.empty:
        raise InputError(f"{path}: no row below the header")
    return table


@dataclass
class ScoredPairs:
    """Sentences side by side with scores of their likeness, `[pairs]` each."""

    sentences1: list[str]
    sentences2: list[str]
    scores: np.ndarray


def load_scored_pairs(path: Path) -> ScoredPairs:
    """Read the columns sentence1, sentence2, score of a TSV file.

    Raises:
        InputError: See `read_table`; also if a score is not a finite number, or all are the same.
    """
    table = read_table(path, ("sentence1", "sentence2", "score"))
    scores = pd.to_numeric(table["score"], errors="coerce").astype(float)
    for line, text in table["score"][~np.isfinite(scores)].items():
        raise InputError(f"{path} line {line}: the score {text!r} is not a number; correct or delete the row")
    if scores.nunique() < 2:
        raise InputError(f"{path}: every score is the same, so nothing can be correlated with them")
    return ScoredPairs(table["sentence1"].to_list(), table["sentence2"].to_list(), scores.to_numpy())

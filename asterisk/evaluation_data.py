"""Evaluation data: TSV files with a header line and no quoting, and how cosines are compared with scores."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from asterisk.console import InputError

LINE = "line number"


def read_table(path: Path, columns: tuple[str, ...]) -> dict[str, list[str]]:
    """Read the named columns of a TSV file (UTF-8, a header line, no quoting); others are ignored.

    The column `LINE` of the result holds the number of the line that each row comes from; blank lines are no rows.

    Raises:
        InputError: If the file, a column or a cell is missing or a row is not UTF-8, naming the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = [name for name in columns if name not in (rows.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path} line 1: column {missing[0]!r} is missing; the header must name {columns}"
                )
            table = {name: [] for name in (*columns, LINE)}
            for row in rows:
                for name in columns:
                    if not (row[name] or "").strip():
                        raise InputError(f"{path} line {rows.line_num}: no {name}; mend or delete the row")
                    table[name].append(row[name])
                table[LINE].append(str(rows.line_num))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except csv.Error as error:
        raise InputError(f"{path} line {rows.line_num}: {error}; mend or delete the row") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path} near line {line}: not UTF-8; convert the file") from error
    if not table[columns[0]]:
        raise InputError(f"{path}: no row below the header")
    return table


@dataclass
class ScoredPairs:
    """Sentences side by side with human scores of their likeness, `[pairs]` each."""

    sentences1: list[str]
    sentences2: list[str]
    scores: np.ndarray


def load_scored_pairs(path: Path) -> ScoredPairs:
    """Read the columns sentence1, sentence2, score of a TSV file.

    Raises:
        InputError: See `read_table`; also if a score is not a finite number, or all are the same.
    """
    table = read_table(path, ("sentence1", "sentence2", "score"))
    scores = np.zeros(len(table["score"]))
    for row, score in enumerate(table["score"]):
        try:
            scores[row] = float(score)
        except ValueError:
            scores[row] = np.nan
        if not np.isfinite(scores[row]):
            line = table[LINE][row]
            raise InputError(f"{path} line {line}: the score {score!r} is not a number; mend or delete the row")
    if len(set(scores)) < 2:
        raise InputError(f"{path}: every score is the same, so nothing can be correlated with them")
    return ScoredPairs(table["sentence1"], table["sentence2"], scores)


def spearman(cosines: np.ndarray, scores: np.ndarray) -> float:
    """Return Spearman's rank correlation, in percent."""
    return 100 * float(spearmanr(cosines, scores).statistic)


def main_scores(result: dict) -> list[dict]:
    """Flatten what evaluate.py wrote: one row for each task, split, form, dimension and precision."""
    return [
        {
            "task": task["task_name"],
            "split": split,
            "form": row["form"],
            "dim": row["dim"],
            "precision": row["precision"],
            "metric": row["main_metric"],
            "score": row["main_score"],
        }
        for task in result.get("tasks", [])
        for split, rows in task["scores"].items()
        for row in rows
    ]

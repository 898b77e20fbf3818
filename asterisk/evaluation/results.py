"""Results: the scores of a model as rows, and rows as Markdown tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate


def main_scores(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Flatten the result of a model: one row for each task, split, form, dimension and precision."""
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


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], text_columns: int = 1) -> str:
    """Lay out cells as they are, the first `text_columns` aligned to the left and the figures to the right."""
    aligned = ["left"] * text_columns + ["right"] * (len(header) - text_columns)
    return tabulate(list(rows), header, tablefmt="pipe", colalign=aligned, disable_numparse=True)

"""Plots of training runs and of results."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from asterisk.files import atomic_path


def plot_training(metrics: list[dict[str, Any]], path: Path) -> None:
    """Draw the loss terms over the steps, in training and validation, and STS-B dev if it was scored."""
    dev = [(row["step"], row["sts_dev/spearman"]) for row in metrics if "sts_dev/spearman" in row]
    panels = [("train", "training"), ("val", "validation (batches of 256)")]
    columns = len(panels) + bool(dev)
    figure, axes = plt.subplots(1, columns, figsize=(5.5 * columns, 4), layout="constrained")
    for axis, (part, title) in zip(axes, panels, strict=False):
        for name in ("loss", "info_nce", "cosine", "similarity"):
            # A batch without pairs has no InfoNCE; on a logarithmic axis its zero would be a gap to the floor.
            points = [(row["step"], row[f"{part}/{name}"]) for row in metrics if row.get(f"{part}/{name}")]
            if points:
                axis.plot(*zip(*points, strict=True), marker="." if part == "val" else None, label=name)
        axis.set(title=title, xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    if dev:
        axes[-1].plot(*zip(*dev, strict=True), marker=".")
        axes[-1].set(title="STS-B dev", xlabel="step", ylabel="Spearman, %")
        axes[-1].grid(alpha=0.3)
    save(figure, path)


def plot_scatter(cosines: dict[str, np.ndarray], gold: np.ndarray, label: str, path: Path) -> None:
    """Draw the cosines of each form against the gold values, one point a pair."""
    figure, axes = plt.subplots(
        1, len(cosines), figsize=(4.2 * len(cosines), 4), squeeze=False, layout="constrained"
    )
    for axis, (name, values) in zip(axes[0], cosines.items(), strict=True):
        axis.scatter(gold, values, s=4, alpha=0.35, linewidths=0)
        axis.set(title=name, xlabel=label, ylabel="cosine")
        axis.grid(alpha=0.3)
    save(figure, path)


def plot_ablations(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw how far each run's scores are from the base's; a bar ends at ten points worse."""
    size = (10, 0.28 * len(rows) + 1.2)
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for axis, task in zip(axes, ("stsb.dev", "sickr.trial"), strict=True):
        base = rows["base"][task]
        for place, row in enumerate(rows.values()):
            change = row[task] - base
            axis.barh(place, max(change, -10), color="tab:blue" if change >= 0 else "tab:orange")
            axis.annotate(f"{row[task]:.1f}", (max(change, 0), place), fontsize=8, va="center")
        axis.axvline(0, color="grey", linewidth=1)
        axis.set(title=f"{task}: {base:.1f} at the base", xlabel="change in Spearman, points", xlim=(-10.5, 2.5))
        axis.grid(alpha=0.3)
    axes[0].set_yticks(range(len(rows)), list(rows))
    axes[0].invert_yaxis()
    save(figure, path)


def plot_quality(points: dict[str, tuple[float, float]], label: str, path: Path) -> None:
    """Draw quality over what it costs, a mark for each model; `points` holds (cost, quality)."""
    figure, axis = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for (name, (cost, quality)), marker in zip(points.items(), itertools.cycle("os^Dv*Pp")):
        axis.plot(cost, quality, marker, markersize=9, alpha=0.6, label=name)
    axis.set(xscale="log", xlabel=label, ylabel="STS-B test, Spearman, %")
    axis.margins(0.1)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right center")
    save(figure, path)


def plot_curves(
    curves: dict[str, list[tuple[float, float, float]]],
    path: Path,
    labels: tuple[str, str] = ("cosine to the teacher", "STS-B dev, Spearman, %"),
) -> None:
    """Draw two figures, named by `labels`, over minutes; `curves` holds the three of each point."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, column, label in zip(axes, (1, 2), labels, strict=True):
        for name, points in curves.items():
            axis.plot([point[0] for point in points], [point[column] for point in points], ".-", label=name)
        axis.set(xlabel="minutes of training", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend()
    save(figure, path)


def plot_memory(peaks: dict[str, dict[int, float]], path: Path) -> None:
    """Draw the peak memory in MB of each step over the number of rows."""
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for step, values in peaks.items():
        axis.plot(list(values), list(values.values()), "o-", label=step)
    axis.set(xscale="log", xlabel="rows", ylabel="peak resident memory, MB", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)

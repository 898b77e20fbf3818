"""Plots of a training run and of an evaluation."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from asterisk.console import atomic_path

matplotlib.use("Agg")


def plot_training(metrics: list[dict], path: Path) -> None:
    """Draw the loss terms over the steps and the validation figures over the epochs."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in ("loss", "info_nce", "cosine", "similarity"):
        for axis, prefix, style in ((axes[0], "train", "-"), (axes[1], "val", "o-")):
            points = [(row["step"], row[f"{prefix}/{name}"]) for row in metrics if f"{prefix}/{name}" in row]
            axis.plot(*zip(*points, strict=True), style, label=name) if points else None
    for axis, title in zip(axes, ("training", "validation"), strict=True):
        axis.set(title=title, xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend()
    save(figure, path)


def plot_agreement(cosines: dict[str, np.ndarray], teacher_cosines: np.ndarray, path: Path) -> None:
    """Draw the student's cosines against the teacher's, one point a pair."""
    figure, axes = plt.subplots(1, len(cosines), figsize=(4.2 * len(cosines), 4), layout="constrained")
    for axis, (name, values) in zip(axes, cosines.items(), strict=True):
        axis.scatter(teacher_cosines, values, s=4, alpha=0.35, linewidths=0)
        axis.plot([0, 1], [0, 1], color="grey", linewidth=1)
        axis.set(title=name, xlabel="teacher's cosine", ylabel="student's cosine")
        axis.grid(alpha=0.3)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)

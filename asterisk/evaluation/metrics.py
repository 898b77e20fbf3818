"""The figures of the tasks, in percent."""

import numpy as np
from scipy.stats import bootstrap, spearmanr

SEED = 0
RESAMPLES = 1000


def percent(share: float) -> float:
    """Return a share in percent, rounded to two places."""
    return round(100 * float(share), 2)


def spearman(cosines: np.ndarray, scores: np.ndarray) -> float:
    """Return Spearman's rank correlation, in percent.

    Cosines that differ in their seventh digit are ties: such a difference comes from the batch a text was in.
    """
    return 100 * float(spearmanr(np.round(cosines, 6), scores).statistic)


def interval(cosines: np.ndarray, scores: np.ndarray) -> list[float]:
    """Return the 95 % percentile bootstrap interval of Spearman's correlation over resampled pairs, in percent."""
    found = bootstrap(
        (cosines, scores),
        spearman,
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return [round(float(found.low), 2), round(float(found.high), 2)]

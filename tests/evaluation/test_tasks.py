"""Metrics against values worked out by hand, and intervals that hold them."""

import numpy as np
import pytest

from asterisk.evaluation.metrics import interval, spearman
from asterisk.evaluation.tables import ScoredPairs
from asterisk.evaluation.tasks import (
    Classification,
    HeldOutPairs,
    PairClassification,
    Retrieval,
    Similarity,
)


def at_angle(degrees):
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def embed_angles(angles):
    """Embed texts as unit vectors of given angles."""
    return lambda texts: np.array([at_angle(angles[text]) for text in texts])


def test_spearman_counts_ties_by_their_mean_rank():
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert spearman(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 1, 2, 3])) == pytest.approx(100 * 0.9**0.5)


def test_similarity_by_hand():
    pairs = ScoredPairs(["a", "a", "a"], ["b", "c", "d"], np.array([5.0, 1.0, 3.0]))
    scores = Similarity("STSBenchmark", "dev", pairs).score(
        embed_angles({"a": 0, "b": 0, "c": 60, "d": 90}), False
    )
    # Cosines 1, 0.5, 0: ranks 3, 2, 1 against 3, 1, 2, so Spearman is 1 - 6 * 2 / (3 * 8).
    assert scores["cosine_spearman"] == 50.0
    # Deviations 0.5, 0, -0.5 and 2, -2, 0: 1 / sqrt(0.5 * 8).
    assert scores["cosine_pearson"] == 50.0


def test_interval_holds_the_figure_and_shrinks_with_more_pairs():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=1000)
    cosines = scores + rng.normal(size=1000)
    widths = []
    for pairs in (50, 1000):
        low, high = interval(cosines[:pairs], scores[:pairs])
        assert low < spearman(cosines[:pairs], scores[:pairs]) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert interval(cosines[:50], scores[:50]) == interval(cosines[:50], scores[:50])


def test_classification_by_hand():
    angles = {"n1": 80, "n2": 100, "e1": 10, "e2": -10, "odd": 20}
    train = {"text": ["n1", "n2", "e1", "e2"], "label": ["n", "n", "e", "e"]}
    test = {"text": ["n1", "e1", "odd", "e2"], "label": ["n", "e", "n", "e"]}
    task = Classification("CLINC150", "test", train, test)
    scores = task.score(embed_angles(angles), False)
    assert scores["logistic_regression_accuracy"] == 75.0


def test_paraphrases_by_hand():
    pairs = ScoredPairs(["a"] * 4, ["b", "c", "d", "e"], np.array([1, 0, 1, 0]))
    angles = {"a": 0, "b": 10, "c": 20, "d": 30, "e": 90}
    scores = PairClassification("PanParaphrase", "test", pairs).score(embed_angles(angles), False)
    # Ranked b, c, d, e: precision 1 at the first hit, 2/3 at the second.
    assert scores["average_precision"] == round(100 * (1 + 2 / 3) / 2, 2)


def test_retrieval_by_hand():
    relevance = np.array([[0, 1, 0], [1, 0, 0]])
    angles = {"q1": 0, "q2": 90, "d1": 80, "d2": 40, "d3": 10}
    task = Retrieval("Cranfield", "test", ["q1", "q2"], ["d1", "d2", "d3"], relevance)
    scores = task.score(embed_angles(angles), False)
    # The first query's document comes second, 1 / log2(3); the second's comes first.
    assert scores["ndcg_at_10"] == round(100 * (1 / np.log2(3) + 1) / 2, 2)


def test_held_out_pairs_by_hand():
    angles = {"s1": 0, "s2": 90, "a1": 10, "a2": 20}
    # Angles of 10, 70, 20 and 80 degrees.
    pairs = ScoredPairs(["s1", "s2", "s1", "s2"], ["a1", "a2", "a2", "a1"], -np.array([4.0, 2.0, 3.0, 1.0]))
    assert HeldOutPairs("HeldOutPairs", "test", pairs).score(embed_angles(angles), False) == {
        "teacher_spearman": -100.0
    }

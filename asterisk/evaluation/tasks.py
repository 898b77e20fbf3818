"""The tasks that a model is scored on; all figures are in percent.

A task holds texts and gold answers. It is scored from vectors alone: `score` gets a function from texts to unit
vectors, so that one pass over the texts serves every shortened or quantised form of the embeddings.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import pearsonr
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, ndcg_score

from asterisk.errors import InputError
from asterisk.evaluation.metrics import interval, percent, spearman
from asterisk.evaluation.tables import ScoredPairs

INTERVAL_PAIRS = 20  # of fewer, a resample may well be one pair many times over
Embed = Callable[[list[str]], np.ndarray]
Scores = dict[str, float | list[float]]


@dataclass
class Task(ABC):
    """A set of texts with a gold answer.

    Attributes:
        name: Name of the task, MTEB's where MTEB has it.
        split: Which part of it this is.
        main: The metric to quote.
    """

    name: str
    split: str
    main: ClassVar[str]

    @abstractmethod
    def texts(self) -> list[str]:
        """Return the texts that `score` will ask for."""

    @abstractmethod
    def score(self, embed: Embed, thorough: bool) -> Scores:
        """Return the metrics; intervals only if `thorough`."""


@dataclass
class PairTask(Task):
    """Cosines of pairs of sentences against gold values."""

    pairs: ScoredPairs

    def texts(self) -> list[str]:
        """Return the sentences of both sides."""
        return self.pairs.sentences1 + self.pairs.sentences2

    def cosines(self, embed: Embed) -> np.ndarray:
        """Return the cosine of each pair, `[pairs]`."""
        cosines: np.ndarray = (embed(self.pairs.sentences1) * embed(self.pairs.sentences2)).sum(1)
        return cosines


class Similarity(PairTask):
    """Cosines against human scores of likeness."""

    main = "cosine_spearman"

    def score(self, embed: Embed, thorough: bool) -> Scores:
        """Return rank and linear correlation."""
        cosines = self.cosines(embed)
        if np.ptp(cosines) < 1e-9:
            raise InputError(f"{self.name} {self.split}: every pair has the same cosine, so nothing correlates")
        scores: Scores = {
            "cosine_spearman": round(spearman(cosines, self.pairs.scores), 2),
            "cosine_pearson": percent(pearsonr(cosines, self.pairs.scores).statistic),
        }
        if thorough and len(cosines) >= INTERVAL_PAIRS:
            scores["cosine_spearman_interval"] = interval(cosines, self.pairs.scores)
        return scores


class HeldOutPairs(PairTask):
    """Cosines against the teacher's, on pairs held out from training."""

    main = "teacher_spearman"

    def score(self, embed: Embed, thorough: bool) -> Scores:
        """Return the rank correlation."""
        return {"teacher_spearman": round(spearman(self.cosines(embed), self.pairs.scores), 2)}


class PairClassification(PairTask):
    """Paraphrases, labelled 1, told from other pairs, labelled 0, by their cosine."""

    main = "average_precision"

    def score(self, embed: Embed, thorough: bool) -> Scores:
        """Return average precision."""
        return {"average_precision": percent(average_precision_score(self.pairs.scores, self.cosines(embed)))}


@dataclass
class Classification(Task):
    """Topics or intents, told from the vectors by a logistic regression."""

    train: dict[str, list[str]]
    test: dict[str, list[str]]
    main = "logistic_regression_accuracy"

    def texts(self) -> list[str]:
        """Return the texts of both parts."""
        return self.train["text"] + self.test["text"]

    def score(self, embed: Embed, thorough: bool) -> Scores:
        """Return the accuracy on the test part of a regression fitted on the other."""
        regression = LogisticRegression(C=10, max_iter=200)
        with warnings.catch_warnings():  # stopping after a fixed number of passes is the method, not a failure
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(embed(self.train["text"]), self.train["label"])
        return {
            "logistic_regression_accuracy": percent(regression.score(embed(self.test["text"]), self.test["label"]))
        }


@dataclass
class Retrieval(Task):
    """Documents ranked for queries; `relevance` is the grade of each document for each query, 0 if irrelevant."""

    queries: list[str]
    documents: list[str]
    relevance: np.ndarray
    main = "ndcg_at_10"

    def texts(self) -> list[str]:
        """Return queries and documents."""
        return self.queries + self.documents

    def score(self, embed: Embed, thorough: bool) -> Scores:
        """Return nDCG at 10."""
        similarities = embed(self.queries) @ embed(self.documents).T
        return {"ndcg_at_10": percent(ndcg_score(self.relevance, similarities, k=10))}

"""Group the items that tell the same story: average linkage, within a window of time.

Two items are compared by meaning, the cosine of their embeddings, and by words, the cosine of their TF-IDF
vectors: names and figures, which tell one story of a kind from another, are what an embedding knows least of.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

BLOCK = 1024
# Of the earlier items that are near enough to one, so many are looked at.
MOST_NEIGHBOURS = 64
# The share of meaning in the cosine of two items; words have the rest.
MEANING = 0.4
SAMPLED_PAIRS = 20_000
# How far above the cosine of unrelated items the threshold is, and cosines from which it starts, as if that of so
# many items: those of a handful of items tell little. See docs/dedupe.md.
SPREADS = 1.7
USUAL_MEDIAN, USUAL_SPREAD, USUAL_ITEMS = 0.04, 0.05, 50


class Features:
    """What items are compared by. The cosine of two is that of their joint vectors, of meaning and of words.

    Args:
        vectors: Unit vectors of the texts, `[n, dim]`.
        texts: The texts, `[n]`.
    """

    def __init__(self, vectors: np.ndarray, texts: Sequence[str]) -> None:
        self.vectors = vectors
        self.words = csr_matrix(np.zeros((len(texts), 1), dtype=np.float32))
        vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english", dtype=np.float32)
        with suppress(ValueError):  # no words, or nothing but stop words
            self.words = vectorizer.fit_transform(texts).tocsr()

    def __len__(self) -> int:
        return len(self.vectors)

    def cosines(self, rows: slice | list[int], columns: slice | list[int]) -> np.ndarray:
        """Return the cosines of some items with others, `[rows, columns]`."""
        by_words = (self.words[rows] @ self.words[columns].T).toarray()
        return MEANING * (self.vectors[rows] @ self.vectors[columns].T) + (1 - MEANING) * by_words

    def words_of(self, row: int) -> Iterator[tuple[int, float]]:
        """Yield column and weight of the words of an item."""
        span = slice(self.words.indptr[row], self.words.indptr[row + 1])
        return zip(self.words.indices[span].tolist(), self.words.data[span].tolist(), strict=True)

    def middle(self, rows: list[int]) -> int:
        """Return which of some items is nearest to their mean; the first of several."""
        by_words = np.asarray(self.words[rows] @ self.words[rows].sum(axis=0).T).ravel()
        by_meaning = self.vectors[rows] @ self.vectors[rows].sum(axis=0)
        return rows[int(np.argmax(MEANING * by_meaning + (1 - MEANING) * by_words))]

    def of_pairs(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the cosines of pairs of items, `[pairs]`."""
        by_words = np.asarray(self.words[rows].multiply(self.words[others]).sum(axis=1)).ravel()
        by_meaning = np.einsum("ij,ij->i", self.vectors[rows], self.vectors[others])
        return MEANING * by_meaning + (1 - MEANING) * by_words


def calibrated_threshold(features: Features, times: np.ndarray, window: float) -> float:
    """Choose the threshold by how near to each other the unrelated items of this feed are.

    Most pairs of items are unrelated. The threshold is their median, and 1.7 times the distance to it from the
    10th percentile for every factor of ten in the number of items within a window: the more items one is compared
    with, the more of them are near by chance. Higher percentiles may be those of related items.

    Args:
        features: The items, `[n]`.
        times: When each appeared, `[n]`, ascending.
        window: The longest time between two of a story.
    """
    items, median, spread, beside = len(features), 0.0, 0.0, 1.0
    if items > 1:
        rows, others = np.random.default_rng(0).integers(0, items, size=(2, SAMPLED_PAIRS))
        cosines = features.of_pairs(rows[rows != others], others[rows != others])
        median = float(np.quantile(cosines, 0.5))
        spread = median - float(np.quantile(cosines, 0.1))
        beside = float(
            (np.searchsorted(times, times + window, "right") - np.searchsorted(times, times - window)).mean()
        )
    weight = USUAL_ITEMS / (items + USUAL_ITEMS)
    median += weight * (USUAL_MEDIAN - median)
    spread += weight * (USUAL_SPREAD - spread)
    return median + SPREADS * float(np.log10(max(beside, USUAL_ITEMS))) * spread


@dataclass
class Cluster:
    """Items that tell the same story, as far as grouping needs to know them.

    Attributes:
        members: Their rows.
        vector: Sum of their vectors of meaning, `[dim]`.
        words: Sum of their vectors of words, weights by column.
        first: When the first appeared, in seconds since 1970.
        last: When the last did.
        fixed: Whether it was reported before; two such are not merged.
    """

    members: list[int]
    vector: np.ndarray
    words: dict[int, float]
    first: float
    last: float
    fixed: bool = False

    @classmethod
    def of(cls, rows: list[int], features: Features, times: np.ndarray, fixed: bool = False) -> Cluster:
        """Make a cluster of some items."""
        words: dict[int, float] = {}
        for row in rows:
            for column, weight in features.words_of(row):
                words[column] = words.get(column, 0.0) + weight
        first, last = float(times[rows].min()), float(times[rows].max())
        return cls(rows, features.vectors[rows].sum(axis=0), words, first, last, fixed)

    def linkage(self, other: Cluster) -> float:
        """Return the mean cosine of the members with those of another cluster: average linkage."""
        few, many = sorted((self.words, other.words), key=len)
        by_words = sum(weight * many.get(column, 0.0) for column, weight in few.items())
        total = MEANING * float(self.vector @ other.vector) + (1 - MEANING) * by_words
        return total / (len(self.members) * len(other.members))

    def may_merge(self, other: Cluster, window: float) -> bool:
        """Say whether together they would not last longer than the window."""
        span = max(self.last, other.last) - min(self.first, other.first)
        return span <= window and not (self.fixed and other.fixed)

    def merged(self, other: Cluster) -> Cluster:
        """Return both as one."""
        few, many = sorted((self.words, other.words), key=len)
        return Cluster(
            self.members + other.members,
            self.vector + other.vector,
            many | {column: weight + many.get(column, 0.0) for column, weight in few.items()},
            min(self.first, other.first),
            max(self.last, other.last),
            self.fixed or other.fixed,
        )


def neighbours(
    features: Features, times: np.ndarray, window: float, threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Find the pairs of items that are near to each other and in time.

    Cosines are computed in blocks, each with the items of the window before it only.

    Args:
        features: The items, `[n]`, in the order of time.
        times: When each appeared, `[n]`, ascending.
        window: The longest time between two.
        threshold: The least cosine.

    Yields:
        The later item, the earlier one, and their cosine.
    """
    for start in range(0, len(features), BLOCK):
        stop = min(start + BLOCK, len(features))
        begin = int(np.searchsorted(times, times[start] - window))
        cosines = features.cosines(slice(start, stop), slice(begin, stop))
        rows, columns = np.arange(start, stop), np.arange(begin, stop)
        cosines[(columns >= rows[:, None]) | (times[columns] < times[rows, None] - window)] = -np.inf
        near, beside = np.nonzero(cosines >= threshold)
        for row in np.flatnonzero(np.bincount(near, minlength=len(rows)) > MOST_NEIGHBOURS):
            least = np.partition(cosines[row], -MOST_NEIGHBOURS)[-MOST_NEIGHBOURS]
            near, beside = (places[(near != row) | (cosines[near, beside] >= least)] for places in (near, beside))
        found = (rows[near].tolist(), columns[beside].tolist(), cosines[near, beside].tolist())
        yield from zip(*found, strict=True)


def agglomerate(
    clusters: Sequence[Cluster], pairs: Iterable[tuple[int, int]], window: float, threshold: float
) -> list[Cluster]:
    """Merge the two clusters of the highest average linkage, again and again, while it reaches the threshold.

    If the average reaches it, one pair of items does; so the pairs that do are enough to find all merges.

    Args:
        clusters: What to begin with.
        pairs: Numbers of clusters that hold two near items.
        window: The longest time between the first and the last item of a cluster.
        threshold: The least mean cosine of two clusters that are merged.
    """
    alive = dict(enumerate(clusters))
    beside: dict[int, set[int]] = {number: set() for number in alive}
    heap: list[tuple[float, int, int]] = []

    def consider(one: int, other: int) -> None:
        if alive[one].may_merge(alive[other], window):
            linkage = alive[one].linkage(alive[other])
            if linkage >= threshold:
                heapq.heappush(heap, (-linkage, one, other))

    for one, other in pairs:
        if one != other and other not in beside[one]:
            beside[one].add(other)
            beside[other].add(one)
            consider(min(one, other), max(one, other))
    number = len(clusters)
    while heap:
        _, one, other = heapq.heappop(heap)
        if one not in alive or other not in alive:
            continue
        alive[number] = alive.pop(one).merged(alive.pop(other))
        beside[number] = {near for near in beside.pop(one) | beside.pop(other) if near in alive}
        for near in sorted(beside[number]):
            beside[near].add(number)
            consider(near, number)
        number += 1
    return list(alive.values())

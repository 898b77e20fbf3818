"""Group the items that tell the same story: average linkage on cosines, within a window of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK = 1024
# Of the earlier items that are near enough to one, so many are looked at.
MOST_NEIGHBOURS = 64
SAMPLED_PAIRS = 20_000


@dataclass
class Cluster:
    """Items that tell the same story, as far as grouping needs to know them.

    Attributes:
        members: Numbers of the items.
        total: Sum of their unit vectors, `[dim]`.
        first: When the first appeared, in seconds since 1970.
        last: When the last did.
        fixed: Whether it was reported before; two such are not merged.
    """

    members: list[int]
    total: np.ndarray
    first: float
    last: float
    fixed: bool = False

    def linkage(self, other: Cluster) -> float:
        """Return the mean cosine of the members with those of another cluster: average linkage."""
        return float(self.total @ other.total) / (len(self.members) * len(other.members))

    def may_merge(self, other: Cluster, window: float) -> bool:
        """Say whether together they would not last longer than the window."""
        span = max(self.last, other.last) - min(self.first, other.first)
        return span <= window and not (self.fixed and other.fixed)

    def merged(self, other: Cluster) -> Cluster:
        """Return both as one."""
        return Cluster(
            self.members + other.members,
            self.total + other.total,
            min(self.first, other.first),
            max(self.last, other.last),
            self.fixed or other.fixed,
        )


def neighbours(
    vectors: np.ndarray, times: np.ndarray, window: float, threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Find the pairs of items that are near in meaning and in time.

    Cosines are computed in blocks, of which each is compared with the items of the window before it only.

    Args:
        vectors: Unit vectors, `[n, dim]`, in the order of time.
        times: When each appeared, `[n]`, ascending.
        window: The longest time between two.
        threshold: The least cosine.

    Yields:
        The later item, the earlier one, and their cosine.
    """
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        begin = int(np.searchsorted(times, times[start] - window))
        scores = block @ vectors[begin : start + len(block)].T
        rows = np.arange(start, start + len(block))
        columns = np.arange(begin, start + len(block))
        scores[(columns >= rows[:, None]) | (times[columns] < times[rows, None] - window)] = -1
        for row, found in zip(rows, scores, strict=True):
            near = np.flatnonzero(found >= threshold)
            if len(near) > MOST_NEIGHBOURS:
                near = near[np.argsort(-found[near], kind="stable")[:MOST_NEIGHBOURS]]
            yield from ((int(row), int(columns[i]), float(found[i])) for i in near)


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
        linkage = alive[one].linkage(alive[other])
        if linkage >= threshold and alive[one].may_merge(alive[other], window):
            heapq.heappush(heap, (-linkage, one, other))

    for one, other in pairs:
        if other not in beside[one] and one != other:
            beside[one].add(other)
            beside[other].add(one)
            consider(min(one, other), max(one, other))
    number = len(clusters)
    while heap:
        _, one, other = heapq.heappop(heap)
        if one not in alive or other not in alive:
            continue
        alive[number] = alive[one].merged(alive[other])
        del alive[one], alive[other]
        beside[number] = {near for near in beside.pop(one) | beside.pop(other) if near in alive}
        for near in sorted(beside[number]):
            beside[near].add(number)
            consider(near, number)
        number += 1
    return list(alive.values())


def calibrated_threshold(vectors: np.ndarray, seed: int = 0) -> float:
    """Choose the threshold by how near the items of this feed are that have nothing to do with each other."""
    return 0.6

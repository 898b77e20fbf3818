"""Find the stories of a feed: embed what is new, group it, and keep what was found."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np
from tqdm import tqdm

from asterisk.dedupe.feeds import Item
from asterisk.dedupe.grouping import Cluster, Features, agglomerate, calibrated_threshold, neighbours
from asterisk.dedupe.state import MemberRow, State
from asterisk.encoder import AsteriskEncoder
from asterisk.search.vectors import quantise, unit_rows

DAY = 86400.0
BLOCK = 1024
# How far from the threshold a pair is called borderline.
MARGIN = 0.1


@dataclass(frozen=True)
class Member:
    """An item in a story.

    Attributes:
        title: Its title, or the beginning of its text.
        url: Its address; may be empty.
        source: The feed that it is from; may be empty.
        published: Seconds since 1970; when it was read, if the feed does not say.
        cosine: Cosine with the representative of the story.
        new: Whether no earlier run has reported it.
    """

    title: str
    url: str
    source: str
    published: float
    cosine: float
    new: bool


@dataclass(frozen=True)
class Story:
    """Items that tell the same, in the order of time, and the one of them that is nearest to their mean."""

    number: int
    representative: Member
    members: list[Member]


@dataclass(frozen=True)
class Pair:
    """Titles of two items, their cosine, and whether they are in one story."""

    first: str
    second: str
    cosine: float
    together: bool


class Deduplicator:
    """Groups items that tell the same story. `close` it, or use it in a `with` statement.

    Args:
        encoder: Embeds them.
        state: A file that remembers what was seen; None remembers nothing.
        window: The longest time between the first and the last item of a story, in seconds.
        threshold: The least mean cosine of two groups that are merged; None takes it from the feed's own cosines.

    Raises:
        InputError: If the state cannot be used.

    Example:
        >>> from asterisk import AsteriskEncoder
        >>> with Deduplicator(AsteriskEncoder("release/asterisk")) as deduplicator:
        ...     deduplicator.add([Item("Quake hits Lisbon"), Item("Lisbon hit by quake"), Item("Cup final drawn")])
        ...     [len(story.members) for story in deduplicator.stories()]
        [2, 1]
    """

    def __init__(
        self,
        encoder: AsteriskEncoder,
        state: Path | None = None,
        window: float = 3 * DAY,
        threshold: float | None = None,
    ) -> None:
        self.encoder, self.window, self.threshold = encoder, window, threshold
        self.state = State(state, encoder.fingerprint)
        self.now = time.time()
        self.seen = 0
        # Of the items that new ones may belong to, in the order of time: numbers, stories, times, features.
        self.numbers: list[int] = []
        self.known: list[int | None] = []
        self.times = np.zeros(0)
        self.features = Features(np.zeros((0, encoder.dim), dtype=np.float32), [])

    def __enter__(self) -> Deduplicator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the state; stories that were not kept count as not reported."""
        self.state.close()

    def add(self, items: Iterable[Item], progress: bool = False) -> int:
        """Embed the items that were not seen before; finished blocks outlast an interruption.

        Args:
            items: In any order.
            progress: Whether to show the rate.

        Returns:
            How many items there were, seen before or not.
        """
        with tqdm(desc="items", unit=" items", disable=not progress) as bar:
            remaining, count = iter(items), 0
            while block := list(islice(remaining, BLOCK)):
                with self.state.transaction():
                    self.add_block(block)
                bar.update(len(block))
                count += len(block)
        return count

    def add_block(self, items: Sequence[Item]) -> None:
        """Embed and write down those of the items that are new."""
        numbers, texts = [], []
        for item in items:
            if self.state.knows(item):
                self.seen += 1
                continue
            published = self.now if item.published is None else item.published
            twin = self.state.twin(item, published, self.window)
            number = self.state.add(item, published, twin)
            if twin is None:
                numbers.append(number)
                texts.append(item.beginning)
        self.state.set_vectors(numbers, quantise(self.encoder.encode(texts)))

    def stories(self) -> list[Story]:
        """Group the items that no run has reported yet, by themselves and with the stories that have been.

        Returns:
            The stories that have new items, whole, in the order of their numbers.
        """
        candidates = self.state.candidates(self.window)
        self.numbers, self.known = [row[0] for row in candidates], [row[1] for row in candidates]
        self.times = np.array([row[2] for row in candidates])
        vectors = unit_rows([row[3] for row in candidates], self.encoder.dim)
        self.features = Features(vectors, [row[4] for row in candidates])
        if self.threshold is None:
            self.threshold = calibrated_threshold(self.features, self.times, self.window)
        story_of = self.group(self.threshold)
        found = {number: story_of[leaf] for number, leaf in self.state.unreported()}
        members: dict[int, list[MemberRow]] = defaultdict(list)
        for row in self.state.assign(found):
            members[row[0]].append(row)
        place = {number: row for row, number in enumerate(self.numbers)}
        stories = []
        for number, told in members.items():
            rows = [place[leaf] for _, _, leaf, *_ in told]
            middle, cosines = rows[0], np.ones(len(rows))
            if len(set(rows)) > 1:
                middle = self.features.middle(rows)
                cosines = self.features.cosines(rows, [middle])[:, 0]
            shown = [
                Member(title, url, source, published, round(float(cosine), 4), new=item in found)
                for (_, item, _, title, url, source, published), cosine in zip(told, cosines, strict=True)
            ]
            stories.append(Story(number, shown[rows.index(middle)], shown))
        return stories

    def group(self, threshold: float) -> dict[int, int]:
        """Return the story of each of the loaded items, by number."""
        rows_of: dict[int, list[int]] = defaultdict(list)
        for row, story in enumerate(self.known):
            rows_of[-1 - row if story is None else story].append(row)
        clusters: list[Cluster] = []
        cluster_of = np.zeros(len(self.known), dtype=np.int64)
        for number, (story, rows) in enumerate(rows_of.items()):
            cluster_of[rows] = number
            clusters.append(Cluster.of(rows, self.features, self.times, fixed=story > 0))
        near = neighbours(self.features, self.times, self.window, threshold)
        pairs = ((int(cluster_of[one]), int(cluster_of[other])) for one, other, _ in near)
        story_of: dict[int, int] = {}
        following = self.state.last_story() + 1
        merged = agglomerate(clusters, pairs, self.window, threshold)
        for cluster in sorted(merged, key=lambda cluster: min(cluster.members)):
            reported = [story for row in cluster.members if (story := self.known[row])]
            for row in cluster.members:
                story_of[self.numbers[row]] = reported[0] if reported else following
            following += not reported
        return story_of

    def keep(self) -> None:
        """Remember that the stories have been reported."""
        self.state.keep()

    def borderline(self, limit: int = 20) -> list[Pair]:
        """Return the pairs with a new item whose cosine is nearest to the threshold, after `stories`."""
        assert self.threshold is not None
        least = self.threshold - MARGIN
        near = (
            (one, other, cosine)
            for one, other, cosine in neighbours(self.features, self.times, self.window, least)
            if self.known[one] is None or self.known[other] is None
        )
        threshold = self.threshold
        nearest = heapq.nsmallest(limit, near, key=lambda pair: abs(pair[2] - threshold))
        titles = self.state.titles([self.numbers[row] for pair in nearest for row in pair[:2]])
        pairs = []
        for one, other, cosine in sorted(nearest, key=lambda pair: -pair[2]):
            (first, first_story), (second, second_story) = (titles[self.numbers[row]] for row in (other, one))
            pairs.append(Pair(first, second, round(cosine, 4), first_story == second_story))
        return pairs

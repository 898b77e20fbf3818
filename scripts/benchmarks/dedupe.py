"""Measure the grouping of feeds: how good, how fast -> `<output>/dedupe.md`, `dedupe.json`.

    pip install datasketch semhash simhash usearch
    python scripts/benchmarks/dedupe.py --items items.jsonl --paraphrases DIRECTORY --pairs *.tsv.gz

`feeds/` beside this file has two invented feeds whose items are labelled by the event they tell: events told by
three to five outlets, beside items of the same topic or template, follow-ups days later, copies at other
addresses, and items that stand alone. On `choosing.jsonl` all was chosen, the thresholds of the other methods
included; `reporting.jsonl` was written apart from it, about other things, and is only reported.

Pairwise precision and recall are about the pairs of items that are put together; B-cubed are those of the group of
each item, averaged over the items. The paraphrases are pairs of sentences with labels. Files of titles and their
texts make feeds about one subject, on which the threshold from the feed is compared with a fixed one.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasketch import MinHash
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from semhash import SemHash
from simhash import Simhash
from tqdm import tqdm
from usearch.index import Index

from asterisk import AsteriskEncoder
from asterisk.data.sources import Selection, Tally, raw_pairs
from asterisk.dedupe import Deduplicator, Item, read_items
from asterisk.dedupe.feeds import WORDS
from asterisk.dedupe.grouping import Cluster, Features, agglomerate, calibrated_threshold, neighbours
from asterisk.dedupe.stories import DAY
from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import SEED, machine_facts, peak_memory_mb, write_report
from asterisk.evaluation.results import markdown_table
from asterisk.evaluation.task_files import load_paraphrases
from asterisk.released import released_model

FEEDS = Path(__file__).with_name("feeds")
WINDOW = 3 * DAY
MEASURES = ("precision", "recall", "F1", "B-cubed precision", "B-cubed recall", "B-cubed F1")
THRESHOLDS = np.arange(0.04, 1.0, 0.02)
SEARCHED = 20_000
TITLES, LEAST_CHARACTERS = 200, 80
SUBJECT_COLUMNS = ("threshold", "F1", "F1, fixed", "best threshold", "best F1")
Labels = np.ndarray
Method = Literal["average", "single"]


@dataclass
class Feed:
    """A labelled feed in the order of time: texts, times in seconds since 1970, events, `[n]`."""

    encoder: AsteriskEncoder
    texts: list[str]
    times: np.ndarray
    events: Labels

    @classmethod
    def read(cls, path: Path, encoder: AsteriskEncoder) -> "Feed":
        """Read a feed."""
        rows = sorted(
            map(json.loads, path.read_text(encoding="utf-8").splitlines()), key=lambda row: row["published"]
        )
        times = np.array([row["published"].rstrip("Z") for row in rows], dtype="datetime64[s]").astype(float)
        texts = [Item(row["title"], row["summary"]).beginning for row in rows]
        return cls(encoder, texts, times, np.array([row["event"] for row in rows]))

    @cached_property
    def features(self) -> Features:
        """What `asterisk dedupe` compares items by."""
        return Features(self.encoder.encode(self.texts), self.texts)

    @cached_property
    def shingles(self) -> list[set[str]]:
        """Three characters at a time, of words: what the hashes are of."""
        padded = (f" {' '.join(text.casefold().split())} " for text in self.texts)
        return [{text[i : i + 3] for i in range(len(text) - 2)} for text in padded]


def clustered(likeness: np.ndarray, feed: Feed, threshold: float, method: Method) -> Labels:
    """Group by the linkage of a matrix, `[n, n]`; items further apart than the window are not alike at all."""
    distances = np.maximum(1 - likeness, 0)  # rounding
    distances[np.abs(feed.times[:, None] - feed.times) > WINDOW] = 2
    np.fill_diagonal(distances, 0)
    return fcluster(linkage(squareform(distances, checks=False), method), 1 - threshold, "distance")


def own(feed: Feed, threshold: float) -> Labels:
    """Group as `asterisk dedupe` does."""
    clusters = [Cluster.of([row], feed.features, feed.times) for row in range(len(feed.texts))]
    pairs = ((one, other) for one, other, _ in neighbours(feed.features, feed.times, WINDOW, threshold))
    labels = np.zeros(len(feed.texts), dtype=int)
    for number, cluster in enumerate(agglomerate(clusters, pairs, WINDOW, threshold)):
        labels[cluster.members] = number
    return labels


def simhash(feed: Feed) -> np.ndarray:
    """Return the share of equal bits of 64-bit SimHash, `[n, n]`."""
    values = np.array([Simhash(shingles).value for shingles in feed.shingles], dtype=np.uint64)
    return 1 - np.bitwise_count(values[:, None] ^ values) / 64


def minhash(feed: Feed) -> np.ndarray:
    """Return the similarity by MinHash of 128 permutations, `[n, n]`."""
    hashes = []
    for shingles in feed.shingles:
        hashes.append(MinHash(num_perm=128))
        hashes[-1].update_batch([shingle.encode() for shingle in shingles])
    return np.array([[one.jaccard(other) for other in hashes] for one in hashes])


def semhash(feed: Feed, threshold: float) -> Labels:
    """Group each item that SemHash removes with the one it is a duplicate of; it knows no window."""
    records = [{"text": text, "row": str(row)} for row, text in enumerate(feed.texts)]
    labels = np.arange(len(records))
    model: Any = feed.encoder
    found = SemHash.from_records(records, columns=["text"], model=model).self_deduplicate(threshold)
    for duplicate in sorted(found.filtered, key=lambda duplicate: int(duplicate.record["row"])):
        labels[int(duplicate.record["row"])] = labels[int(duplicate.duplicate_of["row"])]
    return labels


def by_matrix(matrix: Callable[[Feed], np.ndarray], method: Method) -> Callable[[Feed, float], Labels]:
    """Return a way to group by a matrix, which is computed once for each feed."""
    known: dict[int, np.ndarray] = {}

    def group(feed: Feed, threshold: float) -> Labels:
        if id(feed) not in known:
            known[id(feed)] = matrix(feed)
        return clustered(known[id(feed)], feed, threshold, method)

    return group


def everything(feed: Feed) -> np.ndarray:
    """Return the cosines of `asterisk dedupe`, `[n, n]`."""
    return feed.features.cosines(slice(None), slice(None))


WAYS: dict[str, Callable[[Feed, float], Labels]] = {
    "asterisk dedupe": own,
    "the same, single linkage": by_matrix(everything, "single"),
    "meaning alone": by_matrix(lambda feed: feed.features.vectors @ feed.features.vectors.T, "average"),
    "words alone": by_matrix(lambda feed: (feed.features.words @ feed.features.words.T).toarray(), "average"),
    "SemHash with this model": semhash,
    "MinHash": by_matrix(minhash, "single"),
    "SimHash": by_matrix(simhash, "single"),
}


def score(events: Labels, labels: Labels) -> dict[str, float]:
    """Return pairwise and B-cubed precision, recall and F1 in percent, and the size of the largest group."""
    together, alike = labels[:, None] == labels, events[:, None] == events
    both, pairs = together & alike, np.triu_indices(len(events), 1)
    parts = [
        both[pairs].sum() / max(together[pairs].sum(), 1),
        both[pairs].sum() / max(alike[pairs].sum(), 1),
        (both.sum(1) / together.sum(1)).mean(),
        (both.sum(1) / alike.sum(1)).mean(),
    ]
    f1 = [2 * one * other / max(one + other, 1e-9) for one, other in (parts[:2], parts[2:])]
    values = [*parts[:2], f1[0], *parts[2:], f1[1]]
    largest = int(np.unique(labels, return_counts=True)[1].max())
    return {name: round(100 * float(value), 1) for name, value in zip(MEASURES, values, strict=True)} | {
        "largest": largest
    }


def compare(choosing: Feed, reporting: Feed) -> dict[str, dict[str, float]]:
    """Score each way on the second feed, with the threshold that gives the highest F1 on the first."""
    rows = {}
    for name, group in tqdm(WAYS.items(), desc="ways", unit=" ways"):
        threshold = max(THRESHOLDS, key=lambda value: score(choosing.events, group(choosing, value))["F1"])
        rows[name] = {"threshold": round(float(threshold), 2)} | score(
            reporting.events, group(reporting, threshold)
        )
    threshold = calibrated_threshold(reporting.features, reporting.times, WINDOW)
    from_feed = {
        name: {"threshold": round(threshold, 2)} | score(reporting.events, group(reporting, threshold))
        for name, group in list(WAYS.items())[:2]
    }
    return {f"{name}, threshold from the feed": row for name, row in from_feed.items()} | rows


def subjects(paths: list[Path], encoder: AsteriskEncoder, fixed: float) -> dict[str, dict[str, float]]:
    """Put titles and texts together, with the threshold from the feed, a fixed one, and the best for each: F1."""
    found = {}
    for path in tqdm(paths, desc="subjects", unit=" files"):
        pairs = list(raw_pairs(str(path), Selection([str(path)]), Tally()))
        whole = [(title, text) for title, text in pairs if title and text and len(text) > LEAST_CHARACTERS]
        rows = np.random.default_rng(SEED).permutation(len(whole))[:TITLES]
        texts = [" ".join(text.split()[:WORDS]) for row in rows for text in whole[row]]
        feed = Feed(encoder, texts, np.zeros(len(texts)), np.repeat(rows, 2))
        scores = {value: score(feed.events, own(feed, value))["F1"] for value in THRESHOLDS}
        threshold = calibrated_threshold(feed.features, feed.times, WINDOW)
        best = max(scores, key=lambda value: scores[value])
        found[path.name.partition(".")[0]] = {
            "threshold": round(threshold, 2),
            "F1": score(feed.events, own(feed, threshold))["F1"],
            "F1, fixed": score(feed.events, own(feed, fixed))["F1"],
            "best threshold": round(float(best), 2),
            "best F1": scores[best],
        }
    return found


def paraphrases(directory: Path, encoder: AsteriskEncoder) -> dict[str, dict[str, float]]:
    """Tell paraphrases from other pairs: F1 on the test part, with thresholds from the train part."""
    values: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for part in ("train", "test"):
        pairs = load_paraphrases(directory / f"pan_paraphrase.{part}.tsv").pairs
        first, second = pairs.sentences1, pairs.sentences2
        count, texts = len(first), first + second
        feed = Feed(encoder, texts, np.zeros(2 * count), np.zeros(2 * count))
        rows, others = np.arange(count), np.arange(count, 2 * count)
        vectors, words = feed.features.vectors, feed.features.words
        by_meaning = (vectors[rows] * vectors[others]).sum(1)
        by_words = np.asarray(words[rows].multiply(words[others]).sum(1)).ravel()
        hashes = np.array([Simhash(shingles).value for shingles in feed.shingles], dtype=np.uint64)
        found = {
            "asterisk dedupe": feed.features.of_pairs(rows, others),
            "meaning alone": by_meaning,
            "words alone": by_words,
            "SimHash": 1 - np.bitwise_count(hashes[rows] ^ hashes[others]) / 64,
        }
        labels = np.array(pairs.scores, dtype=bool)
        for name, likeness in found.items():
            values.setdefault(name, []).append((likeness, labels))

    def f1(likeness: np.ndarray, labels: np.ndarray, threshold: float) -> float:
        chosen = likeness >= threshold
        return float(2 * (chosen & labels).sum() / max(chosen.sum() + labels.sum(), 1))

    results = {}
    for name, (train, test) in values.items():
        threshold = max(THRESHOLDS, key=lambda value: f1(*train, value))
        results[name] = {"threshold": round(float(threshold), 2), "F1": round(100 * f1(*test, threshold), 1)}
    return results


def timed(call: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds that a call takes, and those of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return {
        "seconds": round(time.perf_counter() - wall, 1),
        "processor_s": round(time.process_time() - processor, 1),
    }


def speed(path: Path, encoder: AsteriskEncoder) -> dict[str, Any]:
    """Time a feed of many items, in its two parts, and the search for neighbours in two ways."""
    problems: list[str] = []
    with Deduplicator(encoder) as deduplicator:
        embedding = timed(lambda: deduplicator.add(read_items([str(path)], problems.append), progress=True))
        stories: list[Any] = []
        grouping = timed(lambda: stories.extend(deduplicator.stories()))
        items = len(deduplicator.numbers)
        if items < SEARCHED:
            raise InputError(f"{path}: {items:,} items; {SEARCHED:,} or more are needed")
        found = {"items": items, "stories": len(stories), "embedding": embedding, "grouping": grouping}
        memory, threshold = peak_memory_mb(), deduplicator.threshold or 0.0
        features, vectors = deduplicator.features, deduplicator.features.vectors[:SEARCHED]
    features.vectors, features.words = vectors, features.words[:SEARCHED]

    def drain(pairs: Iterable[Any]) -> None:
        for _ in pairs:
            pass

    def search() -> None:
        index = Index(ndim=vectors.shape[1], metric="cos", dtype="i8")
        index.add(np.arange(len(vectors)), vectors)
        index.search(vectors, 64)

    exact = timed(lambda: drain(neighbours(features, np.zeros(SEARCHED), WINDOW, threshold)))
    ways = {
        "products by blocks, meaning and words, exact": exact,
        "usearch, meaning alone, approximate": timed(search),
    }
    return found | {"peak_mb": round(memory), "neighbours": ways}


def render(figures: dict[str, Any]) -> str:
    """Lay out the tables."""
    columns = ["threshold", *MEASURES, "largest"]
    quick, fixed = figures["speed"], figures["feed"]["asterisk dedupe"]["threshold"]
    parts = [
        "The reporting feed, in percent, and the size of the largest group. Thresholds are those best on the "
        "choosing feed, but for the first rows: there it is taken from the reporting feed's own cosines, without "
        "labels.",
        markdown_table(["", *columns], [[name, *map(row.get, columns)] for name, row in figures["feed"].items()]),
        "Paraphrases: F1 on the test pairs, half of which are none, in percent.",
        markdown_table(
            ["", "threshold", "F1"],
            [[name, row["threshold"], row["F1"]] for name, row in figures["paraphrases"].items()],
        ),
        f"Titles and texts about one subject, {TITLES} of each: the F1 of pairs with the threshold from the feed, "
        f"with that of the choosing feed ({fixed}), and with the best for each.",
        markdown_table(
            ["", *SUBJECT_COLUMNS],
            [[name, *map(row.get, SUBJECT_COLUMNS)] for name, row in figures["subjects"].items()],
        ),
        f"{quick['items']:,} items, {quick['stories']:,} stories, {quick['peak_mb']:,} MB of memory.",
        markdown_table(
            ["part", "seconds", "of the processor"],
            [[part, quick[part]["seconds"], quick[part]["processor_s"]] for part in ("embedding", "grouping")],
        ),
        f"Neighbours of {SEARCHED:,} items that have no time, so that each is compared with all.",
        markdown_table(
            ["way", "seconds", "of the processor"],
            [[way, row["seconds"], row["processor_s"]] for way, row in quick["neighbours"].items()],
        ),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Measure all, and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--items", type=Path, required=True, help="a large feed to time, as `asterisk dedupe` reads it")
    add("--paraphrases", type=Path, required=True, help="directory of pan_paraphrase.{train,test}.tsv")
    add(
        "--pairs", type=Path, nargs="+", required=True, help="files of titles and their texts, one about a subject"
    )
    add("--output", type=Path, default=Path("results"), help="directory of the figures")
    arguments = parser.parse_args()
    encoder = AsteriskEncoder(released_model())
    feeds = [Feed.read(FEEDS / f"{name}.jsonl", encoder) for name in ("choosing", "reporting")]
    compared = compare(*feeds)
    figures = {
        "feed": compared,
        "subjects": subjects(arguments.pairs, encoder, compared["asterisk dedupe"]["threshold"]),
        "paraphrases": paraphrases(arguments.paraphrases, encoder),
        "speed": speed(arguments.items, encoder),
    }
    facts = {"model": Path(released_model()).name} | machine_facts(0)
    write_report(arguments.output / "dedupe", "Grouping of feeds", render(figures), figures, facts)


if __name__ == "__main__":
    run(main)

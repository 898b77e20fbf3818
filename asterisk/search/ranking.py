"""Rank passages by words and by vectors, and documents by both."""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from asterisk.search.store import Filter, Store
from asterisk.search.vectors import cosines, quantise

Mode = Literal["hybrid", "semantic", "words"]
# How many passages of each ranking are fused. sqlite-vec takes longer the more it is asked for.
DEPTH = 100
# Reciprocal rank fusion: the constant that is added to ranks, and the share of the ranking by words.
RANK_CONSTANT, WORDS_SHARE = 3.0, 0.5
# Of bm25: a word in the title, in a heading, in the text.
COLUMN_WEIGHTS = (1.0, 1.0, 1.0)
# Nearly every passage has them: looking them up takes long and tells nothing.
STOP_WORDS = frozenset(
    """a about after all also am an and any are as at be because been but by can could did do does for from had has
    have he her him his how i if in into is it its just me more my no not of on or our out over she should so some
    than that the their them then there these they this to up us was we were what when where which who whom why
    will with would you your""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Ranked:
    """A document, its best passage, and how it ranks."""

    document: int
    passage: int
    score: float
    cosine: float | None = None


def fts_query(query: str) -> str:
    """Return an FTS5 query for any of the words, whatever signs they contain.

    FTS5 takes a quoted string that its tokenizer splits, such as "kill-safe", for a phrase.
    """
    words = [word.strip(string.punctuation).lower() for word in query.replace("\0", " ").split()]
    words = [word for word in words if word]
    chosen = [word for word in words if word not in STOP_WORDS] or words
    return " OR ".join('"{}"'.format(word.replace('"', '""')) for word in dict.fromkeys(chosen))


def rank_by_words(store: Store, query: str, limit: int, chosen: Filter) -> list[Ranked]:
    """Rank passages by BM25, stemmed words."""
    if not (match := fts_query(query)):
        return []
    conditions, values = chosen.conditions()
    sql = f"""
        select document, words.rowid, -bm25(words, {", ".join(map(str, COLUMN_WEIGHTS))}) as score
        from words join passages on passages.id = words.rowid
    """
    if conditions != "true":
        sql += f"join documents on documents.id = document join files on files.id = file and {conditions}"
    rows = store.rows(f"{sql} where words match ? order by score desc limit ?", (*values, match, limit))
    return [Ranked(*row) for row in rows]


def rank_by_vector(store: Store, query: np.ndarray, limit: int, chosen: Filter) -> list[Ranked]:
    """Rank passages by cosine with a unit vector `[dim]`.

    The nearest by int8 alone are ranked once more by the query in full precision.
    """
    conditions, values = chosen.conditions()
    within = ""
    if conditions != "true":
        within = f"""and vectors.id in (
            select passages.id from passages join documents on documents.id = document
            join files on files.id = file where {conditions})"""
    rows = store.rows(
        f"""select document, passages.id, vectors.vector
        from vectors cross join passages on passages.id = vectors.id
        where vectors.vector match vec_int8(?) and k = ? {within}""",
        (quantise(query).tobytes(), limit, *values),
    )
    if not rows:
        return []
    scores = cosines(query, [vector for _, _, vector in rows])
    best = np.argsort(-scores, kind="stable")
    return [Ranked(rows[i][0], rows[i][1], float(scores[i]), float(scores[i])) for i in best]


def best_passages(passages: Iterable[Ranked]) -> list[Ranked]:
    """Keep of each document the passage that ranks first."""
    documents: dict[int, Ranked] = {}
    for ranked in passages:
        documents.setdefault(ranked.document, ranked)
    return list(documents.values())


def fuse(
    by_words: list[Ranked],
    by_vector: list[Ranked],
    constant: float = RANK_CONSTANT,
    words_share: float = WORDS_SHARE,
) -> list[Ranked]:
    """Fuse two rankings of documents by reciprocal rank; first in both is 1.

    Shown is the passage of the ranking in which the document is higher.
    """
    scores: dict[int, float] = {}
    shown: dict[int, tuple[int, int]] = {}
    similar = {ranked.document: ranked.cosine for ranked in by_vector}
    for share, ranking in ((1 - words_share, by_vector), (words_share, by_words)):
        for rank, ranked in enumerate(ranking, start=1):
            document = ranked.document
            scores[document] = scores.get(document, 0.0) + share * (constant + 1) / (constant + rank)
            shown[document] = min(shown.get(document, (rank, ranked.passage)), (rank, ranked.passage))
    order = sorted(scores, key=lambda document: -scores[document])
    return [Ranked(document, shown[document][1], scores[document], similar.get(document)) for document in order]

"""The tasks that a model is scored on, and their metrics; all figures are in percent.

A task holds texts and gold answers. It is scored from vectors alone: `score` gets a function from texts to unit
vectors, so that one pass over the texts serves every shortened or quantised form of the embeddings.
"""

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.stats import bootstrap, pearsonr
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, ndcg_score, precision_recall_curve
from sklearn.neural_network import MLPClassifier

from asterisk.console import InputError
from asterisk.evaluation_data import LINE, ScoredPairs, load_scored_pairs, read_table, spearman

SEED = 0
RESAMPLES = 1000
INTERVAL_PAIRS = 20  # of fewer, a resample may well be one pair many times over
HEAD_EXAMPLES = 1000
HEAD_SIZE = 128
SICK_SPLITS = ("train", "trial", "test")
AG_NEWS = {"0": "world news and politics", "1": "sports", "2": "business", "3": "science and technology"}

Embed = Callable[[list[str]], np.ndarray]


def percent(value: float) -> float:
    """Return a share in percent, rounded to two places."""
    return round(100 * float(value), 2)


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


def ranking_scores(similarities: np.ndarray, relevance: np.ndarray) -> dict[str, float]:
    """Score rankings.

    Args:
        similarities: Of each query to each document, `[queries, documents]`.
        relevance: Grade of each document for each query, 0 for irrelevant, `[queries, documents]`.
    """
    best = similarities.argmax(axis=1)
    return {
        "ndcg_at_10": percent(ndcg_score(relevance, similarities, k=10)),
        "accuracy_at_1": percent((relevance[np.arange(len(best)), best] > 0).mean()),
    }


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
    def score(self, embed: Embed, thorough: bool) -> dict[str, float | list[float]]:
        """Return the metrics; intervals only if `thorough`."""


@dataclass
class Similarity(Task):
    """Cosines against human scores of likeness."""

    pairs: ScoredPairs
    main = "cosine_spearman"

    def texts(self) -> list[str]:
        """Return the sentences of both sides."""
        return self.pairs.sentences1 + self.pairs.sentences2

    def cosines(self, embed: Embed) -> np.ndarray:
        """Return the cosine of each pair, `[pairs]`."""
        return (embed(self.pairs.sentences1) * embed(self.pairs.sentences2)).sum(1)

    def score(self, embed: Embed, thorough: bool) -> dict[str, float | list[float]]:
        """Return rank and linear correlation."""
        cosines = self.cosines(embed)
        if np.ptp(cosines) < 1e-9:
            raise InputError(f"{self.name} {self.split}: every pair has the same cosine, so nothing correlates")
        scores = {
            "cosine_spearman": round(spearman(cosines, self.pairs.scores), 2),
            "cosine_pearson": percent(pearsonr(cosines, self.pairs.scores).statistic),
        }
        if thorough and len(cosines) >= INTERVAL_PAIRS:
            scores["cosine_spearman_interval"] = interval(cosines, self.pairs.scores)
        return scores


@dataclass
class Classification(Task):
    """Topics or intents, told from the vectors without training and by two small heads."""

    train: dict[str, list[str]]
    test: dict[str, list[str]]
    descriptions: dict[str, str]
    main = "logistic_regression_accuracy"

    def texts(self) -> list[str]:
        """Return the texts of both parts and the descriptions of the labels."""
        return self.train["text"] + self.test["text"] + list(self.descriptions.values())

    def score(self, embed: Embed, thorough: bool) -> dict[str, float | list[float]]:
        """Return accuracies: zero-shot, logistic regression, and a hidden layer fitted on few examples."""
        test, gold = embed(self.test["text"]), np.array(self.test["label"])
        labels = np.array(list(self.descriptions))
        nearest = labels[(test @ embed(list(self.descriptions.values())).T).argmax(1)]
        train, answers = embed(self.train["text"]), np.array(self.train["label"])
        few = np.random.default_rng(SEED).permutation(len(train))[:HEAD_EXAMPLES]
        regression = LogisticRegression(C=10, max_iter=200)
        head = MLPClassifier((HEAD_SIZE,), random_state=SEED, max_iter=300)
        with warnings.catch_warnings():  # stopping after a fixed number of passes is the method, not a failure
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(train, answers)
            head.fit(train[few], answers[few])
        return {
            "zero_shot_accuracy": percent((nearest == gold).mean()),
            "logistic_regression_accuracy": percent(regression.score(test, gold)),
            "hidden_layer_accuracy": percent(head.score(test, gold)),
        }


@dataclass
class PairClassification(Task):
    """Paraphrases told from other pairs by their cosine."""

    table: dict[str, list[str]]
    main = "average_precision"

    def texts(self) -> list[str]:
        """Return the sentences of both sides."""
        return self.table["sentence1"] + self.table["sentence2"]

    def score(self, embed: Embed, thorough: bool) -> dict[str, float | list[float]]:
        """Return average precision, and F1 at the best threshold."""
        cosines = (embed(self.table["sentence1"]) * embed(self.table["sentence2"])).sum(1)
        gold = np.array([int(label) for label in self.table["label"]])
        precision, recall, thresholds = precision_recall_curve(gold, cosines)
        best = (precision * recall / np.maximum(precision + recall, 1e-12))[:-1].argmax()
        return {
            "average_precision": percent(average_precision_score(gold, cosines)),
            "best_f1": percent(f1_score(gold, cosines >= thresholds[best])),
        }


@dataclass
class Retrieval(Task):
    """Documents ranked for queries."""

    queries: list[str]
    documents: list[str]
    relevance: np.ndarray
    main = "ndcg_at_10"

    def texts(self) -> list[str]:
        """Return queries and documents."""
        return self.queries + self.documents

    def score(self, embed: Embed, thorough: bool) -> dict[str, float | list[float]]:
        """Return nDCG at 10 and the share of queries whose first hit is relevant."""
        return ranking_scores(embed(self.queries) @ embed(self.documents).T, self.relevance)


@dataclass
class HeldOutPairs(Task):
    """Agreement with the teacher on pairs held out from training, and finding a summary's own article.

    Attributes:
        summaries: First texts of the pairs.
        articles: Second texts.
        teacher_cosines: The teacher's cosine of each summary with its article, then with the article of the pair
            before, `[2 * pairs]`.
    """

    summaries: list[str]
    articles: list[str]
    teacher_cosines: np.ndarray
    main = "teacher_spearman"

    def texts(self) -> list[str]:
        """Return summaries and articles."""
        return self.summaries + self.articles

    def cosines(self, embed: Embed) -> np.ndarray:
        """Return the cosines to compare with the teacher's, `[2 * pairs]`."""
        return pair_cosines(embed(self.summaries), embed(self.articles))

    def score(self, embed: Embed, thorough: bool) -> dict[str, float | list[float]]:
        """Return the rank correlation with the teacher's cosines, and the retrieval figures."""
        similarities = embed(self.summaries) @ embed(self.articles).T
        return {
            "teacher_spearman": round(spearman(self.cosines(embed), self.teacher_cosines), 2),
            **ranking_scores(similarities, np.eye(len(similarities), dtype=int)),
        }


def pair_cosines(summaries: np.ndarray, articles: np.ndarray) -> np.ndarray:
    """Return the cosines of unit vectors `[n, d]`: each summary with its article, then with its neighbour's."""
    return np.concatenate([(summaries * articles).sum(1), (summaries * np.roll(articles, 1, axis=0)).sum(1)])


def load_classification(directory: Path, name: str, train: str, test: str) -> Classification:
    """Read the two parts of a classification task; AG News has title and description instead of a text.

    Raises:
        InputError: See `read_table`.
    """
    parts = []
    for file in (train, test):
        path = directory / f"{file}.tsv"
        if name == "AGNews":
            table = read_table(path, ("label", "title", "description"))
            columns = zip(table["title"], table["description"], strict=True)
            parts.append({"text": [". ".join(texts) for texts in columns], "label": table["label"]})
        else:
            table = read_table(path, ("text", "label"))
            parts.append({name: table[name] for name in ("text", "label")})
    labels = sorted(set(parts[0]["label"]))
    if len(labels) < 2 or not set(parts[1]["label"]) <= set(labels):
        raise InputError(
            f"{directory / train}.tsv: two labels or more are needed, and all those of {test}.tsv among them"
        )
    if name == "AGNews" and not set(labels) <= set(AG_NEWS):
        raise InputError(f"{directory / train}.tsv: a label is none of {', '.join(AG_NEWS)}")
    described = AG_NEWS if name == "AGNews" else {label: label.replace("_", " ") for label in labels}
    return Classification(name, "test", *parts, described)


def load_paraphrases(path: Path) -> PairClassification:
    """Read sentence pairs labelled 0 or 1.

    Raises:
        InputError: See `read_table`; also for another label.
    """
    table = read_table(path, ("sentence1", "sentence2", "label"))
    for row, label in enumerate(table["label"]):
        if label not in ("0", "1"):
            raise InputError(f"{path} line {table[LINE][row]}: the label is {label!r}; it must be 0 or 1")
    if len(set(table["label"])) < 2:
        raise InputError(f"{path}: every label is the same; there must be pairs of both kinds")
    return PairClassification("PanParaphrase", "test", table)


def read_lines(path: Path) -> list[dict]:
    """Read id and text of the JSON objects of a BEIR file; where the text is empty, the title.

    Raises:
        InputError: If the file cannot be read, naming the line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append({"_id": row["_id"], "text": row["text"] or row.get("title", "")})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} line {number}: not a JSON object with _id and text; mend the line"
            ) from error
    return rows


def load_retrieval(directory: Path) -> Retrieval:
    """Read corpus.jsonl, queries.jsonl and qrels.test.tsv in BEIR's layout.

    Raises:
        InputError: If a file is missing or malformed.
    """
    documents = {row["_id"]: row["text"] for row in read_lines(directory / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in read_lines(directory / "queries.jsonl")}
    path = directory / "qrels.test.tsv"
    table = read_table(path, ("query-id", "corpus-id", "score"))
    query_rows, document_rows = ({key: row for row, key in enumerate(texts)} for texts in (queries, documents))
    if len(documents) < 2:
        raise InputError(f"{directory / 'corpus.jsonl'}: two documents or more are needed to rank them")
    relevance = np.zeros((len(queries), len(documents)), dtype=int)
    unknown = 0
    for query, document, grade, line in zip(*table.values(), strict=True):
        if not grade.lstrip("-").isdecimal():
            raise InputError(f"{path} line {line}: the score {grade!r} is not a whole number")
        if query in query_rows and document in document_rows:
            relevance[query_rows[query], document_rows[document]] = max(0, int(grade))
        else:
            unknown += 1
    if not relevance.any():
        raise InputError(f"{path}: no row names a query and a document of the other files")
    if unknown:
        print(f"{path}: {unknown:,} rows name a query or a document that is not there, and are left out")
    return Retrieval("Cranfield", "test", list(queries.values()), list(documents.values()), relevance)


def load_tasks(directory: Path) -> list[Task]:
    """Load every task whose files lie in the directory.

    Raises:
        InputError: If none does, or a file is malformed.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; name one with evaluation files")
    tasks: list[Task] = []

    def there(name: str) -> bool:
        return (directory / name).exists()

    for split in ("dev", "test"):
        if there(f"stsb.{split}.tsv"):
            tasks.append(Similarity("STSBenchmark", split, load_scored_pairs(directory / f"stsb.{split}.tsv")))
    sick = {s: load_scored_pairs(directory / f"sickr.{s}.tsv") for s in SICK_SPLITS if there(f"sickr.{s}.tsv")}
    tasks += [Similarity("SICK-R", split, sick[split]) for split in ("trial", "test") if split in sick]
    if len(sick) == len(SICK_SPLITS):
        parts = sick.values()
        whole = ScoredPairs(
            [text for part in parts for text in part.sentences1],
            [text for part in parts for text in part.sentences2],
            np.concatenate([part.scores for part in parts]),
        )
        tasks.append(Similarity("SICK-R", "all", whole))
    for name, train, test in (
        ("AGNews", "agnews.fit_from_test", "agnews.eval_from_test"),
        ("CLINC150", "clinc150.train", "clinc150.test"),
    ):
        if there(f"{train}.tsv") or there(f"{test}.tsv"):
            tasks.append(load_classification(directory, name, train, test))
    if there("pan_paraphrase.test.tsv"):
        tasks.append(load_paraphrases(directory / "pan_paraphrase.test.tsv"))
    if there("cranfield"):
        tasks.append(load_retrieval(directory / "cranfield"))
    if not tasks:
        raise InputError(f"{directory}: no evaluation file here; README names them")
    return tasks

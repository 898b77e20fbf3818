"""Tasks from the files of a directory, from the Hub, and from the pairs held out of training."""

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import numpy as np

from asterisk.data.pairs import load_pairs, split_rows
from asterisk.data.teacher_vectors import load_teacher_vectors
from asterisk.errors import InputError, first_line
from asterisk.evaluation.scoring import shorten
from asterisk.evaluation.tables import ScoredPairs, load_scored_pairs, read_table
from asterisk.evaluation.tasks import (
    Classification,
    HeldOutPairs,
    PairClassification,
    Retrieval,
    Similarity,
    Task,
)
from asterisk.files import read_json

MAX_PAIRS = 2000
SICK_SPLITS = ("train", "trial", "test")
HUB_TASKS = (
    ("STSBenchmark", "dev", "mteb/stsbenchmark-sts", "validation"),
    ("STSBenchmark", "test", "mteb/stsbenchmark-sts", "test"),
    ("SICK-R", "all", "mteb/sickr-sts", "test"),  # all 9,927 pairs
)


def load_classification(directory: Path, name: str, train: str, test: str) -> Classification:
    """Read the two parts of a classification task; AG News has title and description instead of a text.

    Raises:
        InputError: See `read_table`; also for too few labels, or unknown ones in the test part.
    """
    columns = ("title", "description") if name == "AGNews" else ("text",)
    parts = []
    for file in (train, test):
        table = read_table(directory / f"{file}.tsv", ("label", *columns))
        texts = zip(*(table[column] for column in columns), strict=True)
        parts.append({"text": [". ".join(text) for text in texts], "label": table["label"].to_list()})
    labels = set(parts[0]["label"])
    if len(labels) < 2 or not set(parts[1]["label"]) <= labels:
        raise InputError(
            f"{directory / train}.tsv: two labels or more are needed, and all those of {test}.tsv among them"
        )
    return Classification(name, "test", *parts)


def load_paraphrases(path: Path) -> PairClassification:
    """Read sentence pairs labelled 0 or 1.

    Raises:
        InputError: See `read_table`; also for another label, or if all are the same.
    """
    table = read_table(path, ("sentence1", "sentence2", "label"))
    for line, label in table["label"][~table["label"].isin(["0", "1"])].items():
        raise InputError(f"{path} line {line}: the label is {label!r}; it must be 0 or 1")
    if table["label"].nunique() < 2:
        raise InputError(f"{path}: every label is the same; there must be pairs of both kinds")
    first, second, labels = (table[column].to_list() for column in table)
    return PairClassification("PanParaphrase", "test", ScoredPairs(first, second, np.array(labels, dtype=int)))


def read_lines(path: Path) -> dict[str, str]:
    """Read the JSON objects of a BEIR file: text by id, or title where the text is empty.

    Raises:
        InputError: If the file cannot be read, naming the line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    texts = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            texts[row["_id"]] = row["text"] or row.get("title", "")
        except (ValueError, KeyError, TypeError) as error:
            message = f"{path} line {number}: not a JSON object with _id and text; correct the line"
            raise InputError(message) from error
    return texts


def load_retrieval(directory: Path) -> Retrieval:
    """Read corpus.jsonl, queries.jsonl and qrels.SPLIT.tsv, in BEIR's layout.

    Raises:
        InputError: If a file is missing or malformed, or there is more than one split.
    """
    documents, queries = read_lines(directory / "corpus.jsonl"), read_lines(directory / "queries.jsonl")
    found = list(directory.glob("qrels.*.tsv"))
    if len(found) != 1:
        raise InputError(f"{directory}: {len(found)} files qrels.SPLIT.tsv; there must be one")
    path, split = found[0], found[0].name.split(".")[1]
    table = read_table(path, ("query-id", "corpus-id", "score"))
    query_rows, document_rows = ({key: row for row, key in enumerate(texts)} for texts in (queries, documents))
    if len(documents) < 2:
        raise InputError(f"{directory / 'corpus.jsonl'}: two documents or more are needed to rank them")
    relevance = np.zeros((len(queries), len(documents)), dtype=np.int16)
    unknown = 0
    for line, query, document, grade in table.itertuples():
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
    name = "Cranfield" if directory.name == "cranfield" else directory.name
    return Retrieval(name, split, list(queries.values()), list(documents.values()), relevance)


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
    tasks += [load_retrieval(corpus.parent) for corpus in sorted(directory.glob("*/corpus.jsonl"))]
    if not tasks:
        raise InputError(f"{directory}: no evaluation file here; docs/evaluation.md names them")
    return tasks


def load_hub_tasks() -> list[Task]:
    """Fetch STS-B and SICK-R from the Hub; nothing if it is out of reach."""
    import datasets

    tasks: list[Task] = []
    try:
        for name, split, repository, part in HUB_TASKS:
            huggingface_hub.HfApi().dataset_info(repository, timeout=10)  # load_dataset retries for half a minute
            rows = datasets.load_dataset(repository, split=part)
            scores = np.array(rows["score"], dtype=float)
            pairs = ScoredPairs(list(rows["sentence1"]), list(rows["sentence2"]), scores)
            tasks.append(Similarity(name, split, pairs))
    except (OSError, ValueError, httpx.HTTPError) as error:
        line = first_line(error)
        reason = type(error).__name__ if line.startswith("(") else line  # a tuple says nothing to a reader
        print(f"STS-B and SICK-R are left out: no Hub ({reason}) and no --data_dir", file=sys.stderr)
    return tasks


def load_held_out(models: list[str], pairs_directory: Path, teacher: Path) -> HeldOutPairs | None:
    """Find the pairs held out from the training of the first of the models that was trained on these pairs.

    Each summary is paired with its own article, and with that of the pair before.
    """
    states = [read_json(Path(model) / "training_state.json") for model in models]
    try:
        pairs, data_fingerprint = load_pairs(pairs_directory)
        *teacher_vectors, _ = load_teacher_vectors(teacher, data_fingerprint)
    except InputError:
        return None
    training: list[dict[str, Any]] = [
        s["recipe"]["arguments"] for s in states if s and s["recipe"]["data"] == data_fingerprint
    ]
    if not training:
        return None
    _, held_out = split_rows(len(pairs), training[0]["val_split"], training[0]["seed"])
    whole = islice((row for row in held_out if pairs[int(row)]["article"] is not None), MAX_PAIRS)
    summaries = np.fromiter(whole, dtype=int)
    if len(summaries) < 2:
        raise InputError(f"{pairs_directory}: fewer than two held-out pairs have both texts; raise --val_split")
    articles = np.concatenate([summaries, np.roll(summaries, 1)])
    summaries = np.concatenate([summaries, summaries])
    vectors = [
        shorten(matrix[rows], matrix.shape[1])
        for matrix, rows in zip(teacher_vectors, (summaries, articles), strict=True)
    ]
    scored = ScoredPairs(
        pairs[summaries]["summary"], pairs[articles]["article"], (vectors[0] * vectors[1]).sum(axis=1)
    )
    return HeldOutPairs("HeldOutPairs", "test", scored)

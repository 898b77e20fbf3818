"""Evaluation files: tasks found by their names, faults named by their lines, the known sets of the Hub."""

import shutil

import datasets
import httpx
import huggingface_hub
import pytest

from asterisk.errors import InputError
from asterisk.evaluation.tables import load_scored_pairs
from asterisk.evaluation.task_files import load_hub_tasks, load_tasks

CORPUS = '{"_id": "1", "text": "a wing"}\n'


def test_tasks_are_found_by_their_files(evaluation_files, tmp_path):
    data = shutil.copytree(evaluation_files, tmp_path / "data")
    assert [(task.name, task.split) for task in load_tasks(data)] == [
        ("STSBenchmark", "dev"),
        ("STSBenchmark", "test"),
        ("SICK-R", "trial"),
    ]
    shutil.copy(data / "sickr.trial.tsv", data / "sickr.train.tsv")
    shutil.copy(data / "stsb.test.tsv", data / "sickr.test.tsv")
    whole = load_tasks(data)[-1]
    assert (whole.name, whole.split, len(whole.pairs.scores)) == ("SICK-R", "all", 110)


def test_a_directory_of_ones_own_is_a_retrieval_task(tmp_path):
    data = tmp_path / "minutes"
    data.mkdir()
    (data / "corpus.jsonl").write_text(CORPUS + '{"_id": "2", "text": "", "title": "a boiler"}')
    (data / "queries.jsonl").write_text('{"_id": "1", "text": "what heats the house"}')
    (data / "qrels.dev.tsv").write_text("query-id\tcorpus-id\tscore\n1\t2\t1\n")
    (task,) = load_tasks(tmp_path)
    assert (task.name, task.split, task.documents) == ("minutes", "dev", ["a wing", "a boiler"])
    assert task.relevance.tolist() == [[0, 1]]
    (data / "qrels.test.tsv").write_text("")
    with pytest.raises(InputError, match="minutes: 2 files qrels"):
        load_tasks(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("one\ttwo\t", "line 4: no score"),
        ("one\ttwo", "line 4: no score"),
        ("one\t\t3", "line 4: no sentence2"),
        ("one\ttwo\tmany", "line 4: the score 'many' is not a number"),
        ("one\ttwo\tnan", "line 4: the score 'nan' is not a number"),
    ],
)
def test_faulty_row_is_named(tmp_path, line, message):
    path = tmp_path / "stsb.dev.tsv"
    path.write_text(f"sentence1\tsentence2\tscore\na cat\ta dog\t3\n\n{line}\n")
    with pytest.raises(InputError, match=message):
        load_scored_pairs(path)


def test_faulty_file_is_named(tmp_path):
    path = tmp_path / "stsb.dev.tsv"
    path.write_text("sentence1\tscore\na cat\t3\n")
    with pytest.raises(InputError, match="line 1: column 'sentence2' is missing"):
        load_scored_pairs(path)
    path.write_bytes(b"sentence1\tsentence2\tscore\na cat\ta d\xf6g\t3\n")
    with pytest.raises(InputError, match="near line 2: not UTF-8"):
        load_scored_pairs(path)
    with pytest.raises(InputError, match="No such file"):
        load_scored_pairs(tmp_path / "nowhere.tsv")
    path.write_text("sentence1\tsentence2\tscore\na cat\ta dog\t3\n")
    with pytest.raises(InputError, match="every score is the same"):
        load_scored_pairs(path)
    with pytest.raises(InputError, match="no such directory"):
        load_tasks(tmp_path / "nowhere")
    path.unlink()
    with pytest.raises(InputError, match="no evaluation file here"):
        load_tasks(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"clinc150.test.tsv": "text\tlabel\nhello\tgreeting\n"}, "clinc150.train.tsv: No such file"),
        (
            {
                f"agnews.{part}_from_test.tsv": f"label\ttitle\tdescription\n1\ta\tb\n{label}\tc\td\n"
                for part, label in (("fit", 2), ("eval", 4))
            },
            r"agnews.fit_from_test.tsv: two labels or more are needed, and all those of agnews.eval_from_test.tsv",
        ),
        ({"pan_paraphrase.test.tsv": "sentence1\tsentence2\tlabel\na\tb\t1\n"}, "every label is the same"),
        (
            {
                "cranfield/corpus.jsonl": CORPUS + '{"_id": "2", "text": "", "title": "lift"}',
                "cranfield/queries.jsonl": '{"_id": "1", "text": "what is a wing"}',
                "cranfield/qrels.test.tsv": "query-id\tcorpus-id\tscore\n7\t1\t1\n",
            },
            "qrels.test.tsv: no row names a query and a document",
        ),
        (
            {"cranfield/corpus.jsonl": CORPUS + '{"text": "b"}'},
            "corpus.jsonl line 2: not a JSON",
        ),
        (
            {
                "cranfield/corpus.jsonl": CORPUS,
                "cranfield/queries.jsonl": '{"_id": "1", "text": "what is a wing"}',
                "cranfield/qrels.test.tsv": "query-id\tcorpus-id\tscore\n1\t1\t1\n",
            },
            "corpus.jsonl: two documents or more",
        ),
    ],
)
def test_task_that_cannot_be_scored_is_refused(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        load_tasks(tmp_path)


def test_hub_data_are_the_known_sets(monkeypatch):
    asked = []

    def load_dataset(repository, split):
        asked.append((repository, split))
        return datasets.Dataset.from_dict({"sentence1": ["a cat"], "sentence2": ["a dog"], "score": [2]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    tasks = load_hub_tasks()
    assert [(task.name, task.split) for task in tasks] == [
        ("STSBenchmark", "dev"),
        ("STSBenchmark", "test"),
        ("SICK-R", "all"),
    ]
    assert asked[1:] == [("mteb/stsbenchmark-sts", "test"), ("mteb/sickr-sts", "test")]
    assert tasks[0].pairs.scores.tolist() == [2.0]


def test_hub_out_of_reach_is_one_line(monkeypatch, capsys):
    def dataset_info(*_, **__):
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    assert load_hub_tasks() == []
    assert capsys.readouterr().err == "STS-B and SICK-R are left out: no Hub (no route) and no --data_dir\n"

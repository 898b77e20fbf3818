"""Evaluation: metrics against values worked out by hand, broken models and files, figures that do not wobble."""

import json
import shutil

import baselines
import evaluate
import httpx
import numpy as np
import pytest
import results_page
from conftest import invent_pairs

from asterisk.console import InputError
from asterisk.evaluation_data import ScoredPairs, load_scored_pairs, main_scores, spearman
from evaluation_tasks import (
    Classification,
    HeldOutPairs,
    PairClassification,
    Retrieval,
    Similarity,
    interval,
    load_tasks,
    pair_cosines,
)


def at_angle(degrees):
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def embed_angles(angles):
    """Embed texts as unit vectors of given angles."""
    return lambda texts: np.array([at_angle(angles[text]) for text in texts])


# Metrics by hand


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
    angles = {"north": 90, "east": 0, "n1": 80, "n2": 100, "e1": 10, "e2": -10, "odd": 20}
    train = {"text": ["n1", "n2", "e1", "e2"], "label": ["n", "n", "e", "e"]}
    test = {"text": ["n1", "e1", "odd", "e2"], "label": ["n", "e", "n", "e"]}
    task = Classification("CLINC150", "test", train, test, {"n": "north", "e": "east"})
    scores = task.score(embed_angles(angles), False)
    assert scores["zero_shot_accuracy"] == scores["logistic_regression_accuracy"] == 75.0
    assert scores["hidden_layer_accuracy"] == 75.0


def test_paraphrases_by_hand():
    table = {"sentence1": ["a"] * 4, "sentence2": ["b", "c", "d", "e"], "label": ["1", "0", "1", "0"]}
    angles = {"a": 0, "b": 10, "c": 20, "d": 30, "e": 90}
    scores = PairClassification("PanParaphrase", "test", table).score(embed_angles(angles), False)
    # Ranked b, c, d, e: precision 1 at the first hit, 2/3 at the second. Best F1: three taken, two of them right.
    assert scores["average_precision"] == round(100 * (1 + 2 / 3) / 2, 2)
    assert scores["best_f1"] == 80.0


def test_retrieval_by_hand():
    relevance = np.array([[0, 1, 0], [1, 0, 0]])
    angles = {"q1": 0, "q2": 90, "d1": 80, "d2": 40, "d3": 10}
    task = Retrieval("Cranfield", "test", ["q1", "q2"], ["d1", "d2", "d3"], relevance)
    scores = task.score(embed_angles(angles), False)
    # The first query's document comes second, 1 / log2(3); the second's comes first.
    assert scores["ndcg_at_10"] == round(100 * (1 / np.log2(3) + 1) / 2, 2)
    assert scores["accuracy_at_1"] == 50.0


def test_held_out_pairs_by_hand():
    angles = {"s1": 0, "s2": 90, "a1": 10, "a2": 20}
    cosines = pair_cosines(*(embed_angles(angles)(texts) for texts in (["s1", "s2"], ["a1", "a2"])))
    assert cosines == pytest.approx(np.cos(np.radians([10, 70, 20, 80])))
    task = HeldOutPairs("HeldOutPairs", "test", ["s1", "s2"], ["a1", "a2"], -cosines)
    scores = task.score(embed_angles(angles), False)
    assert scores["teacher_spearman"] == -100.0
    assert scores["accuracy_at_1"] == 100.0


def test_quantised_vectors_are_close_and_binary_keeps_signs():
    vectors = evaluate.shorten(np.random.default_rng(0).normal(size=(500, 64)), 64)
    assert (evaluate.quantize(vectors, "int8") * vectors).sum(1).min() > 0.999
    binary = evaluate.quantize(vectors, "binary")
    assert np.array_equal(np.sign(binary), np.sign(vectors))
    assert np.abs(binary) == pytest.approx(1 / 8)


# Files

CORPUS = '{"_id": "1", "text": "a wing"}\n'


@pytest.fixture
def data(tmp_path):
    """A small directory of evaluation files."""
    directory = tmp_path / "data"
    directory.mkdir()
    texts = [pair["summary"] for pair in invent_pairs(90, seed=7)]
    others = [pair["article"] or pair["summary"] for pair in invent_pairs(90, seed=7)]
    rows = [f"{a}\t{b}\t{i % 6}" for i, (a, b) in enumerate(zip(texts, others, strict=True))]
    for name, part in (("stsb.dev", rows[:40]), ("stsb.test", rows[40:]), ("sickr.trial", rows[:30])):
        (directory / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *part]) + "\n")
    return directory


def test_tasks_are_found_by_their_files(data):
    assert [(task.name, task.split) for task in load_tasks(data)] == [
        ("STSBenchmark", "dev"),
        ("STSBenchmark", "test"),
        ("SICK-R", "trial"),
    ]
    shutil.copy(data / "sickr.trial.tsv", data / "sickr.train.tsv")
    shutil.copy(data / "stsb.test.tsv", data / "sickr.test.tsv")
    whole = load_tasks(data)[-1]
    assert (whole.name, whole.split, len(whole.pairs.scores)) == ("SICK-R", "all", 110)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("one\ttwo\t", "line 4: no score; mend or delete the row"),
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
                f"agnews.{part}_from_test.tsv": "label\ttitle\tdescription\n1\ta\tb\n4\tc\td\n"
                for part in ("fit", "eval")
            },
            "a label is none of 0, 1, 2, 3",
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


# The command


@pytest.fixture
def score(run_command, pairs, teacher_vectors, tmp_path):
    def call(*arguments):
        options = ("--pairs", pairs, "--teacher", teacher_vectors, "--results", tmp_path / "results")
        return run_command(evaluate, *arguments, *options)

    return call


def test_results_of_all_forms_and_their_page(score, run_command, exported, teacher, data, tmp_path):
    assert "two models are named model" in score(exported, teacher, "--data-dir", data).err
    teacher = shutil.copytree(teacher, tmp_path / "teacher")
    result = score(exported, teacher, "--data-dir", data)
    assert result.code == 0, result.err
    path = tmp_path / "results" / "model.json"
    rows = main_scores(json.loads(path.read_text()))
    tasks = {("STSBenchmark", "dev"), ("STSBenchmark", "test"), ("SICK-R", "trial"), ("HeldOutPairs", "test")}
    assert {(row["task"], row["split"]) for row in rows} == tasks
    forms = [(row["form"], row["dim"], row["precision"]) for row in rows if row["split"] == "dev"]
    assert forms == [
        ("pytorch", 32, "float32"),
        ("onnx_fp32", 32, "float32"),
        ("onnx_int8", 32, "float32"),
        ("onnx_int8", 32, "int8"),
        ("onnx_int8", 32, "binary"),
    ]
    assert path.with_suffix(".png").stat().st_size > 10_000
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    result = score(exported, teacher, "--data-dir", data)
    assert result.out.count("is up to date") == 2
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before

    benchmark = [{"form": "model (INT8 ONNX)", "speed_up": {"texts": 12.34}}]
    (path.parent / "benchmark.json").write_text(
        json.dumps({"run": {"teacher": "x/teacher"}, "figures": benchmark})
    )
    result = run_command(results_page, "--results", path.parent)
    assert result.code == 0, result.err
    page = (path.parent / "README.md").read_text()
    figures = {(row["form"], row["task"], row["split"]): row["score"] for row in reversed(rows)}
    (line,) = (line for line in page.splitlines() if line.startswith("| model (INT8 ONNX) |"))
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2] == f"{figures['onnx_int8', 'STSBenchmark', 'test']:.2f}"
    assert "12.3" in cells
    assert "| teacher (PyTorch) |" in page
    assert "| all-MiniLM-L6-v2, quoted | 82.03 | 77.58 |" in page
    assert "32 x binary" in page and "4 MB" in page
    assert (path.parent / "quality_speed.png").stat().st_size > 5000


def test_results_page_without_results(run_command, tmp_path):
    (tmp_path / "damaged.json").write_text("[]")
    result = run_command(results_page, "--results", tmp_path)
    assert result.code == 2
    assert "no results here; run scripts/evaluate.py" in result.err


def test_lsa_is_that_of_scikit_learn():
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [text for pair in invent_pairs(80) for text in pair.values() if text]
    matrix = TfidfVectorizer(token_pattern=r"\w+", min_df=2).fit_transform(texts)
    expected = evaluate.shorten(TruncatedSVD(64, random_state=0).fit_transform(matrix), 64)
    module = baselines.fit_lsa(texts)
    features = module.tokenize(texts)
    found = evaluate.shorten(module(features)["sentence_embedding"].detach().numpy()[:, :64], 64)
    assert (found @ found.T)[:20, :20] == pytest.approx((expected @ expected.T)[:20, :20], abs=0.02)


def test_order_of_rows_changes_nothing(score, exported, data, tmp_path):
    def figures():
        assert score(exported, "--data-dir", data).code == 0
        return main_scores(json.loads((tmp_path / "results" / "model.json").read_text()))

    first = figures()
    for path in data.iterdir():
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, *reversed(rows)]) + "\n")
    assert figures() == first


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (7, 2), (64, 1)])
def test_batches_and_threads_change_nothing(exported, data, batch_size, threads):
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu")
    found = []
    before = torch.get_num_threads()
    for options, count in (({}, before), ({"batch_size": batch_size}, threads)):
        torch.set_num_threads(count)
        rows, vectors = evaluate.embed_all(lambda texts: model.encode(texts, **options), load_tasks(data), "m")  # noqa: B023
        found.append([task.score(evaluate.look_up(rows, vectors), thorough=False) for task in load_tasks(data)])
    torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize(("value", "fault"), [(np.nan, "contain NaN"), (0.0, "gives every text the same vector")])
def test_broken_model_is_reported_not_scored(score, exported, data, tmp_path, value, fault):
    from safetensors.numpy import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    weights = load_file(broken / "model.safetensors")
    weights["projection.weight"] = np.full_like(weights["projection.weight"], value)
    weights["projection.bias"] += 1
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    result = score(broken, "--data-dir", data)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(f"error: {broken} (pytorch) is broken")
    assert fault in result.err
    assert not list((tmp_path / "results").iterdir())


def test_hub_data_are_the_known_sets(monkeypatch):
    import datasets

    asked = []

    def load_dataset(repository, split):
        asked.append((repository, split))
        return datasets.Dataset.from_dict({"sentence1": ["a cat"], "sentence2": ["a dog"], "score": [2]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(evaluate.huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    tasks = evaluate.load_hub_tasks()
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

    monkeypatch.setattr(evaluate.huggingface_hub.HfApi, "dataset_info", dataset_info)
    assert evaluate.load_hub_tasks() == []
    assert capsys.readouterr().err == "STS-B and SICK-R are left out: no Hub (no route) and no --data-dir\n"


def test_nothing_to_score_on(run_command, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "load_hub_tasks", lambda: [])
    options = ("--pairs", tmp_path / "no", "--results", tmp_path / "results")
    result = run_command(evaluate, teacher, *options)
    assert result.code == 2
    assert result.err == "error: nothing to score model on: name a --data-dir, or a model trained on " + (
        f"{tmp_path / 'no'}\n"
    )

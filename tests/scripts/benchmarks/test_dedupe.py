"""The benchmark of grouping counts right, and runs from end to end on a few items."""

import json

import numpy as np
import pytest
from conftest import invent_pairs, load_script


@pytest.fixture(scope="module")
def script():
    return load_script("scripts/benchmarks/dedupe.py")


def test_scores(script):
    """One pair of four is right, of two that belong together; by hand."""
    scores = script.score(np.array(list("aabbc")), np.array([0, 0, 0, 1, 2]))
    assert scores["precision"] == pytest.approx(100 / 3, abs=0.05)
    assert scores["recall"] == 50
    assert scores["F1"] == 40
    assert scores["B-cubed precision"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 1 / 3 + 1 + 1) / 5, abs=0.1)
    assert scores["B-cubed recall"] == pytest.approx(100 * (1 + 1 + 0.5 + 0.5 + 1) / 5, abs=0.1)
    assert scores["largest"] == 3


def test_perfect_groups_score_everything(script):
    scores = script.score(np.array(list("aabc")), np.array([5, 5, 1, 2]))
    assert {scores[name] for name in script.MEASURES} == {100}


@pytest.mark.slow
def test_report(script, run_command, tmp_path, monkeypatch):
    pairs = [pair for pair in invent_pairs(30, seed=3) if pair["article"]]
    rows = [
        {
            "title": text,
            "summary": "",
            "url": f"{row}{column}",
            "event": str(row),
            "published": "2026-03-02T09:00:00Z",
        }
        for row, pair in enumerate(pairs)
        for column, text in pair.items()
    ]
    items = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("choosing.jsonl", "reporting.jsonl"):
        (tmp_path / name).write_text(items)
    sentences = [f"{pair['summary']}\t{pair['article']}\t{row % 2}" for row, pair in enumerate(pairs)]
    for part in ("train", "test"):
        text = "\n".join(["sentence1\tsentence2\tlabel", *sentences]) + "\n"
        (tmp_path / f"pan_paraphrase.{part}.tsv").write_text(text)
    titles = "".join(f"{pair['summary']}\t{pair['article']} and so on and on and on\n" for pair in pairs)
    (tmp_path / "titles.tsv").write_text(f"text_a\ttext_b\n{titles}")
    for name, value in {
        "FEEDS": tmp_path,
        "SEARCHED": 20,
        "LEAST_CHARACTERS": 8,
        "THRESHOLDS": [0.2, 0.5],
    }.items():
        monkeypatch.setattr(script, name, value)
    paths = ("--items", tmp_path / "choosing.jsonl", "--paraphrases", tmp_path, "--pairs", tmp_path / "titles.tsv")
    result = run_command(script, *paths, "--output", tmp_path / "results")
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "results" / "dedupe.json").read_text())["figures"]
    assert figures["feed"].keys() > script.WAYS.keys()
    assert figures["speed"]["items"] == len(rows)
    assert "titles" in (tmp_path / "results" / "dedupe.md").read_text()

"""The benchmark of the search runs from end to end on a few texts."""

import json

import pytest
from conftest import invent_pairs, load_script

pytest.importorskip("apsw")


@pytest.fixture
def collections(tmp_path):
    """Twelve documents with a query each, and as many rows of a title and a body."""
    pairs = [pair for pair in invent_pairs(40, seed=3) if pair["article"]][:24]
    cranfield = tmp_path / "cranfield"
    cranfield.mkdir()
    for name, key in (("corpus", "article"), ("queries", "summary")):
        lines = [json.dumps({"_id": str(i), "title": "", "text": pair[key]}) for i, pair in enumerate(pairs[:12])]
        (cranfield / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    grades = "".join(f"{i}\t{i}\t1\n" for i in range(12))
    (cranfield / "qrels.test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{grades}")
    rows = [f"a_title_body\t{pair['summary']}\t{pair['article']} and so on and on" for pair in pairs[12:]]
    (tmp_path / "rows.tsv").write_text("\n".join(["source\tsummary\tarticle", *rows]) + "\n")
    return cranfield, tmp_path / "rows.tsv"


@pytest.mark.slow
def test_report(run_command, collections, tmp_path, monkeypatch):
    script = load_script("scripts/benchmarks/search.py")
    monkeypatch.setattr(script, "TIMED_QUERIES", 2)
    monkeypatch.setattr(script, "COLD_STARTS", 1)
    cranfield, rows = collections
    options = ("--cache", tmp_path / "cache", "--output", tmp_path, "--counts", 60, "--passages", 30)
    result = run_command(script, "--cranfield", cranfield, "--rows", rows, *options)
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "search.json").read_text())["figures"]
    for part in ("Cranfield", "a_title_body"):
        assert figures["retrieval"]["scores"][part]["words"]["recall_at_10"] > 90
    ways = figures["neighbours"]["60"]
    assert ways["float32, cosine"]["recall"] >= 90  # some are equally near
    assert ways["signs, 200 again"]["recall"] > 90
    assert "| hybrid" in (tmp_path / "search.md").read_text()


def test_rows_without_titles_are_refused(run_command, collections, tmp_path):
    cranfield, rows = collections
    rows.write_text("source\tsummary\tarticle\na\t\tx\n")
    result = run_command("scripts/benchmarks/search.py", "--cranfield", cranfield, "--rows", rows)
    assert result.code == 2
    assert "no row with source, summary and article" in result.err

"""The mixture of many fields, and the rows held out of it."""

import csv
import gzip

from conftest import ROOT, refused

from asterisk.evaluation.task_files import load_tasks

SCRIPT = "scripts/recipes/wide_text.py"
ROWS = 120


def test_held_out_rows_are_queries_and_never_learnt(run_command, tmp_path):
    table = (ROOT / SCRIPT).with_suffix(".tsv").read_text()
    for source in csv.DictReader(table.splitlines(), delimiter="\t"):
        path = tmp_path / "text" / source["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        titles = [f"{path.stem} title {row}" for row in range(ROWS)]
        texts = [
            ". ".join(f"Sentence {part} of row {row} of {path.stem} is here" for part in "ABCD")
            for row in range(ROWS)
        ]
        lines = ["text_a\ttext_b", *map("\t".join, zip(titles, texts, strict=True))]
        lines = titles if ".txt" in path.name else lines
        with gzip.open(path, "wt", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
    result = run_command(
        SCRIPT, tmp_path / "text", "--output", tmp_path / "wide.tsv", "--held_out", tmp_path / "sets"
    )
    assert result.code == 0, result.err

    learnt = (tmp_path / "wide.tsv").read_text().splitlines()
    assert learnt[0] == "summary\tarticle"
    assert 0.1 * ROWS < len(learnt) / table.count("gz") < ROWS
    assert any("Sentence D" in line and "Sentence A" not in line for line in learnt), (
        "long texts as sentences, too"
    )
    tasks = {task.name: task for task in load_tasks(tmp_path / "sets")}
    assert set(tasks) == {"title_abstract", "heading_paragraph"}
    titles = {line.partition("\t")[0] for line in learnt}
    for task in tasks.values():
        assert len(task.queries) == (12 if task.name == "title_abstract" else 3)
        assert titles.isdisjoint(task.queries)
        for row, query in enumerate(task.queries):
            (relevant,) = task.relevance[row].nonzero()[0]
            assert f"row {query.rpartition(' ')[2]} of {query.partition(' title')[0]}" in task.documents[relevant]
    held_out = (tmp_path / "sets" / "rows.tsv").read_text().splitlines()
    assert held_out[0] == "source\tsummary\tarticle"
    assert len(held_out) - 1 == 3 * table.count("gz")
    assert {row.split("\t")[1] for row in held_out[1:]} & titles == set()
    (tmp_path / "text" / "open2" / "openstax_books.tsv.gz").unlink()
    message = refused(run_command(SCRIPT, tmp_path / "text", "--output", tmp_path / "wide.tsv"))
    assert "openstax_books.tsv.gz: no such file" in message

"""evaluate_models and what is made of its results: the page of several models, the report of one."""

import json
import shutil

import numpy as np
import pytest
from conftest import refused
from safetensors.numpy import load_file, save_file

from asterisk.evaluation import metrics, task_files
from asterisk.evaluation.results import main_scores


def test_results_of_all_forms(results):
    rows = main_scores(json.loads((results / "model.json").read_text()))
    tasks = {("STSBenchmark", "dev"), ("STSBenchmark", "test"), ("SICK-R", "trial"), ("HeldOutPairs", "test")}
    assert {(row["task"], row["split"]) for row in rows} == tasks
    assert [(row["form"], row["dim"], row["precision"]) for row in rows if row["split"] == "dev"] == [
        ("pytorch", 32, "float32"),
        ("onnx_fp32", 32, "float32"),
        ("onnx_int8", 32, "float32"),
        ("onnx_int8", 32, "int8"),
        ("onnx_int8", 32, "binary"),
    ]
    assert (results / "model.png").stat().st_size > 10_000


def test_second_run_is_up_to_date_until_the_code_changes(
    evaluate, results, exported, teacher, evaluation_files, change_source, tmp_path
):
    copy = shutil.copytree(results, tmp_path / "results")
    result = evaluate(copy, exported, teacher, "--data_dir", evaluation_files)
    assert result.out.count("is up to date") == 2
    files = [path.relative_to(results) for path in results.iterdir()]
    assert all((copy / file).read_bytes() == (results / file).read_bytes() for file in files)
    change_source(metrics, "return 100 * float", "return 99 * float")
    assert "is up to date" not in evaluate(copy, teacher, "--data_dir", evaluation_files).out


def test_page_of_several_models(run_command, results, tmp_path):
    results = shutil.copytree(results, tmp_path / "results")
    benchmark = [{"form": "model (INT8 ONNX)", "speed_up": {"texts": 12.34}}]
    report = {"run": {"teacher": "x/teacher"}, "figures": benchmark}
    (results / "benchmark.json").write_text(json.dumps(report))
    result = run_command("scripts/results_page.py", "--results", results)
    assert result.code == 0, result.err
    page = (results / "README.md").read_text()
    rows = main_scores(json.loads((results / "model.json").read_text()))
    figures = {(row["form"], row["task"], row["split"]): row["score"] for row in reversed(rows)}
    line = next(line for line in page.splitlines() if line.startswith("| model (INT8 ONNX) "))
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2] == f"{figures['onnx_int8', 'STSBenchmark', 'test']:.2f}"
    assert "12.3" in cells
    assert "| teacher (PyTorch) " in page
    (quoted,) = (line for line in page.splitlines() if line.startswith("| all-MiniLM-L6-v2, quoted "))
    assert [cell.strip() for cell in quoted.split("|")][2:4] == ["82.03", "77.58"]
    assert "32 x binary" in page and "4 MB" in page
    assert (results / "quality_speed.png").stat().st_size > 5000
    kept = page.partition("## Share of the teacher kept")[2]
    shares = {line.split(" |")[0][2:]: line.split("|")[2] for line in kept.splitlines() if line.startswith("| ")}
    assert float(shares["teacher (PyTorch)"]) == 100
    teacher = main_scores(json.loads((results / "teacher.json").read_text()))
    whole = next(row["score"] for row in teacher if (row["task"], row["split"]) == ("STSBenchmark", "test"))
    share = 100 * figures["onnx_int8", "STSBenchmark", "test"] / whole
    assert shares["model (INT8 ONNX)"].strip() == f"{share:.1f}"


def test_report_of_a_finished_pipeline(run_command, results, exported, tmp_path):
    result = run_command("scripts/print_report.py", exported, "--results", results)
    assert result.code == 0, result.err
    assert "180 pairs for training, 20 held out" in result.out
    scores = main_scores(json.loads((results / "model.json").read_text()))
    agreement = next(row["score"] for row in scores if row["metric"] == "teacher_spearman")
    assert f"pytorch {agreement:.1f}" in result.out
    message = refused(run_command("scripts/print_report.py", exported, "--results", tmp_path))
    assert "`make evaluate` has not been run" in message


@pytest.mark.parametrize(("value", "fault"), [(np.nan, "contain NaN"), (0.0, "gives every text the same vector")])
def test_broken_model_is_reported_not_scored(evaluate, exported, evaluation_files, tmp_path, value, fault):
    broken = shutil.copytree(exported, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["projection.weight"] = np.full_like(weights["projection.weight"], value)
    weights["projection.bias"] += 1
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    result = evaluate(tmp_path / "results", broken, "--data_dir", evaluation_files)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(f"error: {broken} (pytorch) is broken")
    assert fault in result.err
    assert not list((tmp_path / "results").iterdir())


def test_mistakes_are_one_line(evaluate, run_command, exported, teacher, evaluation_files, tmp_path, monkeypatch):
    copy = shutil.copytree(teacher, tmp_path / "model")
    twins = evaluate(tmp_path / "results", exported, copy, "--data_dir", evaluation_files)
    assert "two models are named model" in refused(twins)
    monkeypatch.setattr(task_files, "load_hub_tasks", lambda: [])
    nowhere = ("--pairs", tmp_path / "no", "--results", tmp_path / "results")
    message = refused(run_command("scripts/evaluate_models.py", teacher, *nowhere))
    assert f"nothing to score teacher on: name a --data_dir, or a model trained on {tmp_path / 'no'}" in message
    (tmp_path / "damaged.json").write_text("[]")
    message = refused(run_command("scripts/results_page.py", "--results", tmp_path))
    assert "no results here; run scripts/evaluate_models.py" in message

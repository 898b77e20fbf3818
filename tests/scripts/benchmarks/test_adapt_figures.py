"""The figures about adaptation: the table of gains and losses, the curve, and the arithmetic of times."""

import json
import shutil
from types import SimpleNamespace

import pytest
from conftest import ROOT, load_script

SCORES = {
    "before": {"Cranfield": 33.0, "STSBenchmark": 86.5},
    "cranfield": {"Cranfield": 35.25, "STSBenchmark": 86.25},
    "teacher": {"Cranfield": 39.5, "STSBenchmark": 87.0},
}
TASKS = [
    SimpleNamespace(name="Cranfield", split="test", main="ndcg_at_10"),
    SimpleNamespace(name="STSBenchmark", split="dev", main="cosine_spearman"),
]


@pytest.fixture(scope="module")
def benchmark():
    return load_script(ROOT / "scripts" / "benchmarks" / "adapt.py")


def test_table_has_changes_and_marks_the_own_task(benchmark):
    text = benchmark.render(SCORES, TASKS, {"cranfield": "Cranfield"})
    before, adapted, teacher = ("".join(line.split()) for line in text.splitlines()[2:5])
    assert before == "|before|33.00|86.50|"
    assert adapted == "|adaptedtocranfield|**35.25(+2.25)**|86.25(-0.25)|"
    assert teacher == "|teacher|39.50|87.00|"
    assert "nDCG@10 of Cranfield test, Spearman of STSBenchmark dev" in text


def test_curve_begins_with_the_model_and_has_its_checkpoints(benchmark, trained, tmp_path):
    task = SimpleNamespace(
        name="norm", main="norm", score=lambda embed, thorough: {"norm": embed(["a heron"]).sum()}
    )
    assert benchmark.curve(tmp_path, trained, [task]) == [(0.0, 0.0, 0.0)]
    point = tmp_path / "step-00000100"
    point.mkdir()
    shutil.copy(trained / "model.safetensors", point)
    (point / "progress.json").write_text(json.dumps({"progress": {"seconds": 90}}))
    pair = [task, SimpleNamespace(name="other", main="norm", score=task.score)]
    assert benchmark.curve(tmp_path, trained, pair) == [(0.0, 0.0, 0.0), (1.5, 0.0, 0.0)]


def test_times_are_reckoned_for_all_passages():
    speed = load_script(ROOT / "scripts" / "benchmarks" / "adapt_speed.py")
    here = {"teacher": 6, "training": 9, "teacher_cpu": 12, "training_cpu": 18, "megabytes": 1500}
    core = {"teacher": 60, "training": 90, "teacher_cpu": 60, "training_cpu": 90}
    figures = {"passages": 1000, "tokens": 60_000, "all cores": here, "one core, fp32": core}
    text = speed.render(figures, 2 * speed.PI_GFLOPS)
    machine, pi = ("".join(line.split()) for line in text.splitlines()[2:4])
    assert machine == "|thismachine|10,000|6,667|2|6|8|"
    assert pi == "|RaspberryPi5,reckoned|500|333|40|120|160|"

"""The benchmark of inference: the figures from the times, the tables, what a missing model says."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import load_script, refused

from asterisk.errors import InputError
from asterisk.evaluation.models import ONNX_FORMS, Form, load_pytorch


@pytest.fixture(scope="module")
def inference():
    return load_script("scripts/benchmarks/inference.py")


def test_figures_worked_out_by_hand(inference):
    seconds = {
        "12 tokens": [(i / 1000, 0.0) for i in range(101)],
        "texts": [(4.0, 3.0), (1.0, 5.0), (2.0, 1.0)],
    }
    teacher_seconds = {"12 tokens": [(0.1, 0.0), (0.4, 0.0), (0.2, 0.0)], "texts": [(3.0, 0.0)]}
    fresh = [[9.0, 9.5, 80.0], [1.0, 1.5, 81.0], [2.0, 2.5, 90.0]]
    figures = inference.summarize(fresh, seconds, teacher_seconds, texts=100)
    assert (figures["load_s"], figures["first_vector_s"], figures["peak_memory_mb"]) == (2.0, 2.5, 81.0)
    assert figures["p50_p95_p99_ms"]["12 tokens"] == pytest.approx([50, 95, 99])
    assert (figures["texts_per_s"], figures["processor_ms_per_text"]) == (50, 30)
    assert figures["speed_up"] == pytest.approx({"12 tokens": 4.0, "texts": 1.5})


def test_models_of_one_name_are_told_apart(inference, tmp_path):
    names = ["tokenizer.json", "model.safetensors", *ONNX_FORMS.values()]
    for name in [f"{parent}/model/{name}" for parent in "ab" for name in names]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        (tmp_path / name[0] / "model" / "config.json").write_text('{"model_type": "asterisk"}')
    directories = [tmp_path / "a/model", tmp_path / "b/model"]
    forms = inference.list_forms(directories, str(directories[0]), tmp_path, threads=1)
    kinds = ["PyTorch", "ONNX fp32", "INT8 ONNX"]
    expected = [f"{directory} ({kind})" for directory in directories for kind in kinds]
    assert list(forms) == [*(f"teacher ({kind})" for kind in kinds), *expected]
    (directories[1] / "onnx/model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx: no such file; .*export_optimum"):
        inference.list_forms(directories, str(directories[0]), tmp_path, threads=1)


def test_teachers_onnx_files_give_its_vectors(inference, teacher, tmp_path):
    inference.export_teacher(teacher, tmp_path / "onnx")
    texts = ["an otter", "the bridge of Aldermoor"]
    expected = load_pytorch(str(teacher))(texts)
    for file in inference.TEACHER_ONNX.values():
        vectors = inference.load_teacher_onnx(tmp_path / "onnx", file, 1)(texts)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        assert (vectors * expected).sum(1) / lengths == pytest.approx(1, abs=0.05)


def test_one_thread_and_all_side_by_side(inference, run_command, monkeypatch, tmp_path):
    (tmp_path / "weights").write_bytes(b"w" * 1_500_000)
    form = Form((tmp_path / "weights",), load=lambda: None)

    def measure(command, **_):
        threads, scratch = (option.partition("=")[2] for option in command[-2:])
        seconds = {"12 tokens": [(0.1, 0.1)], "texts": [(4.0 / int(threads), 4.0)]}
        figures = inference.summarize([[1.0, 1.0, 80.0]], seconds, seconds, texts=100)
        figures |= {"form": "tiny", "size_mb": form.megabytes, "threads": int(threads)}
        report = {"run": {"threads": int(threads)}, "figures": [figures]}
        (Path(scratch) / "benchmark.json").write_text(json.dumps(report))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(inference, "list_forms", lambda *_: {"tiny": form})
    monkeypatch.setattr(inference, "export_teacher", lambda *_: None)
    monkeypatch.setattr(inference.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(inference.subprocess, "run", measure)
    result = run_command(inference, "--output", tmp_path, "--teacher_model", tmp_path)
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert [(row["threads"], row["texts_per_s"]) for row in report["figures"]] == [(1, 25), (4, 100)]
    one, all_cores = (tmp_path / "benchmark.md").read_text().partition("## One thread")[2].split("## 4 threads")
    cells = [[cell.strip() for cell in part.splitlines()[4].split("|")[1:-1]] for part in (one, all_cores)]
    latency = "100.00 / 100.00 / 100.00 (1.0x)"
    assert cells[0] == ["tiny", "1.5", "1.0", "1.0", "80", latency, "25 (1.0x)", "40.00"]
    assert cells[1][-2] == "100 (1.0x)"


def test_mistakes_are_one_line(run_command, tmp_path):
    def ask(*arguments):
        return refused(run_command("scripts/benchmarks/inference.py", *arguments))

    assert "--texts and --repeats must be 1 or more" in ask("--texts", 0)
    assert "absent: no such directory" in ask(tmp_path / "absent", "--teacher_model", tmp_path / "absent")

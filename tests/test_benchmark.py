"""benchmark: the figures from the times, the table, the latency texts, what a missing model says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import benchmark
import product_speed
from asterisk.console import InputError


@pytest.fixture
def form(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b"t" * 500_000)
    (tmp_path / "model.onnx").write_bytes(b"w" * 1_000_000)
    files = (tmp_path / "tokenizer.json", tmp_path / "model.onnx")
    return benchmark.Form("tiny (INT8 ONNX)", files, load=lambda: None)


def test_figures_worked_out_by_hand(form):
    seconds = {
        "12 tokens": [(i / 1000, 0.0) for i in range(101)],
        "texts": [(4.0, 3.0), (1.0, 5.0), (2.0, 1.0)],
    }
    teacher_seconds = {"12 tokens": [(0.1, 0.0), (0.4, 0.0), (0.2, 0.0)], "texts": [(3.0, 0.0)]}
    fresh = [[9.0, 9.5, 80.0], [1.0, 1.5, 81.0], [2.0, 2.5, 90.0]]
    figures = benchmark.summarize(form, fresh, seconds, teacher_seconds, texts=100)
    assert figures["size_mb"] == 1.5
    assert (figures["load_s"], figures["first_vector_s"], figures["peak_memory_mb"]) == (2.0, 2.5, 81.0)
    assert figures["p50_p95_p99_ms"]["12 tokens"] == pytest.approx([50, 95, 99])
    assert (figures["texts_per_s"], figures["processor_ms_per_text"]) == (50, 30)
    assert figures["speed_up"] == pytest.approx({"12 tokens": 4.0, "texts": 1.5})


def test_table_is_aligned():
    figures = {
        "form": "tiny",
        "size_mb": 1.54,
        "load_s": 2.0,
        "first_vector_s": 2.26,
        "peak_memory_mb": 81.4,
        "p50_p95_p99_ms": {"12 tokens": [1.0, 2.0, 3.004]},
        "texts_per_s": 50.0,
        "processor_ms_per_text": 1.234,
        "speed_up": {"12 tokens": 4.0, "texts": 1.5},
    }
    lines = benchmark.render_table([figures, {**figures, "form": "a longer name", "texts_per_s": 12345.0}]).split(
        "\n"
    )
    assert len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == ["tiny", "1.5", "2.0", "2.3", "81", "1.00 / 2.00 / 3.00 (4.0x)", "50 (1.5x)", "1.23"]


def test_latency_text_has_so_many_tokens():
    words = sorted(set(benchmark.SENTENCE.split()))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="the"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert benchmark.text_of_tokens(3, tokenizer) == "the old house"
    assert len(benchmark.text_of_tokens(128, tokenizer).split()) == 128


def test_models_of_one_name_are_told_apart(tmp_path):
    names = ["tokenizer.json", "model.safetensors", *benchmark.ONNX_FORMS.values()]
    for name in [f"{parent}/model/{name}" for parent in "ab" for name in names]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        (tmp_path / name[0] / "model" / "config.json").write_text('{"model_type": "asterisk"}')
    directories = [tmp_path / "a/model", tmp_path / "b/model"]
    forms = benchmark.list_forms(directories, str(directories[0]), tmp_path, threads=1)
    kinds = ["PyTorch", "ONNX fp32", "INT8 ONNX"]
    expected = [f"{directory} ({kind})" for directory in directories for kind in kinds]
    assert [form.name for form in forms] == [*(f"teacher ({kind})" for kind in kinds), *expected]
    (directories[1] / "onnx/model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx: no such file; .*export_optimum"):
        benchmark.list_forms(directories, str(directories[0]), tmp_path, threads=1)


def test_missing_model_is_one_line(tmp_path):
    command = [sys.executable, benchmark.__file__, str(tmp_path / "absent")]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: ") and outcome.stderr.count("\n") == 1
    assert "train_accelerate.py" in outcome.stderr


def test_bare_products_are_those_of_the_graph(exported, monkeypatch):
    monkeypatch.setattr(product_speed, "ROUNDS", 3)
    rows = product_speed.measure_products(exported / "onnx/model_quantized.onnx", threads=1)
    layer = 4 * 512 * 512 + 2 * 512 * 256
    weights = 32 * 512 + 2 * layer
    assert [row["macs"] for row in rows] == [tokens * weights for tokens in (12, 32, 128, 1024)]
    assert all(0 < row["bare_seconds"] < row["seconds"] for row in rows)
    table = product_speed.render_products(rows)
    assert table.count("\n| ") == len(rows)
    assert f"{12 * weights / 3e6:.0f} ms for 12, " in table


def test_teachers_onnx_files_give_its_vectors(teacher, tmp_path):
    benchmark.export_teacher(teacher, tmp_path / "onnx")
    expected = benchmark.load_pytorch(str(teacher), is_teacher=True)(["an otter", "the bridge of Aldermoor"])
    for file in benchmark.TEACHER_ONNX.values():
        vectors = benchmark.load_teacher_onnx(tmp_path / "onnx", file, 1)(["an otter", "the bridge of Aldermoor"])
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        assert (vectors * expected).sum(1) / lengths == pytest.approx(1, abs=0.05)


def test_one_thread_and_all_side_by_side(run_command, monkeypatch, form, tmp_path):
    def measure(command, **_):
        threads, scratch = (option.partition("=")[2] for option in command[-2:])
        seconds = {"12 tokens": [(0.1, 0.1)], "texts": [(4.0 / int(threads), 4.0)]}
        figures = [benchmark.summarize(form, [[1.0, 1.0, 80.0]], seconds, seconds, texts=100)]
        report = {"run": {"threads": int(threads)}, "figures": figures}
        (Path(scratch) / "benchmark.json").write_text(json.dumps(report))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(benchmark, "list_forms", lambda *_: [form])
    monkeypatch.setattr(benchmark, "export_teacher", lambda *_: None)
    monkeypatch.setattr(benchmark.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(benchmark.subprocess, "run", measure)
    result = run_command(benchmark, "--output", tmp_path, "--teacher_model", tmp_path)
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert [(row["threads"], row["texts_per_s"]) for row in report["figures"]] == [(1, 25), (4, 100)]
    page = (tmp_path / "benchmark.md").read_text()
    assert page.index("## One thread") < page.index("## 4 threads")

"""The benchmark of bulk embedding, its engines replaced by given times, and the arithmetic of docs/scale.md."""

import importlib
import json
import sys

import pytest
from conftest import ROOT, load_script

SECONDS = {"local": 2.0, "ray": 4.0}


@pytest.fixture
def figures(run_command, pairs, tmp_path, monkeypatch):
    """Run the benchmark; return what it wrote."""
    script = load_script("scripts/benchmarks/scale.py")

    def run_engine(_, engine, path, *others):
        return {
            "embed": SECONDS[engine] + 1 if path.stem == "120" else 1.0,
            "processor": 0.56 if path.stem == "120" else 0,
        }

    monkeypatch.setattr(script, "run_engine", run_engine)
    monkeypatch.setattr(script, "watch", lambda command: ("", 100.0, 0.0))
    options = ("--texts", 120, "--rounds", 1, "--rows", 150, 300, "--output", tmp_path)
    result = run_command(script, "--pairs", pairs, *options)
    assert result.code == 0, result.err
    return json.loads((tmp_path / "scale.json").read_text())["figures"]


@pytest.mark.slow
def test_report(figures):
    assert figures["speed"]["local"]["texts_per_s"] == pytest.approx((120 - 64) / 2)
    assert figures["speed"]["local"]["processor_ms_per_text"] == pytest.approx(10)
    assert figures["speed"]["ray"]["texts_per_s"] == pytest.approx((120 - 64) / 4)
    assert figures["speed"]["session, batches of 8"]["texts_per_s"] > 0
    assert figures["memory"] == {engine: {"150": 100.0, "300": 100.0} for engine in SECONDS}
    assert [row["bytes_per_row"] for row in figures["storage"].values()] == [512, 256, 32]
    assert figures["storage"]["float16"]["recall"] > 95


def test_arithmetic_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    page = importlib.import_module("scale_figures")
    row = {"bytes_per_row": 512, "index_bytes_per_row": 700, "index_processor_ms_per_row": 3.6, "recall": 99.0}
    given = {"speed": {"local": {"processor_ms_per_text": 1.8}}, "storage": {"float16": row}}
    monkeypatch.setattr(page, "measured", lambda: given)
    assert "1.80 ms of a core, so a billion take 500 core hours: 0.2 days on 100 such cores." in page.billion()
    assert "that is 10 euros." in page.billion().replace("\n", " ")
    assert [cell.strip() for cell in page.storage().splitlines()[-1].split("|")[1:-1]] == [
        *("float16", "512", "512", "700", "1,000", "99.0")
    ]
    sys.modules.pop("scale_figures")

"""The bare matrix products of an INT8 graph: those of the graph, with their share of its time."""

import json

import onnx
import pytest
from conftest import ROOT, load_script, refused

WEIGHTS = 32 * 512 + 2 * (4 * 512 * 512 + 2 * 512 * 256) + 512 * 32  # of the miniature model


def test_bare_products_are_those_of_the_graph(exported):
    matrix_products = load_script("scripts/benchmarks/matrix_products.py")
    weights = matrix_products.product_weights(exported / "onnx" / "model_quantized.onnx")
    graph = onnx.load_from_string(matrix_products.bare_products(weights)).graph
    assert {node.op_type for node in graph.node} == {"MatMulInteger"}
    assert [tensor.dims for tensor in graph.initializer] == [tensor.dims for tensor in weights]
    assert sum(tensor.dims[0] * tensor.dims[1] for tensor in graph.initializer) == WEIGHTS


@pytest.mark.slow
def test_table_of_both_and_an_estimate(python, exported, tmp_path):
    command = ROOT / "scripts" / "benchmarks" / "matrix_products.py"
    result = python(command, exported, "--threads", 1, "--rounds", 1, "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "matrix_products.json").read_text())["figures"]
    assert [row["macs"] for row in rows] == [tokens * WEIGHTS for tokens in (12, 32, 128, 1024)]
    assert all(min(row["seconds"], row["bare_seconds"]) > 0 for row in rows)
    page = (tmp_path / "matrix_products.md").read_text()
    assert page.count("\n| ") == len(rows) + 1
    assert f"{12 * WEIGHTS / 3e6:.0f} ms for 12, " in page


def test_model_without_an_export(run_command, tmp_path):
    message = refused(run_command("scripts/benchmarks/matrix_products.py", tmp_path))
    assert "export the model with export_optimum.py" in message

"""ONNX export: every file gives PyTorch's vectors whatever the padding, and nothing unverified is left behind."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import invent_pairs
from onnx import numpy_helper
from transformers import AutoTokenizer

import export_optimum
from modeling_asterisk import AsteriskModel

FILES = ("model.onnx", *export_optimum.INT8_FILES)
TEXTS = [text for pair in invent_pairs(40, seed=1) for text in pair.values() if text]
TEXTS += ["", "otter", "an entirely unknown zebra 🦓 xylophone", " ".join(TEXTS)]


@pytest.fixture(scope="module")
def tokens(trained):
    return AutoTokenizer.from_pretrained(trained)(TEXTS, truncation=True)["input_ids"]


@pytest.fixture(scope="module")
def expected(trained, tokens):
    model = AsteriskModel.from_pretrained(trained).eval()
    with torch.no_grad():
        return np.concatenate([model(torch.tensor([ids])).sentence_embedding.numpy() for ids in tokens])


@pytest.fixture(scope="module", params=FILES)
def session(request, exported):
    session = onnxruntime.InferenceSession(
        str(exported / "onnx" / request.param), providers=["CPUExecutionProvider"]
    )
    session.fp32 = request.param == "model.onnx"
    return session


@pytest.fixture
def unexported(trained, tmp_path):
    """A copy of the trained model without its ONNX files."""
    shutil.copytree(trained, tmp_path / "model", ignore=shutil.ignore_patterns("onnx"))
    return tmp_path / "model"


def embed(session, rows, width=0):
    width = max(width, *map(len, rows))
    ids = np.array([row + [1] * (width - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return session.run(None, {"input_ids": ids, "attention_mask": mask})


def cosines(first, second):
    return (first * second).sum(1)


def test_inputs_and_outputs(session):
    inputs = {value.name: value.shape for value in session.get_inputs()}
    axes = ["batch_size", "sequence_length"]
    assert inputs == {"input_ids": axes, "attention_mask": axes}
    assert [(value.name, value.shape) for value in session.get_outputs()] == [
        ("last_hidden_state", ["batch_size", "sequence_length", 32]),
        ("sentence_embedding", ["batch_size", 32]),
    ]


def test_vectors_are_pytorchs(session, tokens, expected):
    assert max(map(len, tokens)) == 512
    vectors = np.concatenate([embed(session, [ids])[1] for ids in tokens])
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    if session.fp32:
        assert np.abs(vectors - expected).max() < 1e-4
    else:
        assert cosines(vectors, expected).min() >= 0.99


def test_padding_and_batch_mates_do_not_matter(session, tokens):
    alone = np.concatenate([embed(session, [ids])[1] for ids in tokens])
    together = np.concatenate([embed(session, tokens[i : i + 16], width=60)[1] for i in range(0, len(tokens), 16)])
    assert cosines(alone, together).min() > (0.999999 if session.fp32 else 0.9999)


@pytest.mark.parametrize("name", FILES[1:])
def test_activation_ranges_are_fixed(exported, name):
    operators = {node.op_type for node in onnx.load(exported / "onnx" / name).graph.node}
    assert "QuantizeLinear" in operators
    assert "DynamicQuantizeLinear" not in operators, "its range is that of the whole batch"


def test_mean_of_last_hidden_state_is_the_embedding(session, tokens):
    hidden, vectors = embed(session, tokens[:4], width=60)
    means = np.stack([row[: len(ids)].mean(0) for row, ids in zip(hidden, tokens[:4], strict=True)])
    assert np.abs(means / np.linalg.norm(means, axis=1, keepdims=True) - vectors).max() < 1e-5


def test_row_without_tokens_is_finite(session):
    assert all(np.isfinite(output).all() for output in embed(session, [[], [5, 2]]))


def test_int8_files_are_a_quarter_of_the_size(exported):
    sizes = {name: (exported / "onnx" / name).stat().st_size for name in FILES}
    assert max(sizes[name] for name in FILES[1:]) < 0.3 * sizes["model.onnx"]
    files = json.loads((exported / "onnx" / "export_state.json").read_text())["files"]
    assert {name: report["bytes"] for name, report in files.items()} == sizes


def test_second_run_is_up_to_date(export, exported):
    result = export(exported)
    assert (result.code, result.out) == (0, f"{exported / 'onnx'} is up to date\n")


def test_damaged_file_does_not_pass(exported, tokens, expected, tmp_path, capsys):
    export_optimum.verify(exported / "onnx" / "model.onnx", tokens, expected, fp32=True)
    model = onnx.load(exported / "onnx" / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [32])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(SystemExit) as caught:
        export_optimum.verify(tmp_path / "damaged.onnx", tokens, expected, fp32=True)
    assert caught.value.code == 1
    assert "error: damaged.onnx does not give the vectors of PyTorch" in capsys.readouterr().err


@pytest.mark.slow
def test_unverified_export_leaves_nothing_behind(export, unexported, monkeypatch):
    monkeypatch.setattr(export_optimum, "INT8_COSINE", 1.1)
    before = sorted(unexported.iterdir())
    result = export(unexported)
    assert result.code == 1
    assert "model_qint8_avx512_vnni.onnx does not give the vectors of PyTorch" in result.err
    assert sorted(unexported.iterdir()) == before


def test_no_model(export, tmp_path):
    result = export(tmp_path)
    assert result.code == 2
    assert result.err == f"error: {tmp_path}: no model.safetensors here; train a model with train_accelerate.py\n"

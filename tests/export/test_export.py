"""ONNX export: every file gives PyTorch's vectors whatever the padding, and nothing unverified is left behind."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import invent_pairs, refused
from onnx import numpy_helper
from transformers import AutoTokenizer

from asterisk.evaluation.models import count_parameters
from asterisk.export import PROCESSOR_FILES, optimum_int8, verification
from asterisk.export.calibration import build_int8
from asterisk.export.fp32 import export_fp32
from modeling_asterisk import AsteriskConfig, AsteriskModel

INVARIANT_FILES = ("model.onnx", "model_quantized.onnx")
FILES = (*INVARIANT_FILES, *PROCESSOR_FILES)
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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", INVARIANT_FILES)
def test_padding_and_batch_mates_do_not_matter(exported, tokens, name, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(exported / "onnx" / name, options, providers=["CPUExecutionProvider"])
    alone = np.concatenate([embed(session, [ids])[1] for ids in tokens]).astype(np.float64)
    batches = (tokens[i : i + 16] for i in range(0, len(tokens), 16))
    together = np.concatenate([embed(session, batch, width=90)[1] for batch in batches]).astype(np.float64)
    lengths = np.linalg.norm(alone, axis=1) * np.linalg.norm(together, axis=1)
    assert (cosines(alone, together) / lengths).min() >= 0.9999999
    nearest = np.argsort(together @ together.T)[:, -10:]
    similarity = alone @ alone.T  # of twins, either may come first
    assert np.abs(np.take_along_axis(similarity, nearest, axis=1) - np.sort(similarity)[:, -10:]).max() < 1e-6


@pytest.mark.parametrize("name", FILES[1:])
def test_activation_ranges_are_fixed(exported, name):
    operators = {node.op_type for node in onnx.load(exported / "onnx" / name).graph.node}
    assert "QuantizeLinear" in operators
    assert "DynamicQuantizeLinear" not in operators, "its range is that of the whole batch"


def test_weights_cannot_overflow_16_bits(exported):
    graph = onnx.load(exported / "onnx" / "model_quantized.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    weights = [constants[node.input[1]].astype(int) for node in products]
    assert len(products) == 1 + 2 * (2 * 5 + 3) + 1  # per head: queries and keys in two parts each, values
    assert all(np.abs(weight).max() == 63 for weight in weights)
    assert all(2 * 255 * np.abs(weight).max() < 2**15 for weight in weights)


@pytest.mark.parametrize("name", PROCESSOR_FILES)
def test_ortquantizer_has_quantised_the_products_and_both_tables(exported, name):
    graph = onnx.load(exported / "onnx" / name).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    stored = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    assert {"token_embeddings.weight_quantized", "position_embeddings.weight_quantized"} <= stored.keys()
    products = {node.name: node for node in graph.node if node.op_type == "MatMul"}
    weights = {
        product: stored.get(f"{node.input[1].removesuffix('_DequantizeLinear_Output')}_quantized")
        for product, node in products.items()
    }
    quantised = {product: node for product, node in weights.items() if node is not None}
    assert len(quantised) == 2 * 6
    assert {"/embedding_projection/MatMul", "/projection/MatMul"} <= products.keys() - quantised.keys()
    for node in quantised.values():
        weight, scale, zero = (constants[tensor].astype(np.float64) for tensor in node.input)
        assert scale.shape == weight.shape[1:], "a scale for each column"
        assert 60 <= np.abs(weight - zero).max() <= 64, "seven bits"


def test_one_file_serves_vnni_and_arm(exported):
    vnni, arm64, avx2 = ((exported / "onnx" / name).read_bytes() for name in PROCESSOR_FILES)
    assert vnni == arm64 != avx2


@pytest.mark.parametrize("table_width", [None, 16])
def test_int8_of_rows_of_unequal_length(table_width, tmp_path):
    """The vectors of frequent words are short, those of rare words long."""
    torch.manual_seed(0)
    config = AsteriskConfig(
        vocab_size=50, embedding_size=table_width, encoder_hidden_size=24, num_attention_heads=3, hidden_size=8
    )
    model = AsteriskModel(config).eval()
    for parameter in model.parameters():  # small as they start, the layers would do nothing
        parameter.data.normal_(std=0.3)
    model.token_embeddings.weight.data *= torch.logspace(-2, 1, 50)[:, None]
    model.position_embeddings.weight.data *= 0.01
    rows = [list(range(4 * i, 4 * i + 3)) for i in range(12)]
    with torch.no_grad():
        expected = np.concatenate([model(torch.tensor([row])).sentence_embedding.numpy() for row in rows])
    onnx.save(build_int8(model, rows), tmp_path / "model_quantized.onnx")
    export_fp32(model, tmp_path / "model.onnx", halved=True)
    ranges = optimum_int8.fit(optimum_int8.prepare(tmp_path / "model.onnx"), rows)
    optimum_int8.quantize_for_processors(tmp_path / "model.onnx", ranges, tmp_path)
    for name in FILES:
        session = onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        assert cosines(embed(session, rows)[1], expected).min() > 0.99, name


def test_mean_of_last_hidden_state_is_the_embedding(session, tokens):
    hidden, vectors = embed(session, tokens[:4], width=60)
    means = np.stack([row[: len(ids)].mean(0) for row, ids in zip(hidden, tokens[:4], strict=True)])
    assert np.abs(means / np.linalg.norm(means, axis=1, keepdims=True) - vectors).max() < 1e-5


def test_row_without_tokens_is_finite(session):
    assert all(np.isfinite(output).all() for output in embed(session, [[], [5, 2]]))


def test_weights_take_two_bytes_and_one_byte(exported):
    sizes = {path.name: path.stat().st_size for path in (exported / "onnx").glob("*.onnx")}
    assert sorted(sizes) == sorted(FILES)
    parameters, _ = count_parameters(exported / "model.safetensors")
    assert sizes["model.onnx"] < 2.3 * parameters
    assert all(sizes[name] < 1.3 * parameters for name in FILES[1:])
    files = json.loads((exported / "onnx" / "export_state.json").read_text())["files"]
    assert {name: report["bytes"] for name, report in files.items()} == sizes


def test_second_run_is_up_to_date(export, exported):
    result = export(exported)
    assert (result.code, result.out) == (0, f"{exported / 'onnx'} is up to date\n")


def test_damaged_file_does_not_pass(exported, tokens, expected, tmp_path):
    few = tokens[:16], expected[:16]
    verification.verify(exported / "onnx" / "model.onnx", *few, fp32=True)
    model = onnx.load(exported / "onnx" / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [32])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(SystemExit, match=r"error: damaged\.onnx does not give the vectors of PyTorch"):
        verification.verify(tmp_path / "damaged.onnx", *few, fp32=True)


@pytest.mark.slow
def test_unverified_export_leaves_nothing_behind(export, unexported, monkeypatch):
    monkeypatch.setattr(verification, "INT8_COSINE", 1.1)
    before = sorted(unexported.iterdir())
    result = export(unexported)
    assert result.code == 1
    assert "model_quantized.onnx does not give the vectors of PyTorch" in result.err
    assert sorted(unexported.iterdir()) == before


def test_no_model(export, tmp_path):
    message = refused(export(tmp_path))
    assert message == f"error: {tmp_path}: no model.safetensors here; train a model with train_accelerate.py\n"

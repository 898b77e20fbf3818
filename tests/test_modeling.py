"""The model: its size, what must not change a vector, its outputs, saving and loading it as a stranger would."""

import copy
import textwrap

import numpy as np
import pytest
import torch
from conftest import ROOT
from transformers import AutoTokenizer

from modeling_asterisk import AsteriskConfig, AsteriskModel

TEXTS = ["the heron crossed the bridge", "", "a mole hid the old lantern in the cellar near the river at dusk"]


@pytest.fixture(scope="module")
def model():
    """A small model; its weights are made large, so that each branch of the layers matters."""
    torch.manual_seed(0)
    config = AsteriskConfig(vocab_size=50, encoder_hidden_size=32, intermediate_size=48, hidden_size=16)
    model = AsteriskModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return model


def embed(model, rows, **options):
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        return model(ids, mask, **options)


def test_size_of_default_layers():
    model = AsteriskModel(AsteriskConfig(vocab_size=100))
    assert sum(p.numel() for p in model.layers.parameters()) == 2_631_168
    assert model(torch.tensor([[1, 2]])).sentence_embedding.shape == (1, 256)


def test_model_files_stay_short():
    files = [ROOT / "modeling_asterisk.py", ROOT / "configuration_asterisk.py"]
    assert sum(len(file.read_text().splitlines()) for file in files) < 300


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_does_not_change_a_vector(model, side):
    text, padding = [3, 14, 15, 9], [7] * 5
    ids = text + padding if side == "right" else padding + text
    mask = [1] * 4 + [0] * 5 if side == "right" else [0] * 5 + [1] * 4
    with torch.no_grad():
        padded = model(torch.tensor([ids]), torch.tensor([mask])).sentence_embedding
    assert torch.allclose(padded, embed(model, [text]).sentence_embedding, atol=1e-5)


def test_batch_mates_do_not_change_a_vector(model):
    rows = [[3, 14, 15, 9], [2], list(range(1, 40)), [9, 15, 14, 3]]
    together = embed(model, rows).sentence_embedding
    alone = torch.cat([embed(model, [row]).sentence_embedding for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)
    assert (together[0] - together[3]).abs().max() > 1e-3, "word order counts"


def test_row_without_tokens_is_finite(model):
    output = embed(model, [[3, 14], []])
    assert torch.isfinite(output.last_hidden_state).all()
    assert torch.equal(output.sentence_embedding[1], torch.zeros(16))


def test_too_long_sequence(model):
    assert embed(model, [[5] * 512]).sentence_embedding.isfinite().all()
    with pytest.raises(ValueError, match="513 tokens, the model takes at most 512"):
        embed(model, [[5] * 513])


def test_heads_must_divide_hidden_size():
    with pytest.raises(ValueError, match=r"num_attention_heads \(3\) must divide encoder_hidden_size \(32\)"):
        AsteriskConfig(encoder_hidden_size=32, num_attention_heads=3)


def test_mean_of_token_vectors_is_the_sentence_embedding(model):
    rows = [[3, 14, 15, 9], [2], [8, 8, 1]]
    output = embed(model, rows)
    means = torch.stack([hidden[: len(row)].mean(0) for hidden, row in zip(output[0], rows, strict=True)])
    expected = torch.nn.functional.normalize(means, dim=-1)
    assert torch.allclose(output.sentence_embedding, expected, atol=1e-6)
    assert torch.allclose(output.sentence_embedding.norm(dim=-1), torch.ones(3), atol=1e-6)


def test_return_dict_false_gives_a_tuple(model):
    output = embed(model, [[3, 14]], return_dict=False)
    assert isinstance(output, tuple)
    assert [tuple(value.shape) for value in output] == [(1, 2, 16), (1, 16)]


def test_gradient_checkpointing_gives_the_same_gradients(model):
    gradients, calls = [], []
    for checkpointing in (False, True):
        trained = copy.deepcopy(model).train()
        if checkpointing:
            trained.gradient_checkpointing_enable()
        forwards = []
        trained.layers[0].query.register_forward_hook(lambda *_, seen=forwards: seen.append(1))
        trained(torch.tensor([[3, 14, 15]])).sentence_embedding[0, :4].sum().backward()
        gradients.append([p.grad for p in trained.parameters()])
        calls.append(len(forwards))
    assert calls == [1, 2], "the checkpointed layer is computed again in the backward pass"
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.slow
def test_loads_where_the_project_is_not_installed(trained, tmp_path, python):
    program = f"""
    import sys

    for name in ("asterisk", "modeling_asterisk", "configuration_asterisk"):
        sys.modules[name] = None  # importing it fails
    import numpy
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained({str(trained)!r}, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    tokenizer = AutoTokenizer.from_pretrained({str(trained)!r})
    with torch.no_grad():
        vectors = model(**tokenizer({TEXTS!r}, padding=True, return_tensors="pt")).sentence_embedding
    model.save_pretrained("again")
    again = AutoModel.from_pretrained("again", trust_remote_code=True).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
    transformer = SentenceTransformer({str(trained)!r}, trust_remote_code=True, device="cpu")
    assert transformer.get_sentence_embedding_dimension() == 32
    numpy.savez("vectors.npz", auto_model=vectors.numpy(), transformer=transformer.encode({TEXTS!r}))
    """
    result = python("-c", textwrap.dedent(program), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    vectors = np.load(tmp_path / "vectors.npz")
    tokens = AutoTokenizer.from_pretrained(trained)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = AsteriskModel.from_pretrained(trained).eval()(**tokens).sentence_embedding.numpy()
    assert np.array_equal(vectors["auto_model"], expected)
    assert np.abs(vectors["transformer"] - expected).max() < 1e-6

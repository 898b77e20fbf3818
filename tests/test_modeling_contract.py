"""What transformers' common tests ask of an encoder, on a tiny model; `make test-next` runs it under version 5."""

import copy

import pytest
import torch
from transformers import AutoModel

from modeling_asterisk import AsteriskConfig, AsteriskModel

WIDTH, LAYERS, HEADS, LENGTH = 16, 3, 4, 7


@pytest.fixture(scope="module")
def config():
    return AsteriskConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        encoder_hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=24,
        embedding_size=12,
        max_position_embeddings=20,
    )


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(0)
    model = AsteriskModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def inputs():
    ids = torch.randint(1, 50, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def run(model, inputs, **options):
    with torch.no_grad():
        return model(**inputs, **options)


def close(first, second, tolerance=1e-5):
    return torch.allclose(first, second, atol=tolerance)


def eager(model):
    return AsteriskModel.from_pretrained(
        None, config=model.config, state_dict=model.state_dict(), attn_implementation="eager"
    ).eval()


def test_saving_and_loading(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(run(loaded, inputs).sentence_embedding, run(model, inputs).sentence_embedding)
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()


def test_older_configurations_load(config, model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    older = config.to_dict() | {"hidden_size": 32, "projection_dim": WIDTH}
    del older["encoder_hidden_size"]
    loaded = AsteriskConfig.from_dict(older)
    assert (loaded.hidden_size, loaded.encoder_hidden_size) == (WIDTH, 32)
    found = AsteriskModel.from_pretrained(tmp_path, config=loaded)
    assert torch.equal(run(found, inputs).sentence_embedding, run(model, inputs).sentence_embedding)


def test_initial_weights(config):
    torch.manual_seed(0)
    wide = AsteriskConfig(
        **config.to_dict() | {"vocab_size": 2000, "encoder_hidden_size": 256, "embedding_size": 64}
    )
    near_zero = ("attention_output.weight", "feed_forward_output.weight", "position_embeddings.weight")
    for name, parameter in AsteriskModel(wide).named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            expected = {"token_embeddings.weight": 1.0, "embedding_projection.weight": 64**-0.5}.get(name, 0.02)
            expected = 0.0002 if name.endswith(near_zero) else expected
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name
            assert abs(parameter.mean().item()) < 0.1 * expected, name


def test_determinism_and_dtype(model, inputs):
    assert torch.equal(run(model, inputs).sentence_embedding, run(model, inputs).sentence_embedding)
    for dtype in (torch.float16, torch.bfloat16):
        half = AsteriskModel(model.config).to(dtype).eval()
        output = run(half, inputs)
        assert output.sentence_embedding.dtype == output.last_hidden_state.dtype == dtype


def test_outputs(model, inputs):
    output = run(model, inputs, output_hidden_states=True)
    assert [state.shape for state in output.hidden_states] == [(3, LENGTH, WIDTH)] * (LAYERS + 1)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert output.attentions is None
    everything = {"output_hidden_states": True, "output_attentions": True}
    for options, parts in ({}, 2), (everything, 4):
        found = run(model, inputs, return_dict=False, **options)
        assert isinstance(found, tuple)
        assert len(found) == parts
        assert [part.shape for part in found[:2]] == [(3, LENGTH, WIDTH), (3, WIDTH)]
        for one, other in zip(found, run(model, inputs, **options).to_tuple(), strict=True):
            assert all(map(torch.equal, one, other))


def test_attention_implementations(model, inputs):
    plain = eager(model)
    output = run(plain, inputs, output_attentions=True)
    assert close(output.sentence_embedding, run(model, inputs).sentence_embedding)
    assert [weights.shape for weights in output.attentions] == [(3, HEADS, LENGTH, LENGTH)] * LAYERS
    for weights in output.attentions:
        assert close(weights.sum(-1), torch.ones(3, HEADS, LENGTH))
        assert weights[1, :, :, 4:].max() == 0, "padding gets no attention"
    plain.set_attn_implementation("sdpa")
    assert torch.equal(run(plain, inputs).sentence_embedding, run(model, inputs).sentence_embedding)
    for one, other in zip(run(plain, inputs, output_attentions=True).attentions, output.attentions, strict=True):
        assert torch.equal(one, other), "attention is eager where its weights are asked for"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("padding", [slice(4, None), slice(0, 3)])
def test_eager_attention_matches_sdpa(model, inputs, dtype, padding):
    mask = torch.ones_like(inputs["attention_mask"])
    mask[1, padding] = 0
    padded = inputs | {"attention_mask": mask}
    eager_output, output = (run(copy.deepcopy(each).to(dtype), padded) for each in (eager(model), model))
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]
    assert close(eager_output.sentence_embedding, output.sentence_embedding, tolerance)


def test_missing_and_mismatched_weights(model, config, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    wider = AsteriskConfig(**config.to_dict() | {"hidden_size": 2 * WIDTH})
    with pytest.raises(RuntimeError, match=r"size mismatch|mismatched"):
        AsteriskModel.from_pretrained(tmp_path, config=wider)
    loaded = AsteriskModel.from_pretrained(tmp_path, config=wider, ignore_mismatched_sizes=True)
    assert torch.equal(loaded.layers[0].key.weight, model.layers[0].key.weight)
    assert run(loaded, inputs).sentence_embedding.isfinite().all()
    weights = model.state_dict()
    del weights["layers.0.key.weight"]
    model.save_pretrained(tmp_path, state_dict=weights)
    loaded, report = AsteriskModel.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"layers.0.key.weight"}
    assert loaded.layers[0].key.weight.std().item() == pytest.approx(0.02, rel=0.2), "initialised"


def test_token_table_is_get_and_set(model, inputs):
    changed = copy.deepcopy(model)
    changed.set_input_embeddings(torch.nn.Embedding(50, 12))
    assert changed.get_input_embeddings() is changed.token_embeddings
    assert not close(run(changed, inputs).sentence_embedding, run(model, inputs).sentence_embedding, 1e-3)
    assert model.main_input_name == "input_ids"


def test_resized_token_table(model, inputs):
    resized = AsteriskModel.from_pretrained(None, config=model.config, state_dict=model.state_dict()).eval()
    resized.resize_token_embeddings(60)
    assert resized.config.vocab_size == 60
    assert resized.get_input_embeddings().weight.shape == (60, 12)
    assert torch.equal(run(resized, inputs).sentence_embedding, run(model, inputs).sentence_embedding)


def test_gradient_checkpointing(config, inputs):
    torch.manual_seed(0)
    gradients = []
    model = AsteriskModel(config).train()
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**inputs).sentence_embedding[:, 0].sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == dict(model.named_parameters()).keys()
    assert all(close(gradients[0][name], gradients[1][name], 1e-7) for name in gradients[0])


def test_meta_device(model):
    with torch.device("meta"):
        assert {p.device.type for p in AsteriskModel(model.config).parameters()} == {"meta"}


def test_device_map(model, inputs, tmp_path):
    pytest.importorskip("accelerate")
    model.save_pretrained(tmp_path)
    placed = AsteriskModel.from_pretrained(tmp_path, device_map="cpu", dtype=torch.float32)
    assert torch.equal(run(placed, inputs).sentence_embedding, run(model, inputs).sentence_embedding)


def test_compiled_without_graph_breaks(model, inputs):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert close(run(compiled, inputs).sentence_embedding, run(model, inputs).sentence_embedding)


def test_exported_for_any_batch_and_length(model, inputs):
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=20)}
    shapes = dict.fromkeys(inputs, axes)
    program = torch.export.export(model, (), inputs, dynamic_shapes=shapes).module()
    longer = {name: torch.cat([value, value], 1)[:2] for name, value in inputs.items()}
    assert close(program(**longer).sentence_embedding, run(model, longer).sentence_embedding)

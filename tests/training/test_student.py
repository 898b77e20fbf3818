"""The student before its first step is a static embedding of the teacher's word vectors."""

import numpy as np
import pytest
import torch

from asterisk.training.student import initialise_from_teacher, widen_feed_forward
from modeling_asterisk import AsteriskConfig, AsteriskModel

DIM, VOCABULARY = 8, 40


@pytest.mark.parametrize("embedding_size", [DIM, None])
def test_untrained_model_is_a_static_embedding_of_the_teacher(embedding_size):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    vectors, counts = rng.normal(size=(VOCABULARY, DIM)) + 1, rng.integers(1, 100, VOCABULARY)
    config = AsteriskConfig(
        vocab_size=VOCABULARY,
        encoder_hidden_size=64,
        hidden_size=DIM,
        embedding_size=embedding_size,
        pad_token_id=0,
    )
    model = AsteriskModel(config).eval()
    initialise_from_teacher(model, vectors, counts)
    weights = 1e-3 / (1e-3 + counts / counts.sum())
    common = (vectors * (weights * counts)[:, None]).sum(0) / (weights * counts).sum()
    ids = [7, 3, 21, 3]
    expected = ((vectors - common) * weights[:, None])[ids].sum(0)
    with torch.no_grad():
        got = model(torch.tensor([ids])).sentence_embedding[0].numpy()
    assert got @ expected / np.linalg.norm(expected) > 0.99


def test_wider_feed_forward_layers_compute_the_same_and_can_learn():
    torch.manual_seed(0)
    config = AsteriskConfig(vocab_size=VOCABULARY, encoder_hidden_size=32, intermediate_size=8, hidden_size=DIM)
    model = AsteriskModel(config).eval()
    ids = torch.tensor([[7, 3, 21, 3]])
    before = model(ids).sentence_embedding
    wide = widen_feed_forward(model, 24).eval()
    after = wide(ids).sentence_embedding
    torch.testing.assert_close(after, before)
    after[0, 0].backward()
    assert wide.config.intermediate_size == 24
    assert (
        wide.state_dict(keep_vars=True)["layers.1.feed_forward_output.weight"].grad[:, 8:].abs().sum(0) > 0
    ).all()

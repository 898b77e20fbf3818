"""The distillation loss: values worked out by hand, what counts and what does not, where gradients go."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from gradients import make_trainer
from torch.nn.functional import normalize

from asterisk.training.losses import cosine_loss, info_nce_loss, similarity_loss

ROWS, WITHOUT_ARTICLE = 6, 4


@pytest.fixture
def make(tmp_path):
    """Make a trainer of a tiny model on six rows, one without an article."""
    return partial(make_trainer, tmp_path / "model", Accelerator(mixed_precision="no"), ROWS, [WITHOUT_ARTICLE])


def test_info_nce_by_hand():
    summaries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    articles = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # Logits at temperature 0.5: [[1.2, 0], [1.6, 2]].
    rows = [math.log(1 + math.exp(-1.2)), math.log(1 + math.exp(-0.4))]
    columns = [math.log(1 + math.exp(0.4)), math.log(1 + math.exp(-2.0))]
    assert info_nce_loss(summaries, articles, 0.5).item() == pytest.approx(sum(rows + columns) / 4, abs=1e-6)


def test_info_nce_is_symmetric():
    torch.manual_seed(0)
    summaries, articles = normalize(torch.randn(2, 5, 4), dim=-1)
    forth, back = info_nce_loss(summaries, articles, 0.05), info_nce_loss(articles, summaries, 0.05)
    assert forth.item() == pytest.approx(back.item(), rel=1e-6)


def test_cosine_and_similarity_by_hand():
    student, target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert cosine_loss(student, target).item() == pytest.approx(1 - (1 + 0.8) / 2)
    assert similarity_loss(student, target).item() == pytest.approx((0.6**2 + 0.6**2) / 4)


def test_alpha_weighs_info_nce_against_distillation(make):
    losses = {}
    for alpha in (0.0, 0.5, 1.0):
        trainer = make(distill_alpha=alpha, similarity_weight=3.0)
        losses[alpha] = {k: v.item() for k, v in trainer.loss(trainer.load_batch(np.arange(ROWS))).items()}
    terms = losses[0.5]
    distillation = terms["cosine"] + 3 * terms["similarity"]
    assert min(terms.values()) > 0
    assert losses[0.0]["loss"] == pytest.approx(terms["info_nce"])
    assert losses[1.0]["loss"] == pytest.approx(distillation)
    assert terms["loss"] == pytest.approx((terms["info_nce"] + distillation) / 2)


def test_loss_terms_compare_the_right_vectors(make):
    trainer = make(temperature=0.1)
    terms = trainer.loss(trainer.load_batch(np.arange(ROWS)))
    students, targets = {}, {}
    for (name, tokens), matrix in zip(trainer.columns.items(), trainer.vectors, strict=True):
        rows = [row for row in range(ROWS) if tokens.lengths[row]]
        texts = (tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]] for row in rows)
        students[name] = [trainer.model(torch.tensor(ids)[None].long()).sentence_embedding[0] for ids in texts]
        targets[name] = [normalize(torch.from_numpy(matrix[row]).float() @ trainer.pca, dim=0) for row in rows]
    student, target = (torch.stack(side["summary"] + side["article"]) for side in (students, targets))
    assert terms["cosine"].item() == pytest.approx(cosine_loss(student, target).item(), abs=1e-6)
    assert terms["similarity"].item() == pytest.approx(similarity_loss(student, target).item(), abs=1e-6)
    del students["summary"][WITHOUT_ARTICLE]
    expected = info_nce_loss(torch.stack(students["summary"]), torch.stack(students["article"]), 0.1)
    assert terms["info_nce"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_batch_without_any_article_can_be_trained_on(make):
    trainer = make()
    terms = trainer.loss(trainer.load_batch(np.array([WITHOUT_ARTICLE])))
    terms["loss"].backward()
    assert terms["info_nce"].item() == 0
    assert terms["cosine"].item() > 0
    assert all(torch.isfinite(p.grad).all() for p in trainer.model.parameters())


def test_short_batch_is_filled_up_with_rows_of_weight_zero(make):
    trainer = make()
    expected = trainer.loss(trainer.load_batch(np.arange(3)))
    filled = trainer.load_batch(np.array([0, 1, 2, 2]))
    trainer.accelerator = type("Second", (), {"num_processes": 2, "process_index": 1, "device": "cpu"})
    second = trainer.load_batch(np.arange(3))
    assert second.present.tolist() == [[True, False]] * 2
    assert sum(len(places) for *_, places in second.groups) == 4, "each process embeds something"

    trainer.accelerator = Accelerator()
    filled.present = torch.tensor([[True, True, True, False]] * 2)
    for name, value in trainer.loss(filled).items():
        assert value.item() == pytest.approx(expected[name].item(), abs=1e-6), name


def test_gradient_reaches_every_parameter(make):
    trainer = make()
    trainer.loss(trainer.load_batch(np.arange(ROWS)))["loss"].backward()
    for name, parameter in trainer.model.named_parameters():
        if not name.endswith("key.bias"):  # the softmax does not depend on it
            assert parameter.grad.abs().max() > 1e-7, name

"""Batches from memory maps: every row once, texts of like length together, the tokens those of the tokenizer."""

import numpy as np
import pytest

from asterisk.data.pairs import PairTexts, load_pairs
from asterisk.training.batches import length_bucketed_batches, tokenize_pairs
from asterisk.training.tokenization import build_tokenizer


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_bucketed_batches_use_each_row_once(seed):
    rng = np.random.default_rng(5)
    rows = np.sort(rng.choice(10_000, 1003, replace=False))
    lengths = rng.integers(1, 300, len(rows))
    batches = length_bucketed_batches(rows, lengths, 8, seed)
    assert np.array_equal(np.sort(np.concatenate(batches)), rows)
    assert sorted(map(len, batches)) == [3] + [8] * 125
    length_of = dict(zip(rows, lengths, strict=True))
    spreads = [np.ptp([length_of[row] for row in batch]) for batch in batches]
    assert np.mean(spreads) < 10, "a batch holds texts of like length"


def test_bucketed_batches_depend_on_the_seed_alone():
    rows, lengths = np.arange(100), np.arange(100) % 17
    first, again, other = (
        [batch.tolist() for batch in length_bucketed_batches(rows, lengths, 8, seed)] for seed in (3, 3, 4)
    )
    assert first == again != other


def test_token_batches_are_the_tokenizers(pairs, tmp_path):
    dataset, _ = load_pairs(pairs)
    tokenizer = build_tokenizer("wordpiece:300", list(PairTexts(dataset)), 512)
    columns = tokenize_pairs(dataset, tokenizer.backend_tokenizer, 12, tmp_path, progress=False)
    again = tokenize_pairs(dataset, tokenizer.backend_tokenizer, 12, tmp_path, progress=False)
    rows = np.array([0, 8, 9, 199, 17])
    assert (np.diff(rows) < 0).any()
    for name in ("summary", "article"):
        texts = dataset[rows][name]
        ids, mask = columns[name].batch(rows, 14)
        for row, text in enumerate(texts):
            expected = tokenizer(text, truncation=True, max_length=12)["input_ids"] if text else []
            assert ids[row][mask[row] == 1].tolist() == expected
            assert mask[row].tolist() == [1] * len(expected) + [0] * (ids.shape[1] - len(expected))
        assert np.array_equal(again[name].ids, columns[name].ids)
    assert columns["article"].lengths.max() == 12
    assert columns["article"].lengths[9] == 0

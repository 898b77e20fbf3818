"""The text pairs: what is held out of training, and the names that are recorded of their sources."""

import numpy as np

from asterisk.data.pairs import split_rows


def test_split_holds_out_its_share():
    training, held_out = split_rows(200, 0.1, seed=0)
    assert (len(training), len(held_out)) == (180, 20)
    assert sorted([*training, *held_out]) == list(range(200))
    assert np.array_equal(held_out, split_rows(200, 0.1, seed=0)[1])
    assert not np.array_equal(held_out, split_rows(200, 0.1, seed=1)[1])

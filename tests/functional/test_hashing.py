"""The hash itself is pinned by tests/views/test_draws.py; here is what callers lean on."""

from __future__ import annotations

import torch
from scipy.stats import kstest

from sfumato.functional.hashing import mix, numbers


def test_more_numbers_begin_with_the_fewer():
    state = mix(torch.arange(4))
    assert torch.equal(numbers(state, 7)[:, :3], numbers(state, 3))
    assert numbers(state, 0).shape == (4, 0)


def test_neighbours_are_unrelated_and_uniform():
    drawn = numbers(mix(torch.arange(3000)), 2)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert min(kstest(column, "uniform").pvalue for column in drawn.T.numpy()) > 0.01
    assert abs(torch.corrcoef(torch.stack((drawn[:-1, 0], drawn[1:, 0])))[0, 1]) < 0.06
    assert abs(torch.corrcoef(drawn.T)[0, 1]) < 0.06

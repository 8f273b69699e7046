"""Percentiles of masked values against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.functional.percentile import percentile, percentiles


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5, 0.8, 0.93, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7, 500])
def test_equals_numpy_on_the_valid(count, share):
    draw = np.random.default_rng(count)
    for ties in (False, True):
        values = draw.integers(0, 4, count).astype(float) if ties else draw.random(count)
        valid = draw.random(count) < 0.7
        valid[0] = True
        spoilt = torch.tensor(np.where(valid, values, np.nan))
        got = percentile(spoilt, torch.tensor(valid), share)
        assert got.item() == pytest.approx(np.percentile(values[valid], 100 * share), rel=1e-14, abs=1e-15)
        assert percentile(spoilt.float(), torch.tensor(valid).float(), share).dtype == torch.float32


def test_a_place_between_two_values_by_hand():
    values = torch.tensor([4.0, 1.0, 9.0, 2.0])  # sorted 1 2 4 9; place 0.5 * 3 = 1.5
    assert percentile(values, torch.ones(4), 0.5).item() == 3.0
    assert percentile(values, torch.tensor([1, 1, 0, 1]), 0.75).item() == 3.0  # sorted 1 2 4; place 1.5


def test_without_a_valid_value_it_is_infinite():
    assert percentile(torch.tensor([1.0, 2.0]), torch.zeros(2), 0.8).item() == float("inf")


def test_several_shares_of_one_sort(monkeypatch):
    draw = np.random.default_rng(0)
    values, valid, shares = draw.random(101), draw.random(101) < 0.7, (0.8, 0.0, 0.35)
    sorts, sort = [], torch.Tensor.sort
    monkeypatch.setattr(torch.Tensor, "sort", lambda *args, **options: sorts.append(1) or sort(*args, **options))
    got = percentiles(torch.tensor(values), torch.tensor(valid), shares)
    assert got.tolist() == pytest.approx([np.percentile(values[valid], 100 * share) for share in shares], rel=1e-14)
    assert len(sorts) == 1
    assert percentiles(torch.tensor(values), torch.zeros(101), shares).tolist() == [float("inf")] * 3

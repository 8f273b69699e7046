"""Maps at the places of coarser ones."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from sfumato.functional.grid import as_rows, nearest


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 3), (4, 6), (5, 7)])
def test_equals_interpolation_of_floats(size):
    x = torch.randn(2, 3, 12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nearest(x, size), interpolate(x, size, mode="nearest-exact"))
    assert torch.equal(nearest(x[:, 0], size), interpolate(x[:, :1], size, mode="nearest-exact")[:, 0])


def test_any_dtype_and_no_space():
    labels = torch.arange(12).reshape(1, 3, 4)
    assert nearest(labels, (3, 2)).tolist() == [[[1, 3], [5, 7], [9, 11]]]
    assert nearest(labels > 5, (1, 1)).tolist() == [[[True]]]
    flat = torch.arange(6).reshape(2, 3)
    assert nearest(flat, ()) is flat


def test_rows_are_in_the_order_of_labels():
    x = torch.randn(2, 5, 3, 4)
    rows = as_rows(x)
    assert torch.equal(rows[17], x[1, :, 1, 1])  # 12 places of the first image, a line of 4, and 1
    flat = torch.randn(4, 5)
    assert torch.equal(as_rows(flat), flat)

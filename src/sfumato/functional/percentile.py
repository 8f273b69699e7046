"""The values below which given shares of the entries lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def percentile(values: Tensor, valid: Tensor, share: float) -> Tensor:
    """`percentiles` for one share, ()."""
    return percentiles(values, valid, (share,))[0]


def percentiles(values: Tensor, valid: Tensor, shares: Sequence[float]) -> Tensor:
    """For each of `shares` the value below which this share of the valid values (M,) lies, (len(shares),).

    Linear between neighbours as numpy has it: 0 is the smallest valid value, 1 the largest. valid: (M,) bool or 0 and
    1; what stands where it is 0 is not looked at. Infinite without a valid value. One sort serves all shares, and the
    number of valid values stays on the device; `torch.quantile` would have to know it, and in older releases takes no
    more than 16 million.
    """
    ordered = values.masked_fill(valid == 0, torch.inf).sort().values
    count = (valid != 0).sum()
    last = (count - 1).clamp_min(0).double()
    places = torch.stack([last * share for share in shares])
    low, high = ordered[places.floor().long()], ordered[places.ceil().long()]
    between = torch.lerp(low, high, (places - places.floor()).to(values.dtype))
    return torch.where(count > 0, between, torch.inf)

"""The value below which a share of the entries lies."""

from __future__ import annotations

import torch
from torch import Tensor


def percentile(values: Tensor, valid: Tensor, share: float) -> Tensor:
    """The `share` of the valid values (M,) that lies below, linear between neighbours as numpy has it, ().

    share: 0 for the smallest valid value, 1 for the largest. valid: (M,) bool or 0 and 1; what stands where it is 0 is
    not looked at. Infinite without a valid value. The number of valid values stays on the device, so this is a sort:
    `torch.quantile` would have to know it, and in older releases takes no more than 16 million.
    """
    ordered = values.masked_fill(valid == 0, torch.inf).sort().values
    count = (valid != 0).sum()
    place = (count - 1).clamp_min(0).double() * share
    low, high = ordered.index_select(0, torch.stack((place.floor(), place.ceil())).long()).unbind()
    between = torch.lerp(low, high, (place - place.floor()).to(values.dtype))
    return torch.where(count > 0, between, torch.inf)

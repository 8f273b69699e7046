import re

import pytest
import torch
from torch.nn import functional as F

from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy, kl
from sfumato.rules.smoothing import Smoothed
from sfumato.types import Sparse


@pytest.mark.parametrize("space", [(), (2, 3)])
def test_the_other_classes_share_what_is_left(space):
    draw = torch.Generator().manual_seed(0)
    z, y = torch.randn(4, 5, *space, generator=draw), torch.randint(5, (4, *space), generator=draw)
    target = torch.full_like(z, 0.2 / 4).scatter_(1, y.unsqueeze(1), 0.8)
    want = F.cross_entropy(z, target, reduction="none")
    torch.testing.assert_close(Smoothed(cross_entropy, smoothing=0.2)(z, y), want)
    sure = torch.zeros_like(z).scatter_(1, y.unsqueeze(1), 1.0)
    torch.testing.assert_close(Smoothed(cross_entropy, smoothing=0.2)(z, sure), want)
    torch.testing.assert_close(Smoothed(kl, smoothing=0.2)(target.log(), y), torch.zeros_like(want))


def test_nothing_to_smooth_is_the_charge_itself():
    z, y = torch.randn(4, 5), torch.arange(4)
    torch.testing.assert_close(Smoothed(cross_entropy, smoothing=0.0)(z, y), cross_entropy(z, y))


def test_messages():
    with pytest.raises(UsageError, match=re.escape("Smoothed(smoothing=1.0): expected at least 0 and below 1")):
        Smoothed(cross_entropy, smoothing=1.0)
    with pytest.raises(UsageError, match="Smoothed takes labels or distributions over all classes"):
        Smoothed(cross_entropy)(torch.zeros(1, 3), Sparse(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1)))

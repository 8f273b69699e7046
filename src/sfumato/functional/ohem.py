"""Online hard example mining: the labelled loss is the mean over the pixels that the network gets wrong or doubts.

The rule that the research code for Cityscapes shares (UniMatch, U2PL, AugSeg, CorrMatch, AEL, AllSpark): with p the
probability of the true class at each valid pixel and k a number of pixels,

    keep p <= max(0.7, the k-th smallest p);  all valid pixels where there are no more than k

There k is 200,000 or 100,000 for two crops of 801 x 801 in each process, whatever their number or size. Here it is a
share of the batch, 1/6.4 or 1/12.8, so that it means the same for any batch, crop and number of processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato import distributed

SURE = 0.7


def hardest(p: Tensor, valid: Tensor, share: float) -> Tensor:
    """Which entries to keep, 1 or 0, (N, *S); none that is not valid.

    p: (N, *S) probability of the true class; what stands where `valid` (N, *S) is 0 is not looked at. share: of all
    entries of the global batch, valid or not, at least one entry: that many of the hardest are kept in any case.

    The k-th smallest is that of all ranks together, which takes one collective of 4 bytes an entry. A p that is not a
    number is kept, so that a broken network is noticed.
    """
    if not p.numel():
        return valid
    everywhere = distributed.gather_batch(p.detach().masked_fill(valid == 0, torch.inf)).flatten()
    # A share of the entries, not of the valid ones: their number is on the device, and asking for it would wait.
    k = min(max(1, round(share * everywhere.numel())), everywhere.numel())
    limit = everywhere.kthvalue(k).values.clamp_min(SURE)
    return valid.masked_fill(p > limit, 0.0)

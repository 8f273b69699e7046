"""How stable predictions were while a network was trained: what ST++ takes for their reliability.

With M_k(x) the classes that copy k of K says of image x (Yang et al. 2022, ST++, arXiv:2106.05095, as released):

    s(x) = mean over k < K of mIoU(M_k(x), M_K(x))

The copies are those of a third, two thirds and the end of one training. Classes that neither of the two predictions
holds are left out of their mIoU. Of one prediction an image, mIoU is 1 where the two agree and 0 where not, so that
s(x) is the share of the earlier copies that agree with the last.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.functional.confusion import confusion_each
from sfumato.functional.iou import mean_iou


def stability(predictions: Tensor, num_classes: int) -> Tensor:
    """s of each image, (K, N, *S) integer -> (N,) float64 in 0 to 1; the last copy comes last.

    Raises UsageError when there are fewer than two copies.
    """
    if len(predictions) < 2:
        raise UsageError(f"stability: predictions of {len(predictions)} copies of the network; expected 2 or more.")
    *earlier, last = predictions.unbind()
    if last.dim() == 1:
        agreement = [(guess == last).double() for guess in earlier]
    else:
        agreement = [mean_iou(confusion_each(guess, last, num_classes)) for guess in earlier]
    return torch.stack(agreement).mean(dim=0)


def most_stable(stability: Tensor, share: float) -> Tensor:
    """The places of the `share` of N images with the largest stability (N,), in order: N times it, rounded down.

    Of equal ones the earlier is taken. At least one image is, where there is any.
    """
    count = min(len(stability), max(1, math.floor(len(stability) * share + 1e-9)))
    return stability.argsort(descending=True, stable=True)[:count].sort().values

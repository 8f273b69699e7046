"""Random mixup: the control of CalibrateMix, which has the same loss on partners drawn at random.

    x~ = s x + (1 - s) x',   s ~ Beta(gamma, gamma)
    L  = L_base + lambda_mix mean(s CE(x~, y) + (1 - s) CE(x~, c'))      after a warm-up of 10 % of training

x runs through the labeled images, x' is any pseudo-labeled one, with labels only any labeled one, as in mixup itself.
"""

from __future__ import annotations

from sfumato.errors import UsageError
from sfumato.methods.base import Method
from sfumato.rules.mixing import Blend, MixLoss, RandomMixup, Share


def random_mixup(
    method: Method,
    dense: bool = False,
    *,
    lambda_mix: float = 1.0,
    gamma: float = 0.4,
    share: Share = "beta_pair",
    warmup: float = 0.1,
    mix_loss: MixLoss = "ce",
    mask_mixed_pseudo: bool = False,
) -> None:
    """Add the loss on mixed images.

    Args:
        method: what it is added to.
        dense: labels are maps; must be false.
        lambda_mix: weight of the loss on mixed images.
        gamma: of Beta(gamma, gamma), or s itself with share="fixed".
        share: s drawn for each pair, once for all pairs of a step (CalibrateMix as released, for each of its groups),
            the larger of s and 1 - s, or fixed.
        warmup: share of training without mixed images, that of `calibratemix`, of which this is the control.
        mix_loss: cross-entropy or, as CalibrateMix has released it, a yes or no for each class, the mean over these.
        mask_mixed_pseudo: count a mixed image by the weight that the method gives the pseudo-label; else fully.

    Raises:
        UsageError: labels are maps, or a number is out of range.
    """
    if dense:
        raise UsageError(
            "random_mixup is for one class per image only: a mixed image has two classes in every pixel. For masks use "
            "CutMix, which the recipes for masks do."
        )
    method.extras.append(RandomMixup(Blend(lambda_mix, gamma, share, mix_loss, mask_mixed_pseudo, warmup)))

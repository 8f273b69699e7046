"""Random mixup: the control of CalibrateMix, which has the same loss on partners drawn at random.

x~ = s x + (1 - s) x',  s ~ Beta(0.4, 0.4),  L = L_base + lambda_mix mean(s CE(x~, y) + (1 - s) CE(x~, c'))

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
    """Add the loss on mixed images; the arguments mean what they do for `calibratemix`.

    Raises:
        UsageError: labels are maps, or a number is out of range.
    """
    if dense:
        raise UsageError(
            "random_mixup is for one class per image only: a mixed image has two classes in every pixel. For masks use "
            "CutMix, which the recipes for masks do."
        )
    method.extras.append(RandomMixup(Blend(lambda_mix, gamma, share, mix_loss, mask_mixed_pseudo, warmup)))

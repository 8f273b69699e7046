"""CalibrateMix: mixing by training dynamics, for predictions that are as sure as they are right.

Every labeled image of the batch is mixed with a pseudo-labeled one of the other kind, easy with hard, chosen among
those least like it:

    AUM_i = mean over visits of z_y - max_{j != y} z_j               of the labeled sample i
    APM_i = mean over visits of z_c - max_{j != c} z_j, all c        of the unlabeled one, at its class now (eq. 4-5)
    hard: the floor(B / 2) lowest of the batch, easy: the others
    x~ = s x + (1 - s) x',  s ~ Beta(0.4, 0.4)                       x' of the other kind, of the 5 % least similar
    L = L_base + lambda_mix mean(s CE(x~, y) + (1 - s) CE(x~, c'))   after a warm-up of 10 % of training

With labels only, easy labeled images are mixed with hard labeled ones. Where the paper leaves room or its code differs,
the default is the reading that the text supports, and the code's is an option: its loss is a yes or no for each class,
about 1/C as large; it draws one s for a group; it compares pixels; it takes 15 partners to choose from; it counts the
base loss twice after the warm-up; its APM sleeps until then.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.errors import UsageError
from sfumato.methods.base import Method
from sfumato.methods.consistency import Consistency
from sfumato.rules.mixing import Blend, GuidedMixup, MixLoss, Share, Similarity
from sfumato.rules.schedule import Schedule
from sfumato.running.margin_memory import Decay, Storage
from sfumato.types import Progress


@dataclass(frozen=True, slots=True)
class DoubledAfter:
    """`scale`, and twice that from this share of training on."""

    scale: Schedule
    warmup: float

    def __call__(self, progress: Progress) -> float:
        return self.scale(progress) * (2.0 if progress.fraction >= self.warmup else 1.0)


def calibratemix(
    method: Method,
    num_classes: int,
    num_labeled: int,
    num_unlabeled: int,
    dense: bool = False,
    *,
    lambda_mix: float = 1.0,
    gamma: float = 0.4,
    share: Share = "beta_pair",
    similarity: Similarity = "feature",
    percent: float = 5.0,
    count: int | None = None,
    warmup: float = 0.1,
    mix_loss: MixLoss = "ce",
    mask_mixed_pseudo: bool = False,
    apm_decay: Decay = "mean",
    apm_in_warmup: bool = True,
    double_base_released: bool = False,
    memory: Storage = "auto",
) -> None:
    """Add the loss on mixed images.

    Args:
        method: what it is added to.
        num_classes, num_labeled, num_unlabeled, dense: of the problem.
        lambda_mix: weight of the loss on mixed images.
        gamma: of Beta(gamma, gamma), or s itself with share="fixed", another reading of "gamma = 0.4".
        share: s drawn for each pair, once for each group and step (released), the larger of s and 1 - s, or fixed.
        similarity: cosine of the features before the last layer (the text), of pixels (released), or none.
        percent: how many of the images of the other kind are least similar, of which one is drawn.
        count: so many instead of a percentage (released: 15).
        warmup: share of training without mixed images.
        mix_loss: cross-entropy, or binary as released.
        mask_mixed_pseudo: count a mixed image by the weight that the method gives the pseudo-label; else fully.
        apm_decay: "mean" and "eq5" weigh all visits nearly alike, the latter as printed; "ema" (0.99) forgets.
        apm_in_warmup: the APM learns from the first step on; released: from the end of the warm-up.
        double_base_released: the losses of the method count twice after the warm-up.
        memory: where the APM lies, 4 bytes a sample and class: "ram", "mapped" to a file, or "auto" by its size.

    Raises:
        UsageError: labels are maps, or a number is out of range, or `double_base_released` for a method without scale.
    """
    if dense:
        raise UsageError(
            "calibratemix is for one class per image only: it remembers margins of every sample, and for masks that "
            "would be C numbers a pixel, of places that each crop moves."
        )
    blend = Blend(lambda_mix, gamma, share, mix_loss, mask_mixed_pseudo, warmup)
    if double_base_released:
        if not isinstance(method, Consistency):
            raise UsageError(
                "calibratemix(double_base_released=True): it doubles the loss of labels and of pseudo-labels by the "
                f"scale of the method, and {type(method).__name__} has none. Leave it out, or take a method such as "
                "fixmatch."
            )
        method.scale = DoubledAfter(method.scale, warmup)
        blend = Blend(lambda_mix / 2, gamma, share, mix_loss, mask_mixed_pseudo, warmup)  # the scale is of all losses
    method.extras.append(
        GuidedMixup(
            num_classes,
            num_labeled,
            num_unlabeled if method.views.weak else 0,
            blend,
            apm_decay=apm_decay,
            apm_in_warmup=apm_in_warmup,
            similarity=similarity,
            percent=percent,
            count=count,
            memory=memory,
        )
    )

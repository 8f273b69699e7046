"""Further losses on mixed images: of a labeled image and a partner, under a share of each of the two labels.

    x~ = s x + (1 - s) x',   L_mix = mean(s CE(z(x~), y) + (1 - s) CE(z(x~), y'))

x runs through the labeled images of the batch, x' is a pseudo-labeled one, or another labeled one where the method uses
labels only. A mixed image goes through the student in a forward of its own, and no gradient reaches its parts.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from sfumato.distributed import gather_batch, rank, rows_of_all, sum_over_ranks, world_size
from sfumato.errors import UsageError, check_choice
from sfumato.functional.margins import hard_half, margin_of, margins
from sfumato.functional.mix import (
    beta_quantile,
    cosine,
    least_similar,
    mixed,
    mixed_binary_cross_entropy,
    mixed_cross_entropy,
    picked,
    pool_size,
)
from sfumato.functional.probability import full_precision, most_probable
from sfumato.functional.reduce import mean
from sfumato.rules.base import Extra, features_of
from sfumato.running.margin_memory import Decay, MarginMemory, Storage
from sfumato.types import Batch, Context, Labeled, Networks, Output, Pseudo, Views

Share = Literal["beta_pair", "beta_group", "fixed", "beta_max"]
MixLoss = Literal["ce", "bce_released"]
Similarity = Literal["feature", "pixel", "none"]


@dataclass(frozen=True, slots=True)
class Pool:
    """What partners are chosen from, this rank's part of it: n images with a label each."""

    x: Tensor  # (n, channels, *image)
    y: Tensor  # (n,) int64, in range also where `valid` is 0
    valid: Tensor  # (n,)
    weight: Tensor  # (n,) that the method gives the pseudo-label; 1 for a label
    index: Tensor  # (n,) places in the set
    uniform: Tensor  # (n,) numbers in [0, 1), by which they are ordered where nothing else does
    out: Output


@dataclass(frozen=True, slots=True)
class Partners:
    """For each of the M labeled images of this rank."""

    place: Tensor  # (M,) among the rows of the pool of all ranks
    found: Tensor  # (M,) bool, whether there is one
    hard: Tensor  # (M,) bool, which of two groups the labeled image is of


@dataclass(frozen=True, slots=True)
class Blend:
    """How images are mixed and what that costs.

    Raises:
        UsageError: an unknown choice, or a number out of range.
    """

    weight: float = 1.0  # of the loss
    gamma: float = 0.4  # s is distributed as Beta(gamma, gamma)
    # How s is drawn: "beta_pair" for every pair, "beta_group" once a step for each of the two groups of labeled images,
    # "beta_max" as the first but the larger of s and 1 - s, so that labels prevail; "fixed" is gamma itself.
    share: Share = "beta_pair"
    # "bce_released": a yes or no for every class, the mean over classes, the sum of both groups.
    mix_loss: MixLoss = "ce"
    mask_pseudo: bool = False  # a pair counts by the weight that the method gives its pseudo-label; else fully
    warmup: float = 0.0  # share of training that passes before

    def __post_init__(self) -> None:
        check_choice("mixing", "share", self.share, get_args(Share))
        check_choice("mixing", "mix_loss", self.mix_loss, get_args(MixLoss))
        if self.gamma <= 0 or (self.share == "fixed" and self.gamma > 1):
            raise UsageError(
                f"mixing(gamma={self.gamma}): expected a number above 0, such as 0.4, and at most 1 with share='fixed'."
            )
        if not 0.0 <= self.warmup <= 1.0:
            raise UsageError(
                f"mixing(warmup={self.warmup}): expected a share of training between 0 and 1, such as 0.1."
            )


class Mixup(Extra):
    """A loss on labeled images mixed with partners, as `blend` says. Who these are is for the class below to say."""

    def __init__(self, blend: Blend) -> None:
        super().__init__()
        self.blend = blend
        self.warm = False  # of the step at hand: a function of the progress, not a memory

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.warm = context.progress.fraction >= self.blend.warmup

    @abstractmethod
    def partners(self, views: Views, labeled: Labeled, pool: Pool, uniform: Tensor) -> Partners:
        """A partner for every labeled image, by one uniform number (M,) for each."""

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        if not self.warm:
            return views.labeled.logits.new_zeros(())
        b, blend = batch.labeled, self.blend
        draw = b.draw(self.name, 3)
        with torch.no_grad():
            pool = _pool(views, batch, pseudo, self.name)
            partners = self.partners(views, b, pool, draw[:, 0])
            share = self._share(draw[:, 1], draw[:, 2], partners.hard).to(b.x.dtype)
            x = mixed(b.x, rows_of_all(pool.x, partners.place), share)
            other = gather_batch(pool.y)[partners.place]
            over = b.valid * partners.found
            weight = gather_batch(pool.weight)[partners.place] if blend.mask_pseudo else torch.ones_like(over)
        loss = mixed_cross_entropy if blend.mix_loss == "ce" else mixed_binary_cross_entropy
        charge = weight * loss(nets.further(x).logits, _labels(b), other, share)
        if blend.mix_loss == "ce":
            return blend.weight * mean(charge, over=over)
        return blend.weight * (mean(charge, over=over * partners.hard) + mean(charge, over=over * ~partners.hard))

    def _share(self, uniform: Tensor, group: Tensor, hard: Tensor) -> Tensor:
        """s of every labeled image, (M,)."""
        if self.blend.share == "fixed":
            return torch.full_like(uniform, self.blend.gamma)
        if self.blend.share == "beta_group":
            # The sum of uniform numbers, modulo 1, is uniform, whichever of them a rank holds and in what order.
            sums = sum_over_ranks(torch.stack([uniform.double().sum(), group.double().sum()])) % 1
            uniform = torch.where(hard, sums[0], sums[1])
        share = beta_quantile(uniform, self.blend.gamma)
        return torch.maximum(share, 1 - share) if self.blend.share == "beta_max" else share


class RandomMixup(Mixup):
    """Partners drawn at random: mixup (Zhang et al. 2018), the control of CalibrateMix.

    With labels only they are any labeled image of the batch, now and then the same one.
    """

    name = "random_mixup"

    def partners(self, views: Views, labeled: Labeled, pool: Pool, uniform: Tensor) -> Partners:
        valid = gather_batch(pool.valid) > 0
        order = gather_batch(pool.uniform).masked_fill(~valid, torch.inf).argsort().expand(len(uniform), -1)
        size = valid.sum().expand(len(uniform))
        return Partners(picked(order, size, uniform), size > 0, torch.zeros_like(uniform, dtype=torch.bool))


class GuidedMixup(Mixup):
    """CalibrateMix: an easy labeled image with a hard pseudo-labeled one, a hard with an easy one, and unlike ones.

    Hard are the floor(B / 2) lowest of a global batch, by the average margin of the label (AUM) among labeled samples,
    and of the class predicted now (APM) among unlabeled ones. The partner is one of the k least similar of the other
    kind, all of them alike.

    Args:
        num_classes, num_labeled: C, and the size of the labeled set.
        num_unlabeled: the size of the unlabeled set; 0 for a method of labels only, whose partners are labeled.
        apm_decay, delta, momentum, memory: of the memory of the APM, see `running.margin_memory`.
        apm_in_warmup: the APM learns from the first step on; the released code begins after the warm-up.
        similarity: the cosine of the features that the head sees, of the pixels (released), or none: any will do.
        percent: k, in percent of the images that there are to choose from.
        count: k itself (released: 15).

    Raises:
        UsageError: an unknown choice, or a number out of range.
    """

    name = "calibratemix"
    labels_only = True

    def __init__(
        self,
        num_classes: int,
        num_labeled: int,
        num_unlabeled: int,
        blend: Blend,
        *,
        apm_decay: Decay = "mean",
        delta: float = 0.997,
        momentum: float = 0.99,
        memory: Storage = "auto",
        apm_in_warmup: bool = True,
        similarity: Similarity = "feature",
        percent: float = 5.0,
        count: int | None = None,
    ) -> None:
        super().__init__(blend)
        check_choice("GuidedMixup", "similarity", similarity, get_args(Similarity))
        if not 0.0 < percent <= 100.0:
            raise UsageError(f"GuidedMixup(percent={percent}): expected above 0 and at most 100, such as 5.")
        if count is not None and count < 1:
            raise UsageError(f"GuidedMixup(count={count}): expected at least 1 partner to choose from.")
        self.aum = MarginMemory(num_labeled)
        self.apm: MarginMemory | None = None
        if num_unlabeled:
            self.apm = MarginMemory(
                num_unlabeled, num_classes, decay=apm_decay, delta=delta, momentum=momentum, memory=memory
            )
        self.apm_in_warmup, self.similarity = apm_in_warmup, similarity
        self.percent, self.count = 100.0 if similarity == "none" else percent, count

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        super().observe(p, valid, context)
        y = context.labeled_y.masked_fill(context.labeled_valid == 0, 0)
        self.aum.observe(
            cast(Tensor, context.labeled_index), margin_of(context.labeled_logits, y), context.labeled_valid
        )
        if self.apm is not None and context.logits is not None and (self.warm or self.apm_in_warmup):
            self.apm.observe(context.index, margins(context.logits), valid)

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        if self.apm is not None and pseudo is None:  # partners are to be unlabeled ones: a warm start only remembers
            return views.labeled.logits.new_zeros(())
        return super().forward(views, batch, pseudo, nets)

    def partners(self, views: Views, labeled: Labeled, pool: Pool, uniform: Tensor) -> Partners:
        hard = _hard(self.aum.at(labeled.index), labeled.valid)
        theirs = hard
        if self.apm is not None:
            theirs = _hard(self.apm.at(pool.index).gather(1, pool.y.unsqueeze(1)).squeeze(1), pool.valid)
        mine = hard.chunk(world_size())[rank()]
        allowed = (mine.unsqueeze(1) != theirs) & (gather_batch(pool.valid) > 0)
        size = pool_size(allowed, percent=self.percent, count=self.count)
        total = allowed.shape[1]  # at most so many: how many there are is known to the device alone
        most = min(total, self.count or max(1, -int(-total * self.percent // 100)))
        order = least_similar(self._similarity(views.labeled, labeled, pool), allowed, most)
        return Partners(picked(order, size, uniform), size > 0, mine)

    def _similarity(self, out: Output, labeled: Labeled, pool: Pool) -> Tensor:
        """Of the labeled images of this rank and the pool of all ranks, (M, N)."""
        if self.similarity == "feature":
            a, b = (features_of(one, one.logits[:, 0], "calibratemix") for one in (out, pool.out))
        elif self.similarity == "pixel":
            a, b = labeled.x, pool.x
        else:
            return gather_batch(pool.uniform).expand(len(labeled.y), -1)
        return cosine(a.detach(), gather_batch(full_precision(b)))


def _labels(b: Labeled) -> Tensor:
    """In range also where they are ignored."""
    return b.y.masked_fill(b.valid == 0, 0)


def _pool(views: Views, batch: Batch, pseudo: Pseudo | None, name: str) -> Pool:
    b, u = batch.labeled, batch.unlabeled
    if pseudo is None or u is None or views.weak is None:
        uniform = b.draw(f"{name} order", 1)[:, 0]
        return Pool(b.x, _labels(b), b.valid, torch.ones_like(b.valid), b.index, uniform, views.labeled)
    uniform = u.draw(f"{name} order", 1)[:, 0]
    return Pool(u.weak, most_probable(pseudo.target), u.valid, pseudo.weight, u.index, uniform, views.weak)


def _hard(score: Tensor, valid: Tensor) -> Tensor:
    """Which samples of the global batch are hard, in rank order."""
    return hard_half(gather_batch(score), gather_batch(valid))

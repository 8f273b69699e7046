"""Weighers that keep a pseudo-label or drop it: confidence against a threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.distributed import gather_batch, max_over_ranks, mean_over_ranks, world_size
from sfumato.errors import UsageError, check_choice
from sfumato.functional.percentile import percentile
from sfumato.functional.probability import class_sums, confidence, probability
from sfumato.functional.weigh import above, curriculum_threshold, self_adaptive_threshold
from sfumato.rules.base import Weigher
from sfumato.running.average import Init, RunningMean
from sfumato.running.status import LearningStatus, PixelStatus
from sfumato.types import Context


def checked_threshold(owner: str, threshold: float) -> float:
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"{owner}(threshold={threshold}): expected a probability between 0 and 1, such as 0.95.")
    return threshold


class FixedThreshold(Weigher):
    """1 where the confidence reaches tau (FixMatch, eq. 4)."""

    def __init__(self, threshold: float = 0.95) -> None:
        super().__init__()
        self.threshold = checked_threshold("FixedThreshold", threshold)

    def forward(self, p: Tensor) -> Tensor:
        return above(p, self.threshold)


class Coverage(Weigher):
    """One number for all: the share of the valid predictions whose confidence reaches tau.

    French et al. 2020 (arXiv:1906.01916), section 4: the loss grows with how much of the batch the teacher is sure of,
    and doubtful pixels take part. The share is of the batch of all ranks observed last.
    """

    share: Tensor

    def __init__(self, threshold: float = 0.97) -> None:
        super().__init__()
        self.threshold = checked_threshold("Coverage", threshold)
        self.register_buffer("share", torch.zeros(()))

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        sure = (above(p, self.threshold) * valid).sum()
        count = mean_over_ranks(torch.stack((sure, valid.sum().to(sure.dtype))))
        self.share.copy_(count[0] / count[1].clamp_min(1.0 / world_size()))

    def forward(self, p: Tensor) -> Tensor:
        return torch.ones_like(p[:, 0]) * self.share


class RelativeThreshold(Weigher):
    """1 where the confidence reaches tau times the mean confidence on this step's labelled batch (AdaMatch, eq. 4)."""

    def __init__(self, threshold: float = 0.95) -> None:
        super().__init__()
        self.threshold = checked_threshold("RelativeThreshold", threshold)
        self.labeled = RunningMean(1.0, momentum=0.0, init="given")

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        top, _ = confidence(probability(context.labeled_logits))
        self.labeled.observe((top * context.labeled_valid).sum(), context.labeled_valid.sum())

    def forward(self, p: Tensor) -> Tensor:
        return above(p, self.threshold * self.labeled.value)


class ClassCurriculum(Weigher):
    """FlexMatch: classes learnt by fewer samples are let in earlier, at tau * beta / (2 - beta) (eq. 5-8).

    beta is the number of samples whose last prediction at or above tau is this class, over the largest such number.
    The paper counts *after* using the thresholds: `observe` first freezes beta as the batches before left it, then
    counts the batch. Until a first sample is confident beta is 0 and every sample passes, as in the paper.

    Args:
        num_classes, num_unlabeled: C and the size of the unlabelled set.
        count_unused: the samples not yet confident compete for the largest count (eq. 8, "threshold warm-up").
        dense: labels are maps; an image then counts by the share of its pixels confident in each class.

    Raises:
        UsageError: a threshold that is no probability, or no unlabelled set.
    """

    status: Tensor

    def __init__(
        self,
        num_classes: int,
        num_unlabeled: int,
        *,
        threshold: float = 0.95,
        count_unused: bool = True,
        dense: bool = False,
    ) -> None:
        super().__init__()
        self.threshold = checked_threshold("ClassCurriculum", threshold)
        if num_unlabeled < 1:
            raise UsageError(
                f"ClassCurriculum(num_unlabeled={num_unlabeled}): expected the size of the unlabeled set, for it keeps "
                "a record of each image."
            )
        self.count_unused = count_unused
        memory = PixelStatus if dense else LearningStatus
        self.memory: PixelStatus | LearningStatus = memory(num_classes, num_unlabeled)
        self.register_buffer("status", torch.zeros(num_classes))

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.status.copy_(self.memory.value(count_unused=self.count_unused))
        top, label = confidence(p)
        self.memory.observe(context.index, label, (top >= self.threshold) & (valid > 0))

    def forward(self, p: Tensor) -> Tensor:
        return above(p, curriculum_threshold(self.status, self.threshold))


class SelfAdaptiveThreshold(Weigher):
    """FreeMatch: tau_c = level * prior_c / max prior, both moving averages of the model's own predictions (eq. 5-7).

    The batch is observed first. `level` and `prior` start at 1/C as in the paper, so nearly all samples pass early.

    Args:
        momentum: of the averages.
        quantile: take this quantile of the confidences for the level in place of their mean; None is the paper.
        ceiling: upper limit of the level; None is the paper, 0.95 the authors' option.
        init: "uniform" (paper) or "first" (no slow start).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        momentum: float = 0.999,
        quantile: float | None = None,
        ceiling: float | None = None,
        init: str = "uniform",
    ) -> None:
        super().__init__()
        check_choice("SelfAdaptiveThreshold", "init", init, ("uniform", "first"))
        for key, value in (("quantile", quantile), ("ceiling", ceiling)):
            if value is not None and not 0.0 <= value <= 1.0:
                raise UsageError(f"SelfAdaptiveThreshold({key}={value}): expected a number between 0 and 1, or None.")
        self.quantile, self.ceiling = quantile, ceiling
        start: Init = "first" if init == "first" else "given"
        self.level = RunningMean(1.0 / num_classes, momentum=momentum, init=start)
        self.prior = RunningMean(torch.full((num_classes,), 1.0 / num_classes), momentum=momentum, init=start)

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        top, _ = confidence(p)
        if self.quantile is None:
            self.level.observe((top * valid).sum(), valid.sum())
        else:
            self.level.blend(*_global_quantile(top, valid, self.quantile))
        self.prior.observe(class_sums(p, valid), valid.sum())

    @property
    def global_threshold(self) -> Tensor:
        level = self.level.value
        return level if self.ceiling is None else level.clamp(0.0, self.ceiling)

    @property
    def thresholds(self) -> Tensor:
        """One threshold per class, (C,)."""
        return self_adaptive_threshold(self.global_threshold, self.prior.value)

    def forward(self, p: Tensor) -> Tensor:
        return above(p, self.thresholds)


class PeakThreshold(Weigher):
    """CorrMatch: tau follows the mean over the classes predicted in the batch of the largest confidence in each.

    tau <- momentum tau + (1 - momentum) mean_c max q over the valid predictions of class c, of all ranks. The batch is
    observed first. As the surest prediction of a class is soon near 1, tau rises from its relaxed start towards 1.

    Args:
        num_classes: C.
        threshold: tau to start with.
        momentum: of the average.
    """

    def __init__(self, num_classes: int, *, threshold: float = 0.85, momentum: float = 0.999) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.level = RunningMean(checked_threshold("PeakThreshold", threshold), momentum=momentum, init="given")

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        top, label = confidence(p)
        peaks = torch.zeros(self.num_classes, dtype=p.dtype, device=p.device)
        peaks.scatter_reduce_(0, label.flatten(), (top * valid).flatten().to(p.dtype), "amax")
        peaks = max_over_ranks(peaks)
        predicted = (peaks > 0).sum()
        self.level.blend(peaks.sum() / predicted.clamp_min(1), predicted > 0)

    def forward(self, p: Tensor) -> Tensor:
        return above(p, self.level.value)


def _global_quantile(values: Tensor, valid: Tensor, q: float) -> tuple[Tensor, Tensor]:
    """The q-quantile of the valid values of all ranks, and whether there is any."""
    everything = gather_batch(values.masked_fill(valid == 0, torch.inf).flatten())
    found = percentile(everything, everything.isfinite(), q)
    return found, found.isfinite()

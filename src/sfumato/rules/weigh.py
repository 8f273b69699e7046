"""Weighers that grade: by entropy, by a moving Gaussian, or by another rule's mean."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import UsageError, check_choice
from sfumato.functional.probability import confidence, normalized_entropy
from sfumato.functional.weigh import bell, one_sided_bell, truncated_gaussian
from sfumato.rules.base import Refiner, Weigher
from sfumato.rules.schedule import Ramp, Schedule
from sfumato.running.average import RunningMean
from sfumato.running.gaussian import RunningGaussian, RunningMoments
from sfumato.types import Context


class All(Weigher):
    """Every pseudo-label counts fully."""

    def forward(self, p: Tensor) -> Tensor:
        return torch.ones_like(p[:, 0])


class Bell(Weigher):
    """4 e (1 - e) of the normalised entropy e (uncertainty-weighted SSL, eq. 7)."""

    def forward(self, p: Tensor) -> Tensor:
        return bell(normalized_entropy(p))


class OneSidedBell(Weigher):
    """1 for e <= 0.5, then the bell: keeps what is sure, doubts what is not."""

    def forward(self, p: Tensor) -> Tensor:
        return one_sided_bell(normalized_entropy(p))


class OneMinusEntropy(Weigher):
    """1 - e (FARCLUSS, eq. 6)."""

    def forward(self, p: Tensor) -> Tensor:
        return (1 - normalized_entropy(p)).clamp_min(0.0)


class EntropyGate(Weigher):
    """1 where the normalised entropy is at most eps = mean + k * std, moving averages over batches, eps clipped.

    Uncertainty-weighted SSL, eq. 6. The batch is observed first.

    Args:
        k: how many standard deviations, a number or a schedule; the reading chosen is 1 to 2 over training.
        entropy_range: eps never leaves it: the upper end makes the gate act early, the lower keeps it from dropping
            useful samples late.
        momentum: of the averages of e and e^2; the first batch is their first value.
    """

    eps: Tensor

    def __init__(
        self,
        *,
        k: Schedule | None = None,
        entropy_range: tuple[float, float] = (0.2, 0.95),
        momentum: float = 0.999,
    ) -> None:
        super().__init__()
        low, high = entropy_range
        if not 0.0 <= low <= high <= 1.0:
            raise UsageError(f"EntropyGate(entropy_range={entropy_range}): expected 0 <= low <= high <= 1.")
        self.k: Schedule = k or Ramp(1.0, 2.0)
        self.low, self.high = low, high
        self.entropy = RunningMoments(momentum=momentum)
        self.register_buffer("eps", torch.tensor(high))

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.entropy.observe(normalized_entropy(p), valid)
        eps = self.entropy.mean + self.k(context.progress) * self.entropy.std
        self.eps.copy_(eps.clamp(self.low, self.high))

    def forward(self, p: Tensor) -> Tensor:
        return (normalized_entropy(p) <= self.eps).to(p.dtype)


class EntropyLimit(Weigher):
    """1 where the normalised entropy is at most `limit`, which does not move (FARCLUSS: 0.7).

    Raises:
        UsageError: a limit outside 0 to 1.
    """

    def __init__(self, limit: float = 0.7) -> None:
        super().__init__()
        if not 0.0 <= limit <= 1.0:
            raise UsageError(f"EntropyLimit(limit={limit}): expected a number between 0 and 1; 1 lets all pass.")
        self.limit = limit

    def forward(self, p: Tensor) -> Tensor:
        return (normalized_entropy(p) <= self.limit).to(p.dtype)


class TruncatedGaussian(Weigher):
    """SoftMatch: full weight above the moving mean of the confidences, a Gaussian tail below it (eq. 5-7).

    Args:
        num_classes: C; the mean starts at 1/C and the variance at 1, as in the paper.
        n_sigma: the tail's width is std / n_sigma; 2 is the authors' code, 1 the paper's formula as written.
        estimate: "unbiased" (authors) or "population" batch variance. Either survives a batch of one.

    Raises:
        UsageError: an unknown estimate, or a tail without a width.
    """

    def __init__(
        self, num_classes: int, *, n_sigma: float = 2.0, momentum: float = 0.999, estimate: str = "unbiased"
    ) -> None:
        super().__init__()
        check_choice("TruncatedGaussian", "estimate", estimate, ("unbiased", "population"))
        if not n_sigma > 0:
            raise UsageError(f"TruncatedGaussian(n_sigma={n_sigma}): expected a number above 0, such as 2.")
        self.n_sigma = n_sigma
        self.confidence = RunningGaussian(
            1.0 / num_classes,
            momentum=momentum,
            estimate="unbiased" if estimate == "unbiased" else "population",
        )

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.confidence.observe(confidence(p)[0], valid)

    def forward(self, p: Tensor) -> Tensor:
        return truncated_gaussian(confidence(p)[0], self.confidence.mean, self.confidence.variance, self.n_sigma)


class Aligned(Weigher):
    """A weigher that reads refined probabilities while the target keeps the raw ones (SoftMatch).

    observe_raw: the weigher's statistics are of the raw probabilities; otherwise of the refined ones it reads.
    """

    def __init__(self, refine: Refiner, weigh: Weigher, *, observe_raw: bool = False) -> None:
        super().__init__()
        self.refine, self.weigh, self.observe_raw = refine, weigh, observe_raw

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.refine.observe(p, valid, context)
        self.weigh.observe(p if self.observe_raw else self.refine(p), valid, context)

    def forward(self, p: Tensor) -> Tensor:
        weight: Tensor = self.weigh(self.refine(p))
        return weight


class MeanNormalized(Weigher):
    """Another rule's weights over their moving mean, at most `ceiling`: keeps the size of the loss as weights fade."""

    def __init__(self, weigh: Weigher, *, momentum: float = 0.999, ceiling: float = 10.0) -> None:
        super().__init__()
        self.weigh, self.ceiling = weigh, ceiling
        self.mean = RunningMean(1.0, momentum=momentum, init="first")

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.weigh.observe(p, valid, context)
        self.mean.observe((self.weigh(p) * valid).sum(), valid.sum())

    def forward(self, p: Tensor) -> Tensor:
        weight: Tensor = self.weigh(p)
        return (weight / self.mean.value.clamp_min(1e-12)).clamp_max(self.ceiling)

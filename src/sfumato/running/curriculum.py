"""What held-out predictions teach, evaluation by evaluation: class offsets and thresholds, and their averages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.errors import UsageError, check_choice
from sfumato.functional.offsets import class_offsets
from sfumato.functional.precision import (
    Predictions,
    frequency_groups,
    inverse_frequency,
    precision_thresholds,
    rare_groups,
    selected_precision,
)
from sfumato.functional.probability import confidence
from sfumato.functional.simplex import simplex_offsets, simplex_thresholds
from sfumato.running.evaluations import EvaluationMean
from sfumato.types import HeldOut, Progress

Average = Literal["log_debiased", "arithmetic_official"]
Rare = Literal["neutral", "official_min"]
START = 0.95  # the threshold until the first evaluation
_FEWEST = 5  # predictions that a threshold below it takes
_MOST_SAMPLES, _MOST_VALUES = 200_000, 1 << 26


@dataclass(frozen=True, slots=True)
class OffsetSearch:
    """How offsets are found from held-out predictions.

    ridge: of `class_offsets`. fade: the number of samples at which the ridge is that; at K it is ridge * fade / K, so
    that it goes as samples come; None: it stays. limit: of pi and 1 / pi. solver: Newton, or the authors' simplex,
    which has neither.
    """

    ridge: float = 0.01
    fade: int | None = None
    limit: float = 30.0
    solver: Literal["newton", "nelder_mead_official"] = "newton"

    def __post_init__(self) -> None:
        check_choice("OffsetSearch", "solver", self.solver, ("newton", "nelder_mead_official"))
        if self.ridge < 0:
            raise UsageError(f"ridge={self.ridge}: expected a number of 0 or more, such as 0.01.")
        if self.fade is not None and self.fade < 1:
            raise UsageError(f"fade={self.fade}: expected a number of samples, 1 or more, or None.")
        if not self.limit > 1:
            raise UsageError(f"pi_limit={self.limit}: expected a number above 1, such as 30.")

    def __call__(self, logits: Tensor, y: Tensor, start: Tensor) -> Tensor:
        """log pi, (C,) float64, from (K, C) and (K,), K at least 1."""
        if self.solver == "nelder_mead_official":
            return simplex_offsets(logits, y)
        ridge = self.ridge if self.fade is None else self.ridge * self.fade / len(y)
        return class_offsets(logits, y, ridge=ridge, start=start, limit=math.log(self.limit))


@dataclass(frozen=True, slots=True)
class ThresholdSearch:
    """How thresholds are found from held-out predictions.

    target: the precision. choice: as in `precision_thresholds`, or the authors' simplex, "official_nm". groups: of
    classes that share a threshold; None: each class has its own that has samples enough. balanced: samples weigh
    1 / p(y), p the frequencies among them, so that the precision is that of a population of equal classes.
    """

    target: float = 0.75
    choice: Literal["first_reaching", "argmin_gap", "official_nm"] = "first_reaching"
    groups: int | None = None
    balanced: bool = True

    def __post_init__(self) -> None:
        check_choice("ThresholdSearch", "choice", self.choice, ("first_reaching", "argmin_gap", "official_nm"))
        if not 0.0 < self.target <= 1.0:
            raise UsageError(f"target_precision={self.target}: expected a precision above 0 and up to 1, such as 0.75.")
        if self.groups is not None and self.groups < 1:
            raise UsageError(f"tau_groups={self.groups}: expected a number of groups, 1 or more, or None.")

    def __call__(self, logits: Tensor, y: Tensor, *, favors_rare: bool = False) -> tuple[Tensor, Tensor]:
        """Thresholds (C,) float64 of refined logits (K, C), and which classes are rare (C,) bool.

        A class of a group that is hardly ever predicted, and not rightly, keeps the threshold of the start: nothing
        says that its pseudo-labels can be trusted. favors_rare: those of rare classes are, and their threshold is 0.
        """
        top, label = confidence(torch.softmax(logits.double(), dim=1))
        counts = torch.bincount(y, minlength=logits.shape[1])
        group = frequency_groups(counts, groups=self.groups)
        weight = inverse_frequency(y, logits.shape[1]) if self.balanced else torch.ones_like(counts, dtype=top.dtype)
        # Who is never held out can only be predicted wrongly, which says nothing of the others in the group.
        known = counts[label] > 0
        seen = Predictions(top[known], label[known], y[known], group, weight)
        if self.choice == "official_nm":
            found = simplex_thresholds(seen, self.target)
        else:
            found = precision_thresholds(seen, self.target, choice=self.choice)
        rare = rare_groups(seen)
        precision, count = selected_precision(seen, torch.zeros_like(found))
        unknown = (count < _FEWEST) & (precision < self.target)
        found = found.masked_fill(rare, 0.0) if favors_rare else found.masked_fill(unknown, START)
        return found[group], rare[group]


class Curriculum(nn.Module):
    """Offsets and thresholds of C classes, learned at each evaluation from held-out predictions (SEVAL).

    Buffers: the two averages, the offsets found last, and which classes were rare then.

    Args:
        num_classes: C.
        offsets, thresholds: how they are found.
        decay: of the averages, see `EvaluationMean`.
        average: "log_debiased": of log pi, so that the scale of pi, which is arbitrary, does not matter, and without
            the weight of the start. "arithmetic_official": of pi, from 1, and of the thresholds, from 0.95.
        rare: what pi and tau are for classes of which the held-out samples say too little, by `rare_groups`: as found,
            where pi is 1 without any sample, or, "official_min", the smallest pi of all, so that the class is raised
            the most, and tau 0, so that all its pseudo-labels count.
    """

    current: Tensor  # (C,) log pi of the last evaluation, before averaging
    rare: Tensor  # (C,) bool
    history: Tensor | None  # (evaluations, 2, C), where it is recorded

    def __init__(
        self,
        num_classes: int,
        offsets: OffsetSearch,
        thresholds: ThresholdSearch,
        *,
        decay: float | None = None,
        average: Average = "log_debiased",
        rare: Rare = "neutral",
    ) -> None:
        super().__init__()
        check_choice("Curriculum", "average", average, ("log_debiased", "arithmetic_official"))
        check_choice("Curriculum", "rare", rare, ("neutral", "official_min"))
        self.search, self.thresholds_of, self.favors_rare = offsets, thresholds, rare == "official_min"
        self.in_log = average == "log_debiased"
        neutral = torch.zeros(num_classes) if self.in_log else torch.ones(num_classes)
        self.offsets = EvaluationMean(neutral, decay=decay, debiased=self.in_log)
        self.thresholds = EvaluationMean(torch.full((num_classes,), START), decay=decay, debiased=self.in_log)
        self.register_buffer("current", torch.zeros(num_classes))
        self.register_buffer("rare", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("history", None)

    @property
    def offset(self) -> Tensor:
        """log pi as averaged, (C,)."""
        mean = self.offsets.value
        return self._favored(mean if self.in_log else mean.log())

    @property
    def last_offset(self) -> Tensor:
        """log pi as the last evaluation had it, (C,)."""
        return self._favored(self.current)

    @property
    def threshold(self) -> Tensor:
        """Of the confidence in each class, (C,)."""
        return self.thresholds.value

    def _favored(self, log_pi: Tensor) -> Tensor:
        return torch.where(self.rare, log_pi.min(), log_pi) if self.favors_rare else log_pi

    def record(self, evaluations: int) -> None:
        """Keep the offsets and thresholds of so many evaluations. Call it before training."""
        self.history = self.current.new_zeros(evaluations, 2, len(self.current))

    def follow(self, progress: Progress) -> None:
        """Called at each step. What is learned changes at evaluations only."""

    @torch.no_grad()
    def learn(self, held_out: HeldOut, offset: Tensor) -> None:
        """One evaluation: of logits from which `offset` (C,), as deployed, was subtracted.

        Offsets first, from raw logits; then thresholds of logits refined by the average. On all ranks alike.
        """
        z, y = sampled(held_out)
        if not len(y):
            return
        z = z.double() + offset.to(z.device, torch.float64)
        found = self.search(z, y, self.current).to(self.current)
        self.current.copy_(found)
        self.offsets.observe(found if self.in_log else found.exp())
        refined = z - self.offset.to(z)
        tau, rare = self.thresholds_of(refined, y, favors_rare=self.favors_rare)
        if self.favors_rare:
            self.rare.copy_(rare)
            if bool(rare.any()):  # the order of the authors: offsets of rare classes last, then what they select
                tau, _ = self.thresholds_of(z - self.offset.to(z), y, favors_rare=True)
        self.thresholds.observe(tau)
        if self.history is not None:
            row = min(int(self.thresholds.evaluations), len(self.history)) - 1
            self.history[row] = torch.stack((self.offset, self.threshold))


class Replay(nn.Module):
    """A curriculum that another training has recorded, by the step: what it had learned by then.

    Args:
        steps: after which an evaluation was, ascending.
        offsets, thresholds: (evaluations, C) each, as averaged then.
    """

    schedule: Tensor  # (1 + evaluations, 2, C), the first row before any
    row: Tensor  # () int64

    def __init__(self, steps: Sequence[int], offsets: Tensor, thresholds: Tensor) -> None:
        super().__init__()
        rows = torch.stack((offsets, thresholds), dim=1).float()
        first = torch.stack((torch.zeros_like(rows[:1, 0]), torch.full_like(rows[:1, 1], START)), dim=1)
        self.steps = tuple(steps)
        self.register_buffer("schedule", torch.cat((first, rows)))
        self.register_buffer("row", torch.zeros((), dtype=torch.int64))

    @property
    def offset(self) -> Tensor:
        """log pi, (C,)."""
        return self._row[0]

    last_offset = offset

    @property
    def threshold(self) -> Tensor:
        """Of the confidence in each class, (C,)."""
        return self._row[1]

    @property
    def _row(self) -> Tensor:
        return self.schedule.index_select(0, self.row.view(1)).squeeze(0)  # which row is not asked of the device

    def follow(self, progress: Progress) -> None:
        self.row.fill_(sum(step <= progress.step for step in self.steps))

    @torch.no_grad()
    def learn(self, held_out: HeldOut, offset: Tensor) -> None:
        """Learns nothing: it is the turn of the next row."""
        self.row.add_(1).clamp_(max=len(self.steps))


def sampled(held_out: HeldOut) -> tuple[Tensor, Tensor]:
    """(K, C) logits and (K,) labels of what is valid and finite: all, or as many as memory bears, by chance alike."""
    classes = held_out.logits.shape[1]
    z, y = held_out.logits.detach().movedim(1, -1).reshape(-1, classes), held_out.y.flatten()
    kept = (held_out.valid.flatten() > 0) & (y >= 0) & (y < classes)
    z, y = z[kept], y[kept].long()
    finite = z.isfinite().all(dim=1)
    z, y = z[finite], y[finite]
    most = min(_MOST_SAMPLES, max(1, math.floor(_MOST_VALUES / classes)))
    if len(y) > most:
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:most].sort().values.to(z.device)
        z, y = z[order], y[order]
    return z, y

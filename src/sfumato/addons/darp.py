"""DARP: pseudo-labels refined so that, over the whole unlabeled set, every class gets its share.

Kim et al. 2020 (arXiv:2007.08844). The prediction last made for each unlabeled sample is kept. From a share of training
on, and every few steps, the whole table is refined (see `functional.darp`):

    prune:    of each class the floor(alpha N pi_c) most probable samples, scaled to N pi_c
    project:  min sum_n KL(M_n || A_n) / H(A_n), rows that sum to 1, columns that sum to N pi_c

and the rows of a batch are what its targets are made of. How much a pseudo-label counts is decided by the prediction as
it was. The prior pi is that of the labels, given, or estimated from the predictions; USB has the labels' only, which
misleads where the unlabeled set is balanced otherwise.

The projection is solved exactly. The paper alternates between rows and columns ten times, which is also what is done
where no table can meet the shares, and leaves them missed by up to some percent; `RefinedTargets` has it as an option.
All ranks see the predictions of all.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from sfumato.addons.own_images import check_own_images
from sfumato.addons.unlabeled_prior import shown
from sfumato.errors import UsageError
from sfumato.functional.darp import alternated, projected, pruned
from sfumato.methods import Consistency, Method
from sfumato.methods.gated_divergence import gated_as_predicted
from sfumato.rules import Prior, Targeter
from sfumato.rules.prior import Borrowed, Source
from sfumato.running.memory import check_fits
from sfumato.running.sample_table import SampleTable
from sfumato.types import Context, Target

_MISS = 0.01  # of the mean number of samples of a class: a larger miss is no solution
_ROUNDS = 10  # the authors', for what has no solution
_BYTES = 2 * 4 + 8 * 8  # a sample and class: two tables in float32, and up to eight in float64 during a refinement


class RefinedTargets(Targeter):
    """Another rule's targets of the refined rows.

    Args:
        target: makes the target of a row.
        prior: the classes' shares of the unlabeled set.
        num_classes: C.
        num_unlabeled: N.
        start: share of training after which rows are refined.
        every: steps from one refinement to the next.
        alpha: how many times its share of samples each class keeps; the others are pruned.
        rounds: of the paper's alternation; None solves it.

    Buffers: two tables of N x C float32. A step costs O(batch) on the device; one that refines goes over the table a
    few dozen times in float64, and waits. It takes 72 bytes a sample and class then, all of them at once, so that a
    table in a file would not help: CIFAR-100 needs 0.3 GiB, ImageNet 86.

    Raises:
        UsageError: a number out of range, or tables that do not fit in the memory of the machine.
    """

    refined: Tensor  # (N, C), what the last refinement made of the table
    done: Tensor  # () bool, whether there was one

    def __init__(
        self,
        target: Targeter,
        prior: Prior | Borrowed,
        num_classes: int,
        num_unlabeled: int,
        *,
        start: float = 0.78,
        every: int = 10,
        alpha: float = 2.0,
        rounds: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= start <= 1:
            raise UsageError(f"darp(start={start}): expected a share of training, 0 to 1.")
        if every < 1 or (rounds is not None and rounds < 1) or not alpha > 0:
            raise UsageError(
                f"darp(every={every}, rounds={rounds}, alpha={alpha}): expected every and rounds of at least 1, and "
                "alpha above 0; rounds=None solves it."
            )
        check_fits(
            f"The predictions that darp keeps for {num_unlabeled:,} samples and {num_classes:,} classes, with the "
            "float64 copies in which it refines them all at once,",
            _BYTES * num_unlabeled * num_classes,
            "A file would not help. Train on fewer unlabeled images, or use an add-on that keeps no such table, as "
            "crest_plus and distribution_alignment.",
        )
        self.target, self.prior = target, prior
        self.start, self.every, self.alpha, self.rounds = start, every, alpha, rounds
        self.table = SampleTable(num_unlabeled, torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("refined", torch.full((num_unlabeled, num_classes), 1 / num_classes))
        self.register_buffer("done", torch.zeros((), dtype=torch.bool))
        self.rows: Tensor | None = None  # (N, C) of the batch observed last; no memory
        self._at = -1  # the step of the last refinement: a step of several batches has one

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.table.observe(context.index, p, valid)
        progress = context.progress
        begin = round(self.start * progress.steps)
        self.rows = p
        if progress.step >= begin:
            if (progress.step - begin) % self.every == 0 and progress.step != self._at:
                self._refine()
                self._at = progress.step
            # Where training went past the first refinement without unlabeled images, there are no rows yet.
            self.rows = torch.where(self.done, self.refined[context.index].to(p.dtype), p)
        self.target.observe(self.rows, valid, context)

    def forward(self, p: Tensor) -> Target:
        assert self.rows is not None, "observe comes first"
        assert len(self.rows) == len(p), "rows are of the batch that was observed"
        target: Target = self.target(self.rows)
        return target

    @torch.no_grad()
    def _refine(self) -> None:
        count, classes = self.table.value.shape
        budget = self.prior.value.double() * count
        a = pruned(self.table.value, budget, keep=self.alpha)
        miss = torch.inf
        if self.rounds is None:
            m, gap = projected(a, budget)
            miss = float(gap)
        if not miss <= _MISS * count / classes:
            m = alternated(a, budget, rounds=self.rounds or _ROUNDS)
        self.refined.copy_(m)
        self.done.fill_(True)


def darp(
    method: Method,
    num_classes: int,
    num_unlabeled: int,
    label_counts: tuple[int, ...],
    dense: bool = False,
    *,
    prior: Source = "labeled",
    start: float = 0.78,
    every: int = 10,
    alpha: float = 2.0,
    momentum: float = 0.999,
) -> None:
    """Refine the method's targets.

    Args:
        method: whose targets they are.
        num_classes, num_unlabeled, label_counts, dense: of the problem.
        prior: shares of the classes in the unlabeled set: those of the labels, "estimated" or "predicted" from the
            predictions, or numbers.
        start: share of training after which targets are refined (200 of 256 epochs).
        every: steps from one refinement to the next.
        alpha: each class keeps so many times its share of samples.
        momentum: of a prior that is learned.

    Raises:
        UsageError: labels are maps, pseudo-labels are made of labeled images too, a number is out of range, or the
            predictions do not fit in the memory of the machine.
    """
    if dense:
        raise UsageError(
            "darp is for one class per image only: it keeps a prediction for every unlabeled sample, and for masks "
            "that would be C numbers a pixel, of places that each crop moves."
        )
    check_own_images("darp", method)
    family = cast(Consistency, method)
    gated_as_predicted(family)
    family.target = RefinedTargets(
        family.target,
        shown(method, Prior(num_classes, label_counts, prior, momentum=momentum)),
        num_classes,
        num_unlabeled,
        start=start,
        every=every,
        alpha=alpha,
    )

"""ACR: a balanced second layer, and pseudo-labels adjusted by how far the unlabeled set is from the labels' tail.

Wei and Gan 2023 (CVPR), by the authors' code, which is the only full account of the rule: github.com/Gank0078/ACR. With
pi the labels' class shares, z the network's logits and z~ those of a second layer on the same features:

    L_x  = CE(z, y) + CE(z~ + tau_2 log pi, y)
    L_u  = H(argmax(z - tau log pi), z(A(u))),         counted once for each of softmax(z - tau log pi) and softmax z
    L_u~ = H(argmax(z - tau_12 log pi), z~(A(u))),     once for each of softmax(z - tau_12 log pi) and softmax z~
                                                       that reaches the threshold: 0, 1 or 2 times
    tau  = tau_1 softmax(d)_1,  d: symmetric KL of the estimate to pi, to even shares and to pi reversed

The estimate is a moving average of what the second layer is sure of, from a share of training on; before that tau is
tau_1. The network that is evaluated and kept ends in the second layer. The first terms of L_x and L_u are the method's
own, with its weights in the place of a threshold; its targets are the most probable class whatever they were.

Where the code differs from what it says to do, this does the latter: a class counts in the estimate as often as it is
predicted, not once a batch; pi is reversed by the rank of the classes, not by their order. tau follows the estimate at
every step, where the code takes the mean of the distances over the epoch before.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.functional.adjust import adjusted, prior_offset, tilted
from sfumato.functional.anchors import adjustment
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import class_counts, confidence, one_hot, probability
from sfumato.functional.reduce import mean, weighted_mean
from sfumato.methods import Consistency, Method
from sfumato.rules import Extra, Targeter, Weigher
from sfumato.rules.base import attached, features_of, with_output
from sfumato.rules.prior import label_shares
from sfumato.running.average import RunningMean
from sfumato.running.second_head import SecondHead
from sfumato.types import Batch, Context, Labeled, Networks, Output, Progress, Pseudo, Target, Unlabeled, Views


class BalancedBranch(Extra):
    """The second layer, its losses, the estimate of the unlabeled set's shares and the tau that follows from it.

    Args:
        num_classes: C.
        label_counts: labels of each class, samples or pixels.
        dense: labels are maps.
        strength, balanced_strength, label_strength: tau_1, tau_12 and tau_2.
        threshold: of the second layer's losses and the estimate.
        start: share of training after which the estimate begins.
        momentum: of the estimate.
        taught: the weak view is the teacher's: its features go through the average of the second layer.
    """

    name = "acr"
    labels_only = True
    shares: Tensor  # (C,) pi

    def __init__(
        self,
        num_classes: int,
        label_counts: tuple[int, ...],
        *,
        dense: bool,
        strength: float,
        balanced_strength: float,
        label_strength: float,
        threshold: float,
        start: float,
        momentum: float,
        taught: bool,
    ) -> None:
        super().__init__()
        self.num_classes, self.dense, self.taught = num_classes, dense, taught
        self.strength, self.balanced_strength, self.label_strength = strength, balanced_strength, label_strength
        self.threshold, self.start = threshold, start
        self.register_buffer("shares", label_shares(num_classes, label_counts), persistent=False)
        self.estimate = RunningMean(torch.full((num_classes,), 1 / num_classes), momentum=momentum, init="given")
        self.second: SecondHead | None = None
        # Of the batch observed last; no memory.
        self.progress = Progress(0, 1)
        self.balanced: Tensor | None = None  # (N, C, *S) of the weak views, by the second layer

    def attach(self, net: nn.Module) -> None:
        self.second = SecondHead(net, self.num_classes, dense=self.dense)

    def deployed(self, net: nn.Module) -> nn.Module:
        head = attached(self.second, "acr")
        return with_output(net, head.deployed()) if head.trained else net

    def deployed_student(self, net: nn.Module) -> nn.Module:
        head = attached(self.second, "acr")
        return with_output(net, head.head) if head.trained else net

    @property
    def tau(self) -> Tensor:
        """()."""
        begun = self.estimate.batches.sum() > 0
        return torch.where(begun, adjustment(self.estimate.value, self.shares, self.strength), self.strength)

    def offset(self) -> Tensor:
        """(C,) that is added to the network's logits for its own targets."""
        return -self.tau * prior_offset(self.shares)

    @torch.no_grad()
    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.progress, self.balanced = context.progress, None
        if context.logits is None:
            return
        head = attached(self.second, "acr")
        head.follow(context.progress.step)
        space, features = tuple(valid.shape[1:]), features_of(Output(context.logits, context.features), valid, "acr")
        self.balanced = probability(head.average(features, space) if self.taught else head(features, space))
        if context.progress.step >= round(self.start * context.progress.steps):
            sure, label = confidence(self.balanced)
            known = (sure >= self.threshold) * valid
            self.estimate.observe(class_counts(label, self.num_classes, known), known.sum())

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        head = attached(self.second, "acr")
        head.follow(self.progress.step, nets.momentum(self.progress.step))
        loss = self._of_labeled(head, views.labeled, batch.labeled)
        if batch.unlabeled is None or views.weak is None:
            return loss
        own, charges = self._pseudo(views.weak, batch.unlabeled), []
        for strong, warp in zip(views.strong, batch.unlabeled.warps, strict=True):
            warped = warp(own)
            z = head(features_of(strong, warped.valid, "acr"), tuple(warped.valid.shape[1:]))
            charges.append(weighted_mean(cross_entropy(z, warped.target), warped.weight, over=warped.valid))
        return loss + torch.stack(charges).mean() if charges else loss

    def _of_labeled(self, head: SecondHead, out: Output, labeled: Labeled) -> Tensor:
        y = labeled.y.masked_fill(labeled.valid == 0, 0)
        z = head(features_of(out, y, "acr"), tuple(y.shape[1:]))
        return mean(cross_entropy(adjusted(z, prior_offset(self.shares, self.label_strength)), y), over=labeled.valid)

    @torch.no_grad()
    def _pseudo(self, weak: Output, u: Unlabeled) -> Pseudo:
        assert self.balanced is not None  # of these very images: `observe` goes before
        top, label = confidence(tilted(probability(weak.logits), prior_offset(self.shares, -self.balanced_strength)))
        counted = (confidence(self.balanced)[0] >= self.threshold).to(top.dtype)
        return Pseudo(label, counted + (top >= self.threshold), u.valid)


class AdjustedTargets(Targeter):
    """argmax(z - tau log pi), in the place of another rule's targets, sure where those are distributions.

    As released: a soft target would be nearer to the rarest class than the prediction at every step.
    """

    def __init__(self, target: Targeter, branch: BalancedBranch) -> None:
        super().__init__()
        self.target = target
        self._branch = (branch,)  # in a tuple: its state is saved where its loss is

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.target.observe(tilted(p, self._branch[0].offset()), valid, context)

    def forward(self, p: Tensor) -> Target:
        moved = tilted(p, self._branch[0].offset())
        label, own = moved.argmax(dim=1), self.target(moved)
        soft = isinstance(own, Tensor) and own.is_floating_point()  # what else reads targets may know no other form
        return one_hot(label, p.shape[1], p.dtype) if soft else label


class EitherSure(Weigher):
    """Another rule's weight of p and of softmax(z - tau log pi), added up; the rule learns from p."""

    def __init__(self, weigh: Weigher, branch: BalancedBranch) -> None:
        super().__init__()
        self.weigh = weigh
        self._branch = (branch,)

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.weigh.observe(p, valid, context)

    def forward(self, p: Tensor) -> Tensor:
        weight: Tensor = self.weigh(p) + self.weigh(tilted(p, self._branch[0].offset()))
        return weight


def acr(
    method: Method,
    num_classes: int,
    label_counts: tuple[int, ...],
    dense: bool = False,
    *,
    strength: float = 2.0,
    balanced_strength: float = 2.0,
    label_strength: float = 2.0,
    threshold: float = 0.95,
    start: float = 0.012,
    momentum: float = 0.99,
) -> None:
    """Add the second layer, its losses and its place in what is deployed; adjust the method's targets and weights.

    Args:
        method: whose targets and weights they are.
        num_classes, label_counts, dense: of the problem.
        strength: tau_1, the largest adjustment of the method's targets.
        balanced_strength: tau_12, the adjustment of the second layer's targets.
        label_strength: tau_2, the adjustment in the second layer's loss of labels.
        threshold: from which the second layer's targets count.
        start: share of training after which the unlabeled set's shares are estimated (6 of 500 epochs).
        momentum: of the estimate.

    Raises:
        UsageError: a number out of range, counts that are not those of the classes, or a method whose pseudo-labels are
            charged otherwise than labels are.
    """
    if cast(Consistency, method).divergence is not cross_entropy:
        raise UsageError(
            "acr makes each pseudo-label its most probable class, and this method charges predictions, by another "
            "measure than the cross-entropy: take fixmatch, freematch or another method with a threshold."
        )
    if not 0 <= threshold <= 1 or not 0 <= start <= 1:
        raise UsageError(f"acr(threshold={threshold}, start={start}): expected numbers between 0 and 1.")
    if min(strength, balanced_strength, label_strength) < 0:
        raise UsageError(
            f"acr(strength={strength}, balanced_strength={balanced_strength}, label_strength={label_strength}): "
            "expected numbers of at least 0; 0 adjusts nothing."
        )
    branch = BalancedBranch(
        num_classes,
        label_counts,
        dense=dense,
        strength=strength,
        balanced_strength=balanced_strength,
        label_strength=label_strength,
        threshold=threshold,
        start=start,
        momentum=momentum,
        taught=method.views.teacher == "ema",
    )
    family = cast(Consistency, method)
    family.target = AdjustedTargets(family.target, branch)
    family.weigh = EitherSure(family.weigh, branch)
    family.extras.append(branch)

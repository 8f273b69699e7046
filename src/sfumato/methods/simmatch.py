"""SimMatch: weak and strong view are to agree on which labeled samples are near, and near samples on which class.

With h the features of a view through a projection, of length 1, m_k those kept of labeled sample k, y_k its label, and
p the prediction on the weak view, aligned:

    a_k  = softmax_k(cos(h_weak, m_k) / T)
    a'_k = a_k p_(y_k), renormalized                         what the classes say to the samples
    q_c  = alpha p_c + (1 - alpha) sum of a_k with y_k = c   what the samples say to the classes
    L_u  = mean(1[max q >= tau] CE(strong view, q))
    L_in = mean -sum_k a'_k log softmax_k(cos(h_strong, m_k) / T)
    L    = L_x + lambda_u L_u + lambda_in L_in

Zheng et al. 2022 (arXiv:2203.06915), section 3. Last of all the labeled images of the step move their rows,
m_k <- 0.7 m_k + 0.3 h_k, brought back to length 1. For large labeled sets the paper takes pseudo-labels and m_k = h_k
from the average of the weights, `encoder=average`, with `train.ema` above 0.

Different here: a sample that was not visited yet has no weight, where the published code starts from random rows and
waits for an epoch; all of it is in log space, without an epsilon. A sample that is twice in a batch has the mean of its
features. The projection is two layers with a layer norm in between, on the features that the network gives. Alignment
is to equal classes over the last 32 batches. Gradient flows through the strong view alone.
"""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from sfumato.errors import UsageError, check_choice
from sfumato.functional.divergence import Divergence, cross_entropy
from sfumato.functional.neighbors import aggregated, blended, log_similarity, similarity_cross_entropy, unfolded
from sfumato.functional.probability import probability
from sfumato.functional.prototypes import unit
from sfumato.functional.reduce import mean, weighted_mean
from sfumato.methods.base import Method, Networks, Slot, context
from sfumato.methods.comatch import check_neighbors
from sfumato.methods.consistency import Consistency, pseudo_label
from sfumato.rules import DistributionAlignment, FixedThreshold, Refiner, Soft, Targeter, Weigher
from sfumato.rules.base import attached, features_of
from sfumato.running.bank import LabeledBank
from sfumato.running.representation import Projection, Representation
from sfumato.types import Batch, Losses, Output, Progress, ViewSpec


class SimMatch(Method):
    """Rules as of `Consistency`, and a bank of labeled samples between refining and weighing.

    Args:
        num_classes: C.
        bank: of the labeled samples.
        refine, weigh, target: of the weak view; the bank comes after the first.
        averaged: pseudo-labels and the bank are of the averaged weights.
        alpha: share of a sample's own prediction.
        temperature: T.
        lambda_u, lambda_in: weights of L_u and L_in.
        dim: of the features.
        labeled_strong: train on strong views of the labelled images too.
    """

    slots: ClassVar[frozenset[Slot]] = Consistency.slots

    def __init__(
        self,
        num_classes: int,
        *,
        bank: LabeledBank,
        refine: Refiner,
        weigh: Weigher,
        target: Targeter,
        averaged: bool,
        alpha: float,
        temperature: float,
        lambda_u: float,
        lambda_in: float,
        dim: int,
        labeled_strong: bool,
    ) -> None:
        super().__init__()
        self.refine, self.weigh, self.target = refine, weigh, target
        self.divergence: Divergence = cross_entropy
        self.num_classes, self.averaged, self.alpha, self.temperature = num_classes, averaged, alpha, temperature
        self.lambda_u, self.lambda_in, self.dim = lambda_u, lambda_in, dim
        self.bank = bank
        self.projection: Projection | Representation | None = None
        self.views = ViewSpec(teacher="ema" if averaged else "student", labeled_strong=labeled_strong)

    def attach(self, net: nn.Module) -> None:
        super().attach(net)
        kind = Representation if self.averaged else Projection
        self.projection = kind(cast(int, net.num_features), self.dim)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        out, u = nets.forward(batch, self.views), batch.unlabeled
        supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong, progress)
        if u is None or out.weak is None:
            return Losses(supervised, torch.zeros_like(supervised), self.labels_alone(out, batch, nets, progress))

        with torch.no_grad():
            p, seen = probability(out.weak.logits), context(batch, out, progress)
            self.refine.observe(p, u.valid, seen)
            p = self.refine(p)
            self._follow(nets, progress)
            near = self._near(self._taught(out.weak, u.valid))
            alike, q = self._said(p, near)
            pseudo = pseudo_label(q, u.valid, seen, self.weigh, self.target, (self.charge, self.divergence))

        (strong,), (warp,) = out.strong, u.warps
        warped = warp(pseudo)
        charged = self.divergence(strong.logits, warped.target)
        unsupervised = weighted_mean(charged, warped.weight, over=warped.valid)
        missed = similarity_cross_entropy(self._near(self._embedded(strong, u.valid)), alike)
        extras = {"instances": self.lambda_in * mean(missed, over=u.valid * self._filled.any())}
        extras |= self.further_losses(q, seen, out, batch, pseudo, nets)
        self._visit(nets, batch, out.labeled)
        return Losses(supervised, self.lambda_u * unsupervised, extras, pseudo)

    @property
    def _filled(self) -> Tensor:
        return self.bank.filled[:-1]

    def _embedded(self, view: Output, valid: Tensor) -> Tensor:
        """h, (N, D) of length 1."""
        return unit(attached(self.projection, "simmatch")(features_of(view, valid, "simmatch")))

    def _taught(self, view: Output, valid: Tensor) -> Tensor:
        """h of the network that makes the pseudo-labels."""
        if not isinstance(self.projection, Representation):
            return self._embedded(view, valid)
        return unit(self.projection.average(features_of(view, valid, "simmatch")))

    def _follow(self, nets: Networks, progress: Progress) -> None:
        if isinstance(self.projection, Representation):
            self.projection.follow(progress.step, nets.momentum(max(0, progress.step - 1)))

    def _near(self, h: Tensor) -> Tensor:
        """log a, (N, num_labeled). Of a copy, since the bank moves before the backward pass."""
        return log_similarity(h, self.bank.rows.clone(), self._filled, self.temperature)

    def _said(self, p: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        """a' (N, num_labeled) and q (N, C)."""
        label, filled = self.bank.label[:-1], self._filled
        found = aggregated(near, label, self.num_classes).to(p.dtype)
        return unfolded(near, p, label, filled), blended(p, found, filled, self.alpha)

    @torch.no_grad()
    def _visit(self, nets: Networks, batch: Batch, seen: Output) -> None:
        labeled = batch.labeled
        view = nets.average(labeled.x) if self.averaged else seen
        self.bank.observe(self._taught(view, labeled.valid), labeled.y, labeled.index, labeled.valid)


def simmatch(
    num_classes: int,
    num_labeled: int,
    dense: bool,
    *,
    threshold: float = 0.95,
    alpha: float = 0.9,
    temperature: float = 0.1,
    lambda_u: float = 1.0,
    lambda_in: float = 1.0,
    dim: int = 128,
    momentum: float = 0.7,
    encoder: Literal["student", "average"] = "student",
    window: int = 32,
    labeled_strong: bool = False,
) -> SimMatch:
    """The method with its rules.

    Args:
        num_classes: C.
        num_labeled: size of the labelled set.
        dense: labels are maps; must be false.
        threshold: tau.
        alpha: share of a sample's own prediction in its pseudo-label; 1 asks no neighbors.
        temperature: T.
        lambda_u: weight of L_u.
        lambda_in: weight of L_in.
        dim: values of h.
        momentum: of the rows of labeled samples, with the student's features.
        encoder: which network makes pseudo-labels and the features that are kept; "average" for large labeled sets.
        window: batches over which predictions are aligned.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: labels that are maps, no labelled set, or a number out of range.
    """
    if dense:
        raise UsageError(
            "simmatch is for one class per image only: it keeps a feature of each labeled sample, and labeled pixels "
            "are too many for that. Take u2pl, which remembers some pixels of each class."
        )
    if num_labeled < 1:
        raise UsageError(
            f"simmatch(num_labeled={num_labeled}): expected the size of the labeled set, for it keeps a feature of "
            "each labeled sample."
        )
    check_neighbors("simmatch", alpha=alpha, temperature=temperature, dim=dim)
    check_choice("simmatch", "encoder", encoder, ("student", "average"))
    averaged = encoder == "average"
    return SimMatch(
        num_classes,
        bank=LabeledBank(num_labeled, dim=dim, momentum=0.0 if averaged else momentum),
        refine=DistributionAlignment(num_classes, window=window),
        weigh=FixedThreshold(threshold),
        target=Soft(),
        averaged=averaged,
        alpha=alpha,
        temperature=temperature,
        lambda_u=lambda_u,
        lambda_in=lambda_in,
        dim=dim,
        labeled_strong=labeled_strong,
    )

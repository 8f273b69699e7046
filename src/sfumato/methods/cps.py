"""CPS, cross pseudo supervision (Chen et al. 2021, arXiv:2106.01226): two networks label for each other.

    L = CE(z1, y) + CE(z2, y) + lambda_u [CE(z1_s, argmax z2_w) + CE(z2_s, argmax z1_w)]

Network 1 is the student, which is evaluated and kept; network 2, its twin, has the same architecture and the same
backbone at the start, but a new head. z_w is what a network says of the weak view, without gradient, and z_s of the
strong one. Both see the same views, CutMix boxes included, and labels are mixed as the images are. Every label counts,
however doubtful; what tells the two networks apart, and keeps them from agreeing too soon, is how they began.

The paper's lambda is 1.5 on PASCAL VOC and 6 on Cityscapes. It crosses the labels of labeled images too; here that is
their being among the unlabeled ones. Padding weighs nothing; in the released code it has labels like any other pixel.
A step costs twice what it does elsewhere, and the logged losses are sums over both networks.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.functional.reduce import weighted_mean
from sfumato.methods.base import Method, Networks
from sfumato.rules import FixedThreshold, Hard
from sfumato.rules.base import attached
from sfumato.types import Batch, Losses, Output, Progress, Pseudo, Unlabeled, Views, ViewSpec


class CPS(Method):
    def __init__(self, *, threshold: float, lambda_u: float, labeled_strong: bool) -> None:
        super().__init__()
        self.weigh, self.target = FixedThreshold(threshold), Hard()
        self.lambda_u = lambda_u
        self.twin: nn.Module | None = None  # trained beside the student, and of no use after
        self.views = ViewSpec(labeled_strong=labeled_strong)

    def attach(self, net: nn.Module) -> None:
        super().attach(net)
        self.twin = with_new_head(net)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        twin = attached(self.twin, "cps")
        one, two = (both.forward(batch, self.views) for both in (nets, nets.beside(twin)))
        supervised = self._supervised(batch, one) + self._supervised(batch, two)
        u = batch.unlabeled
        if u is None or one.weak is None or two.weak is None:
            return Losses(supervised, torch.zeros_like(supervised))
        of_one, of_two = self._labels(one.weak, u), self._labels(two.weak, u)
        crossed = _charge(one, u, of_two) + _charge(two, u, of_one)
        return Losses(supervised, self.lambda_u * crossed, pseudo=of_two)

    def _supervised(self, batch: Batch, out: Views) -> Tensor:
        return self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong)

    @torch.no_grad()
    def _labels(self, weak: Output, u: Unlabeled) -> Pseudo:
        p = probability(weak.logits)
        return Pseudo(self.target(p), self.weigh(p), u.valid)


def _charge(out: Views, u: Unlabeled, pseudo: Pseudo) -> Tensor:
    warped = u.warps[0](pseudo)
    return weighted_mean(cross_entropy(out.strong[0].logits, warped.target), warped.weight, over=warped.valid)


def with_new_head(net: nn.Module) -> nn.Module:
    """A copy of `net` whose heads begin anew.

    Their weights are those of `net` in another order, tensor by tensor: an independent draw by whatever rule each was
    drawn, of which constant ones, such as those of norms, are none.

    Raises:
        UsageError: the network does not tell its heads from the rest, or these hold constants only.
    """
    twin = deepcopy(net)
    heads: tuple[nn.Module, ...] | None = getattr(twin, "heads", None)
    if heads is None:
        raise UsageError(
            f"cps trains a second network with a head of its own, and {type(net).__name__} does not say what its head "
            "is. Use a network of build_model or build_segmenter, or give yours `heads`, a tuple of modules."
        )
    with torch.no_grad():
        for parameter in (one for head in heads for one in head.parameters()):
            order = torch.randperm(parameter.numel()).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    if all(torch.equal(one, other) for one, other in zip(net.parameters(), twin.parameters(), strict=True)) and heads:
        raise UsageError(
            f"The head of {type(net).__name__} begins with constants, so that the two networks of cps would not differ "
            "and would learn nothing from each other. Draw its weights at random."
        )
    return twin


def cps(*, threshold: float = 0.0, lambda_u: float = 1.5, labeled_strong: bool = False) -> CPS:
    """Each of two networks learns the labels that the other gives to the weak view.

    Args:
        threshold: labels of a lower confidence are left out; 0, which leaves out none, is the paper.
        lambda_u: weight of the crossed terms, both together.
        labeled_strong: train both networks on strong views of the labelled images too.

    Raises:
        UsageError: a threshold that is no probability.
    """
    return CPS(threshold=threshold, lambda_u=lambda_u, labeled_strong=labeled_strong)

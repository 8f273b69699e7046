"""DASO: pseudo-labels that heed what a sample resembles where the classifier predicts too often.

Oh, Kim and Kweon 2022 (arXiv:2106.05682). The last labeled features of each class, by the averaged network, are kept;
their means are the prototypes.

    q_c = softmax cos(f(weak), prototype_c) / T_proto
    v_c = m_c^(1 / T_dist) over its largest,                              m: targets of the last 100 steps
    p'  = (1 - v_k) p + v_k q,  k = argmax p,                             what targets are made of
    L  += psi mean H(q, softmax cos(f(A(u)), prototype) / T_proto),       mean over the strong views A

from a share of training on; before that the method is as ever, while prototypes gather. How much a pseudo-label counts
is decided by p. q is of the images of this very step; USB blends in that of the step before, of other images. While
nothing was counted v is 0, where USB divides 0 by 0. A class not met yet has a cosine of 0 with everything.

The averaged network sees the labeled batch once more, without gradient; where there is no average, the features that
the student gave in this step are taken, at no cost. Prototypes are those that the steps before left.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from sfumato.addons.own_images import check_own_images
from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import class_counts, one_hot, probability
from sfumato.functional.reduce import mean
from sfumato.functional.semantic import blend, heed, resemblance
from sfumato.methods import Consistency, Method
from sfumato.methods.gated_divergence import gated_as_predicted
from sfumato.rules import Extra, Targeter
from sfumato.rules.base import attached, features_of
from sfumato.running.block_counts import BlockCounts
from sfumato.running.class_memory import ClassMemory
from sfumato.types import Batch, Context, Networks, Output, Progress, Pseudo, Target, Views


class Alignment(Extra):
    """psi mean H(q, softmax of the strong view's resemblance), and the memory of labeled features.

    Args:
        num_classes: C.
        memory: features of each class that are kept.
        temperature: T_proto.
        start: share of training without the loss.
        weight: psi.
    """

    name = "daso"
    labels_only = True

    def __init__(self, num_classes: int, *, memory: int, temperature: float, start: float, weight: float) -> None:
        super().__init__()
        self.num_classes, self.size = num_classes, memory
        self.temperature, self.start, self.weight = temperature, start, weight
        self.memory: ClassMemory | None = None
        self.progress = Progress(0, 1)  # of the batch observed last; no memory

    def attach(self, net: nn.Module) -> None:
        self.memory = ClassMemory(self.num_classes, size=self.size, dim=cast(int, net.num_features), raw=True)

    @property
    def prototypes(self) -> Tensor:
        """(C, D)."""
        return attached(self.memory, "daso").means

    def started(self, progress: Progress) -> bool:
        return progress.step >= round(self.start * progress.steps)

    def resembles(self, out: Output, like: Tensor) -> Tensor:
        """Logits (N, C) by the prototypes."""
        return resemblance(features_of(out, like, "daso"), self.prototypes, self.temperature)

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.progress = context.progress

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        u, loss = batch.unlabeled, views.labeled.logits.new_zeros(())
        if u is not None and views.weak is not None and self.started(self.progress) and views.strong:
            valid = u.valid
            similar = probability(self.resembles(views.weak, valid).detach())
            charges = []
            for strong, warp in zip(views.strong, u.warps, strict=True):
                warped = warp(Pseudo(similar, valid, valid))
                charges.append(mean(cross_entropy(self.resembles(strong, valid), warped.target), over=warped.valid))
            loss = self.weight * torch.stack(charges).mean()
        self._remember(views.labeled, batch, nets)
        return loss

    @torch.no_grad()
    def _remember(self, out: Output, batch: Batch, nets: Networks) -> None:
        labeled = batch.labeled
        if nets.momentum(self.progress.step) > 0:
            out = nets.average(labeled.x)
        known = labeled.valid > 0
        members = one_hot(labeled.y.masked_fill(~known, 0), self.num_classes).bool() & known.unsqueeze(1)
        features = features_of(out, labeled.y, "daso").detach().float()
        attached(self.memory, "daso").observe(features, members, labeled.draw("daso", 1)[:, 0])


class Blended(Targeter):
    """Another rule's targets of p', of the images that were observed last.

    Args:
        target: makes the target of a row.
        alignment: holds the prototypes and says when to begin.
        num_classes: C.
        window: steps of which targets are counted, before the counts are replaced by those of the next ones.
        temperature: T_dist.
    """

    def __init__(
        self, target: Targeter, alignment: Alignment, num_classes: int, *, window: int, temperature: float
    ) -> None:
        super().__init__()
        self.target, self.num_classes, self.temperature = target, num_classes, temperature
        self._alignment = (alignment,)  # in a tuple: its state is saved where its loss is
        self.counts = BlockCounts(num_classes, length=window)
        self.similar: Tensor | None = None  # q (N, C) of the batch observed last, once begun; no memory
        self.share = torch.zeros(num_classes)  # v (C,), as counted before it

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        alignment = self._alignment[0]
        self.similar = None
        if alignment.started(context.progress):
            weak = Output(p if context.logits is None else context.logits, context.features)
            self.similar = probability(alignment.resembles(weak, valid))
        self.counts.begin(context.progress.step)
        self.share = heed(self.counts.value, self.temperature)
        blended = self._blended(p)
        self.counts.observe(class_counts(blended.argmax(dim=1), self.num_classes, valid.to(p.dtype)))
        self.target.observe(blended, valid, context)

    def forward(self, p: Tensor) -> Target:
        target: Target = self.target(self._blended(p))
        return target

    def _blended(self, p: Tensor) -> Tensor:
        if self.similar is None:
            return p
        return blend(p, self.similar, self.share)


def daso(
    method: Method,
    num_classes: int,
    dense: bool = False,
    *,
    temperature: float = 0.05,
    heed_temperature: float = 1.5,
    memory: int = 256,
    window: int = 100,
    start: float = 0.02,
    weight: float = 1.0,
) -> None:
    """Blend the method's targets, and align strong views with weak ones.

    Args:
        method: whose targets they are.
        num_classes, dense: of the problem.
        temperature: T_proto, of the cosines.
        heed_temperature: T_dist; the higher, the more resemblance decides for rare classes too.
        memory: labeled features of each class that are kept.
        window: steps over which targets are counted.
        start: share of training before it begins (5,120 of 2^18 steps).
        weight: psi.

    Raises:
        UsageError: labels are maps, pseudo-labels are made of labeled images too, or a number is out of range.
    """
    if dense:
        raise UsageError(
            "daso is for one class per image only: its features are of whole images. For masks take farcluss or u2pl, "
            "which compare the features of pixels with those of classes."
        )
    if not (temperature > 0 and heed_temperature > 0):
        raise UsageError(
            f"daso(temperature={temperature}, heed_temperature={heed_temperature}): expected numbers above 0, such as "
            "0.05 and 1.5."
        )
    if memory < 1 or window < 1:
        raise UsageError(f"daso(memory={memory}, window={window}): expected at least 1 of each.")
    if not 0 <= start <= 1:
        raise UsageError(f"daso(start={start}): expected a share of training, 0 to 1.")
    check_own_images("daso", method)
    family = cast(Consistency, method)
    alignment = Alignment(num_classes, memory=memory, temperature=temperature, start=start, weight=weight)
    family.target = Blended(family.target, alignment, num_classes, window=window, temperature=heed_temperature)
    gated_as_predicted(family)
    family.extras.append(alignment)

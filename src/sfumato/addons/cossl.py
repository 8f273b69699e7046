"""CoSSL: a second last layer that is taught by balanced, enhanced features, and teaches the network in turn.

Fan, Dai, Kukleva and Schiele 2022 (arXiv:2112.04564). Labeled features are drawn alike often of each class, and those
of rare classes are enhanced by unlabeled ones (TFE):

    f~ = l f(x_y) + (1 - l) f(u),  l ~ U(mu, 1),  with probability (n_max - n_y) / n_max, else f(x_y)
    L_head = mean CE(h(f~), y), whose gradient stops at the features

h is the second layer. Once it is trained, from a share of training on, its predictions for the weak views are what the
method makes its pseudo-labels of, and the network that is evaluated and kept ends in it.

Simpler than the paper, which resumes from a network trained to the end, trains a first h on frozen features for some
epochs, and then reads two further batches a step for it. Here h learns in the step itself, from the first step on:
features are those that the step has computed anyway, labeled ones are drawn from the last ones of each class, which is
the class-balanced sampler, and the optimizer is the network's. In USB the mixing never fires: the class is the argmax
of a single number, which is 0, the largest class; and its pseudo-labels stay those of the first layer.

How often a labeled feature is drawn and enhanced is by the labels' counts, since the layer learns from labels alone:
there is no prior of the unlabeled set to choose.

In a warm start, without unlabeled images, it learns too, and nothing is mixed.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from sfumato.addons.own_images import check_own_images
from sfumato.distributed import gather_batch
from sfumato.errors import UsageError
from sfumato.functional.balance import shortfall
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import one_hot, probability
from sfumato.functional.reduce import mean
from sfumato.methods import Consistency, Method
from sfumato.rules import DistributionAlignment, Extra, LossThreshold, Refiner, RelativeThreshold, Then
from sfumato.rules.base import attached, features_of, with_output
from sfumato.rules.prior import label_shares
from sfumato.running.class_memory import ClassMemory
from sfumato.running.second_head import SecondHead
from sfumato.types import Batch, Context, Labeled, Networks, Output, Progress, Pseudo, Unlabeled, Views


class TeacherHead(Extra):
    """L_head; the layer, the features it learns from, and its place in what is deployed.

    Args:
        num_classes: C.
        label_counts: labels of each class.
        memory: labeled features of each class that are kept.
        mu: the least share of the labeled feature in a mixture.
        start: share of training before the layer is used.
        taught: the weak view is the teacher's: its features go through the average of the layer.

    Buffer: `used`, whether it is.
    """

    name = "cossl"
    labels_only = True
    chance: Tensor  # (C,) that a feature is enhanced
    used: Tensor  # () bool

    def __init__(
        self,
        num_classes: int,
        label_counts: tuple[int, ...],
        *,
        memory: int,
        mu: float,
        start: float,
        taught: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.size, self.mu, self.start, self.taught = num_classes, memory, mu, start, taught
        self.register_buffer("chance", shortfall(label_shares(num_classes, label_counts)), persistent=False)
        self.register_buffer("used", torch.zeros((), dtype=torch.bool))
        self.second: SecondHead | None = None
        self.memory: ClassMemory | None = None
        self.progress = Progress(0, 1)  # of the batch observed last; no memory

    def attach(self, net: nn.Module) -> None:
        self.second = SecondHead(net, self.num_classes, dense=False)
        self.memory = ClassMemory(self.num_classes, size=self.size, dim=cast(int, net.num_features), raw=True)

    def deployed(self, net: nn.Module) -> nn.Module:
        return with_output(net, attached(self.second, "cossl").deployed()) if bool(self.used) else net

    def deployed_student(self, net: nn.Module) -> nn.Module:
        return with_output(net, attached(self.second, "cossl").head) if bool(self.used) else net

    def predicts(self, features: Tensor, step: int) -> Tensor:
        """Probabilities (N, C) of the weak view's features (N, D) in this step."""
        head = attached(self.second, "cossl")
        head.follow(step)  # as the teacher that gave the features has
        return probability(head.average(features) if self.taught else head(features).detach())

    def started(self, progress: Progress) -> bool:
        return progress.step >= round(self.start * progress.steps)

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.progress = context.progress
        self.used.fill_(self.started(context.progress))

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        head = attached(self.second, "cossl")
        head.follow(self.progress.step, nets.momentum(self.progress.step))
        with torch.no_grad():
            self._remember(features_of(views.labeled, batch.labeled.y, "cossl"), batch.labeled)
            features, label, there = attached(self.memory, "cossl").drawn(batch.labeled.draw("cossl samples", 2))
            if batch.unlabeled is not None and views.weak is not None:
                others = features_of(views.weak, batch.unlabeled.valid, "cossl").to(features.dtype)
                features = self._enhanced(features, label, self._shuffled(others, batch.unlabeled), batch.labeled)
        return mean(cross_entropy(head(features), label), over=there.to(features.dtype))

    def _remember(self, features: Tensor, labeled: Labeled) -> None:
        known = labeled.valid > 0
        members = one_hot(labeled.y.masked_fill(~known, 0), self.num_classes).bool() & known.unsqueeze(1)
        memory = attached(self.memory, "cossl")
        memory.observe(features.float(), members, labeled.draw("cossl memory", 1)[:, 0])

    def _shuffled(self, others: Tensor, u: Unlabeled) -> tuple[Tensor, Tensor]:
        """Unlabeled features of all ranks by numbers of their own, whatever their order, and how many are valid."""
        there = gather_batch(u.valid) > 0
        keys = gather_batch(u.draw("cossl order", 1)[:, 0]).masked_fill(~there, torch.inf)
        return gather_batch(others)[keys.argsort(stable=True)], there.sum()

    def _enhanced(self, features: Tensor, label: Tensor, others: tuple[Tensor, Tensor], labeled: Labeled) -> Tensor:
        """Features (M, D) of classes (M,), mixed with unlabeled ones by the chance of their class."""
        fires, share, which = labeled.draw("cossl mixing", 3).unbind(1)
        partner = others[0][(which.double() * others[1]).long()]
        keep = self.mu + (1 - self.mu) * share
        mixed = (fires < self.chance[label]) & (others[1] > 0)
        return torch.where(mixed.unsqueeze(1), torch.lerp(partner, features, keep.unsqueeze(1).to(features)), features)


class TeacherPredictions(Refiner):
    """What the second layer predicts for the images observed last, in the place of p once it is used."""

    def __init__(self, teacher: TeacherHead) -> None:
        super().__init__()
        self._teacher = (teacher,)  # in a tuple: its state is saved where its loss is
        self.predicted: Tensor | None = None  # (N, C) of the batch observed last; no memory

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        teacher = self._teacher[0]
        self.predicted = None
        if teacher.started(context.progress):
            out = Output(p if context.logits is None else context.logits, context.features)
            self.predicted = teacher.predicts(features_of(out, valid, "cossl"), context.progress.step)

    def forward(self, p: Tensor) -> Tensor:
        return p if self.predicted is None else self.predicted.to(p.dtype)


def cossl(
    method: Method,
    num_classes: int,
    label_counts: tuple[int, ...],
    dense: bool = False,
    *,
    start: float = 0.8,
    mu: float = 0.6,
    memory: int = 64,
) -> None:
    """Let a second layer learn from balanced features, predict what pseudo-labels are made of, and be deployed.

    Args:
        method: whose pseudo-labels they are.
        num_classes, label_counts, dense: of the problem.
        start: share of training before the second layer is used (400 of 500 epochs).
        mu: the least share of the labeled feature in a mixture; 1 mixes nothing.
        memory: labeled features of each class that are kept, the last ones.

    Raises:
        UsageError: labels are maps, pseudo-labels are made of labeled images too or compared with predictions for them,
            or a number is out of range.
    """
    if dense:
        raise UsageError(
            "cossl is for one class per image only: it balances and mixes features of whole images, and a mask holds "
            "pixels of many classes. For masks take abc."
        )
    if not 0 <= mu <= 1 or not 0 <= start <= 1:
        raise UsageError(f"cossl(mu={mu}, start={start}): expected shares, 0 to 1.")
    if memory < 1:
        raise UsageError(f"cossl(memory={memory}): expected at least 1 feature of each class.")
    check_own_images("cossl", method)
    if any(_compares(rule) for rule in method.modules()):
        raise UsageError(
            "addon=cossl does not fit methods that compare pseudo-labels with predictions for labeled images, as "
            "adamatch and dash do: those are of the first layer, and pseudo-labels of the second, which is balanced. "
            "Take a method that does not, such as fixmatch, freematch or softmatch."
        )
    family = cast(Consistency, method)
    taught = method.views.teacher == "ema"
    teacher = TeacherHead(num_classes, label_counts, memory=memory, mu=mu, start=start, taught=taught)
    family.refine = Then(TeacherPredictions(teacher), family.refine)
    family.extras.append(teacher)


def _compares(rule: nn.Module) -> bool:
    aligned = isinstance(rule, DistributionAlignment) and rule.target == "model"
    return aligned or isinstance(rule, LossThreshold | RelativeThreshold)

"""ABC, the auxiliary balanced classifier: a second last layer that sees all classes equally often.

It reads the same features as the first and is charged for as many samples of each class, whose gradient shapes the
features too; the method trains on as ever, on all samples. Lee, Shin and Kim 2021 (arXiv:2110.10368):

    b_c = n_min / n_c,                     n_c labels of class c
    L_x = mean M_x CE(z(x), y),            M_x ~ Bernoulli(b_y)
    L_u = sum_k mean M_u 1[max q >= tau] H(q, z(A_k(u))),  q = softmax z(weak)
                                           M_u ~ Bernoulli(1 - t (1 - b_argmax q)), t from 0 to 1 in training

with z the second layer's logits and A_k the strong views that the method has. The network that is evaluated and kept
ends in the second layer. M_x is by the labels' counts always. M_u is to leave as many pseudo-labels of each class: its
b_c is of the labels in the paper and may be of another prior of the unlabeled set.

The target is q itself, as printed: the layer is not to be made surer than it is. USB's is the most probable class, and
its b_c is not a number where a class has no label; here such a class counts as the rarest.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.addons.unlabeled_prior import shown
from sfumato.errors import UsageError, check_choice
from sfumato.functional.balance import keep_chance
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import confidence, probability
from sfumato.functional.reduce import weighted_mean
from sfumato.methods import Method
from sfumato.rules import Prior
from sfumato.rules.base import Extra, attached, features_of, with_output
from sfumato.rules.prior import Borrowed, Source, label_shares
from sfumato.running.second_head import SecondHead
from sfumato.types import Batch, Context, Draw, Labeled, Networks, Output, Progress, Pseudo, Unlabeled, Views


class BalancedHead(Extra):
    """The loss of the second layer, and the layer in the place of the first in what is deployed.

    Args:
        num_classes: C.
        label_counts: labels of each class, samples or pixels.
        prior: the classes' shares of the unlabeled set; None: those of the labels.
        dense: labels are maps.
        threshold: tau.
        target: "soft", q; "hard", its most probable class (USB).
        weight: of the loss.
        taught: the weak view is the teacher's: its features go through the average of the second layer.
    """

    name = "abc"
    labels_only = True
    chance: Tensor  # (C,) b of the labels

    def __init__(
        self,
        num_classes: int,
        label_counts: tuple[int, ...],
        *,
        prior: Prior | Borrowed | None = None,
        dense: bool = False,
        threshold: float = 0.95,
        target: Literal["soft", "hard"] = "soft",
        weight: float = 1.0,
        taught: bool = False,
    ) -> None:
        super().__init__()
        check_choice("abc", "target", target, ("soft", "hard"))
        if not 0 <= threshold <= 1:
            raise UsageError(f"abc(threshold={threshold}): expected a probability, 0 to 1; 0 takes all.")
        self.num_classes, self.dense = num_classes, dense
        self.threshold, self.soft, self.weight, self.taught = threshold, target == "soft", weight, taught
        self.register_buffer("chance", keep_chance(label_shares(num_classes, label_counts)), persistent=False)
        self.prior = prior or Prior(num_classes, label_counts)
        self.second: SecondHead | None = None
        self.progress = Progress(0, 1)  # of the batch observed last; no memory

    def attach(self, net: nn.Module) -> None:
        self.second = SecondHead(net, self.num_classes, dense=self.dense)

    def deployed(self, net: nn.Module) -> nn.Module:
        head = attached(self.second, "abc")
        return with_output(net, head.deployed()) if head.trained else net

    def deployed_student(self, net: nn.Module) -> nn.Module:
        head = attached(self.second, "abc")
        return with_output(net, head.head) if head.trained else net

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.progress = context.progress

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        head = attached(self.second, "abc")
        head.follow(self.progress.step, nets.momentum(self.progress.step))
        loss = self._of_labeled(head, views.labeled, batch.labeled)
        if batch.unlabeled is not None and views.weak is not None:
            own = self._pseudo(head, views.weak, batch.unlabeled)
            for strong, warp in zip(views.strong, batch.unlabeled.warps, strict=True):
                warped = warp(own)
                z = head(features_of(strong, warped.valid, "abc"), tuple(warped.valid.shape[1:]))
                loss = loss + weighted_mean(cross_entropy(z, warped.target), warped.weight, over=warped.valid)
        return self.weight * loss

    def _of_labeled(self, head: SecondHead, out: Output, labeled: Labeled) -> Tensor:
        y = labeled.y.masked_fill(labeled.valid == 0, 0)
        z = head(features_of(out, y, "abc"), tuple(y.shape[1:]))
        kept = drawn_below(self.chance[y], labeled.draw, "abc")
        return weighted_mean(cross_entropy(z, y), kept, over=labeled.valid)

    @torch.no_grad()
    def _pseudo(self, head: SecondHead, weak: Output, u: Unlabeled) -> Pseudo:
        space = tuple(u.valid.shape[1:])
        features = features_of(weak, u.valid, "abc").detach()
        q = probability(head.average(features, space) if self.taught else head(features, space))
        top, label = confidence(q)
        chance = 1 - self.progress.fraction * (1 - keep_chance(self.prior.value)[label])
        weight = (top >= self.threshold) * drawn_below(chance, u.draw, "abc")
        return Pseudo(q if self.soft else label, weight, u.valid)


def drawn_below(chance: Tensor, draw: Draw, purpose: str) -> Tensor:
    """1 with the chance (N, *S) of each entry, else 0."""
    uniform = draw(purpose, chance[0].numel() if len(chance) else 1)
    return (uniform.view_as(chance) < chance).to(chance.dtype)


def abc(
    method: Method,
    num_classes: int,
    label_counts: tuple[int, ...],
    dense: bool = False,
    *,
    threshold: float = 0.95,
    target: Literal["soft", "hard"] = "soft",
    weight: float = 1.0,
    prior: Source = "labeled",
    momentum: float = 0.999,
) -> None:
    """Add the second layer, its loss, and its place in what is deployed.

    Args:
        method: what it is added to; a method of labels only has the labeled loss alone.
        num_classes, label_counts, dense: of the problem.
        threshold: pseudo-labels count from this confidence of the second layer on.
        target: the second layer's prediction for the weak view ("soft"), or its most probable class ("hard", USB).
        weight: of the loss.
        prior: of the unlabeled set, by which pseudo-labels are drawn: "labeled" is the paper; the others are those of
            `logit_adjustment`.
        momentum: of a prior that is learned.

    Raises:
        UsageError: a number out of range, counts that are not those of the classes, or a prior that is none.
    """
    taught = method.views.teacher == "ema"
    method.extras.append(
        BalancedHead(
            num_classes,
            label_counts,
            prior=shown(method, Prior(num_classes, label_counts, prior, momentum=momentum)),
            dense=dense,
            threshold=threshold,
            target=target,
            weight=weight,
            taught=taught,
        )
    )

"""FARCLUSS: fuzzy labels, entropy weights, classes evened out, and prototypes.

With p the teacher's prediction on the weak view, q the student's on either of two strong views that share the label:

    f = top-K of p, renormalised;  W = 1 - e, e the normalised entropy of p                            (eq. 2-3, 5-6)
    w_c = median(F) / F_c, F_c how many predictions of the batch are c                                        (eq. 7)
    L_u = mean W w_c* KL(f || q), c* the first class of f                                                  (eq. 4, 8)
    L_con = mean_c mean_{i in P_c} (1 - cos(feature, prototype_c)), P_c: of class c with W > 0.5           (eq. 9-10)
    L = L_s + 0.5 L_u + 0.1 L_con                                                                           (eq. 11)

Literal and safe. As printed, the median is over all classes: it is 0 as soon as half of them are absent from the batch,
and so is L_u; this is `rebalance="literal"`. The default takes the median over the classes present, limits the weights
and divides by their mean. As printed in eq. 8, the weight of a class stands inside the sum over the classes, which is
no divergence: it may be negative, and is least at q ~ w f, not at q = f; this is `rebalance_scope="per_class"`.
In the paper a projection to 128 values, trained beside the student, makes of the network's features those that are
drawn to prototypes; this is `projection=128`. The default takes the network's own, and has nothing to train.
The teacher is the average of the weights with momentum 0.99, which is `train.ema`.
"""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import UsageError, check_choice
from sfumato.functional.divergence import cross_entropy, kl
from sfumato.functional.probability import safe_log
from sfumato.methods.consistency import Consistency
from sfumato.rules import (
    ClassRebalance,
    EntropyLimit,
    OneMinusEntropy,
    PrototypeAttraction,
    TopK,
    Weigher,
)
from sfumato.types import Context, Sparse, Target, ViewSpec

Rebalance = Literal["safe", "safe_ema", "expected", "literal", "none"]
Normalize = Literal["valid", "selected", "all", "weight_sum", "elements"]


class CountsOnly(Weigher):
    """Lets a `ClassRebalance` see the batch, and weighs nothing: its weights are read elsewhere."""

    def __init__(self, rebalance: ClassRebalance) -> None:
        super().__init__()
        self.rebalance = rebalance

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.rebalance.observe(p, valid, context)

    def forward(self, p: Tensor) -> Tensor:
        return torch.ones_like(p[:, 0])


class PerClassDivergence:
    """sum_c w_c f_c log(f_c / q_c), eq. 8 to the letter."""

    def __init__(self, rebalance: ClassRebalance) -> None:
        self.rebalance = rebalance

    def __call__(self, logits: Tensor, target: Target) -> Tensor:
        assert isinstance(target, Sparse)
        weighted = target.share * self.rebalance.weights.to(target.share.dtype)[target.labels]
        fixed = (weighted * safe_log(target.share)).sum(dim=1)
        return fixed + cross_entropy(logits, Sparse(target.labels, weighted))


def farcluss(
    num_classes: int,
    *,
    k: int = 2,
    rebalance: Rebalance = "safe",
    rebalance_scope: Literal["argmax", "per_class"] = "argmax",
    entropy_gate: float | None = None,
    normalize: Normalize = "valid",
    proto_grad: Literal["detached", "literal"] = "detached",
    proto_repulsion: Literal["off", "infonce"] = "off",
    projection: int | None = None,
    lambda_u: float = 0.5,
    lambda_proto: float = 0.1,
    labeled_strong: bool = False,
) -> Consistency:
    """The method as a choice of rules.

    Args:
        num_classes: C.
        k: K, classes of a fuzzy label.
        rebalance: w; "safe_ema" averages the counts over batches, "expected" takes the mean of w under f.
        rebalance_scope: whether w weighs the prediction or, as printed, each class inside the divergence.
        entropy_gate: drop predictions above this normalised entropy; the text names 0.7 without a use for it.
        normalize: what divides L_u: the valid predictions, the selected ones, all, the sum of the weights, or as in
            the pseudocode all elements, C times as many as there are predictions.
        proto_grad: "literal" lets the gradient through the prototypes.
        proto_repulsion: "infonce" drives features from the prototypes of other classes too.
        projection: draw to prototypes a projection of the features to so many values, 128 in the paper; none for the
            network's own features.
        lambda_u: weight of L_u.
        lambda_proto: weight of L_con.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: an unknown name, K beyond 1 to C, or options that exclude each other.
    """
    check_choice("farcluss", "rebalance", rebalance, get_args(Rebalance))
    check_choice("farcluss", "rebalance_scope", rebalance_scope, ("argmax", "per_class"))
    check_choice("farcluss", "normalize", normalize, get_args(Normalize))
    if not 1 <= k <= num_classes:
        raise UsageError(f"farcluss(k={k}): expected 1 to {num_classes}, the number of classes.")
    weigh: Weigher = OneMinusEntropy()
    divergence = kl
    if entropy_gate is not None:
        weigh = weigh * EntropyLimit(entropy_gate)
    if rebalance != "none":
        counted = ClassRebalance(num_classes, reading=rebalance, k=k)
        weigh = weigh * (CountsOnly(counted) if rebalance_scope == "per_class" else counted)
    if rebalance_scope == "per_class":
        if rebalance in ("none", "expected"):
            raise UsageError("farcluss(rebalance_scope='per_class') needs rebalance='literal', 'safe' or 'safe_ema'.")
        warnings.warn(
            "farcluss(rebalance_scope='per_class') is eq. 8 as printed: no divergence, it may be negative and is least "
            "at a label that the weights have changed. 'argmax' weighs each prediction instead.",
            stacklevel=2,
        )
        divergence = PerClassDivergence(counted)
    return Consistency(
        weigh=weigh,
        target=TopK(k),
        divergence=divergence,
        lambda_u=lambda_u / num_classes if normalize == "elements" else lambda_u,
        views=ViewSpec(strong=2, teacher="ema", labeled_strong=labeled_strong),
        extra=PrototypeAttraction(
            num_classes,
            weight=lambda_proto,
            proto_grad=proto_grad,
            proto_repulsion=proto_repulsion,
            projection=projection,
        ),
        normalize="all" if normalize == "elements" else normalize,
    )

"""CReST and CReST+ (Wei et al. 2021, arXiv:2102.09559): pseudo-labels rebalance the labeled set, again and again.

The method is trained in generations, each from scratch on `train.steps`. After each its network, the averaged one where
there is an average, labels all unlabeled images as they are, and the surest of each class join the labeled set of the
next: of the class of rank r by labeled frequency, the first being 0, the share

    mu_r = (n_{C-1-r} / n_0)^(1 / alpha)

of those labeled so, since labels of rare classes are the more often right. Rank and share are by the labels' counts
always: it is the labeled set that is rebalanced. Those that join stay among the unlabeled images, and are picked anew
after each generation. CReST+ aligns the predictions in training with the labels' shares to the power

    t_g = (1 - (g - 1) / (G - 1)) + (g - 1) / (G - 1) t_min

in generation g of G, renormalized, or with another prior where the unlabeled set is not balanced as the labels are. The
average prediction that this takes is that of the generation alone. The peer's six generations have a quarter of the
steps of its other methods each: `recipe=long_tail train.steps=65536`. A class without labels counts as the rarest of
the others.

The released code takes the number of a class for its rank (`rates="official"`), which is the same only where classes
are sorted by frequency, and idealizes the counts to a geometric tail, as `rates="rank"` does by rank. A peer labels
randomly augmented images, and forgets which have joined when it is resumed; here they are in a file.
"""

from __future__ import annotations

from typing import Literal, cast

from sfumato.addons.unlabeled_prior import shown
from sfumato.errors import UsageError
from sfumato.functional.selection import Rates
from sfumato.methods import Consistency, Method
from sfumato.rules import Prior, ProgressiveAlignment, Then
from sfumato.rules.picking import RarestFirst
from sfumato.rules.prior import label_shares
from sfumato.types import Generations


def crest(method: Method, dense: bool, *, generations: int = 6, alpha: float = 3.0, rates: Rates = "counts") -> None:
    """Train in generations, between which pseudo-labels join the labeled set, most of all those of rare classes.

    Args:
        method: one that sees unlabeled images, of which the labels are made.
        dense: labels are maps, which this add-on has no use for.
        generations: trainings in all.
        alpha: the inverse of the paper's exponent: the larger, the more of the frequent classes joins.
        rates: "counts" by the labeled counts; "rank" and "official" by their geometric tail, the latter by the number
            of the class.

    Raises:
        UsageError: maps of labels, a method of labels alone or with rounds of its own, or a value out of range.
    """
    _enter("crest", method, dense, Generations(_checked("crest", generations, alpha), RarestFirst(alpha, rates)))


def crest_plus(
    method: Method,
    num_classes: int,
    label_counts: tuple[int, ...],
    dense: bool,
    *,
    generations: int = 6,
    alpha: float = 3.0,
    t_min: float = 0.5,
    prior: Literal["labeled", "estimated"] | tuple[float, ...] = "labeled",
    momentum: float = 0.999,
    rates: Rates = "counts",
) -> None:
    """CReST with predictions that are aligned with a class prior, less and less from generation to generation.

    Args:
        method: one that sees unlabeled images, and whose correction of predictions the alignment follows.
        num_classes, label_counts: C, and how many labels each class has.
        dense: labels are maps, which this add-on has no use for.
        generations: trainings in all.
        alpha: the inverse of the paper's exponent: the larger, the more of the frequent classes joins.
        t_min: power of the prior in the last generation; 1 in the first.
        prior: the target: the shares of the labels, as they were before any joined, those estimated for the unlabeled
            set, or one number a class.
        momentum: of the average of predictions, and of an estimated prior.
        rates: "counts" by the labeled counts; "rank" and "official" by their geometric tail, the latter by the number
            of the class.

    Raises:
        UsageError: maps of labels, a method of labels alone or with rounds of its own, a value out of range, or a
            prior that is none.
    """
    if not 0 <= t_min <= 1:
        raise UsageError(f"crest_plus.t_min={t_min}: expected a power from 0 (even shares) to 1 (the prior itself).")
    count = _checked("crest_plus", generations, alpha)
    _enter("crest_plus", method, dense, Generations(count, RarestFirst(alpha, rates), last_power=t_min))
    family = cast(Consistency, method)
    if prior == "labeled":
        alignment = ProgressiveAlignment(num_classes, label_shares(num_classes, label_counts), momentum=momentum)
    else:
        target = shown(method, Prior(num_classes, label_counts, prior, momentum=momentum))
        alignment = ProgressiveAlignment(num_classes, target, momentum=momentum)
    family.refine = Then(family.refine, alignment)


def _checked(name: str, generations: int, alpha: float) -> int:
    if generations < 2:
        raise UsageError(f"{name}.generations={generations}: expected 2 or more; with one, the method does without it.")
    if not alpha > 0:
        raise UsageError(f"{name}.alpha={alpha}: expected a number above 0, such as 3; the larger, the more joins.")
    return generations


def _enter(name: str, method: Method, dense: bool, plan: Generations) -> None:
    if dense:
        raise UsageError(f"addon={name} is for one class per image only: whole images join the labeled set.")
    if method.rounds is not None:
        raise UsageError(
            f"addon={name} trains the method in generations, and this method has rounds of its own. It fits methods "
            "that train once, such as fixmatch."
        )
    if not method.views.weak:
        raise UsageError(
            f"addon={name} is for methods that see unlabeled images, such as fixmatch. For a method of labels alone, "
            "method=self_training lets images join the labeled set."
        )
    method.rounds = plan

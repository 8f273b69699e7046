"""SEVAL (Li et al. 2024): class offsets and thresholds learned from held-out labels.

For methods whose pseudo-labels are predictions, corrected and weighed by rules. Those that make them otherwise, of two
networks or of whole batches (cps, csl, augseg, u2pl, mixmatch and remixmatch), have no place for it.

With z the weak view's logits, b = log pi the offsets and tau the thresholds:

    b* = argmin_b mean_c mean_{i in c} CE(softmax(z_i - b), y_i) + r/2 |b|^2      on held-out samples, by Newton
    p = softmax(z - b)                                                            refined; its argmax is the label
    tau_c* = the least tau at which those predicted c with max p >= tau are right at a rate of t, 0 if all are
    b, tau: averages over the evaluations of b*, tau*
    L_u = mean(1[max p >= tau_label] CE(q, label))                                q the strong view's, not refined

pi is large for classes that are predicted too often, and tau is low for those whose predictions are right as it is, so
that classes with few labels are neither forgotten nor taught wrongly. The offsets are of mean 0 over the classes that
are held out, and 0 for others; the network that is evaluated and kept has them in the bias of its last layer.

The authors' code searches tau by a simplex that stalls where it starts, averages pi and tau from 1 and 0.95 with a
weight of 0.999, of which 61 % of the start remain after 500 evaluations, raises every rare class like the one that is
raised most, and lets all its pseudo-labels pass. Its choices are options: `tau_rule="official_nm"`,
`ema_space="arithmetic_official"` with `decay`, `rare_rule="official_min"` and `pi_solver="nelder_mead_official"`.

Held-out labels are those of the validation split or, with `val`, half of the training labels.

A correction of the method's own, such as CoMatch's alignment, is of the refined predictions. Dash's limit is replaced
and its warm-up with it: pseudo-labels count from the first step on, by the thresholds, which begin at 0.95.
"""

from __future__ import annotations

from typing import Literal, cast

from sfumato.errors import UsageError
from sfumato.methods.base import HeldLabels, Method
from sfumato.methods.consistency import Consistency
from sfumato.methods.gated_divergence import ungated
from sfumato.rules import (
    Aligned,
    ClassCurriculum,
    FixedThreshold,
    LossThreshold,
    NoRefinement,
    PeakThreshold,
    Product,
    RelativeThreshold,
    SelfAdaptiveThreshold,
    Weigher,
)
from sfumato.rules.offset import ClassOffset, ClassThreshold, OffsetFirst, instead
from sfumato.running.curriculum import Average, Curriculum, OffsetSearch, Rare, ThresholdSearch

THRESHOLDS = (
    ClassCurriculum, FixedThreshold, LossThreshold, PeakThreshold, RelativeThreshold, SelfAdaptiveThreshold
)  # fmt: skip
"""The rules that keep a pseudo-label or drop it by a threshold, in whose place others can stand."""


def seval(
    method: Method,
    num_classes: int,
    *,
    target_precision: float = 0.75,
    val: HeldLabels = "extra",
    thresholds: Literal["auto", "replace", "multiply", "none"] = "auto",
    test_refine: Literal["none", "ema", "current"] = "ema",
    decay: float | None = None,
    ridge: float = 0.01,
    fade: int | None = None,
    tau_rule: Literal["first_reaching", "argmin_gap", "official_nm"] = "first_reaching",
    tau_groups: int | None = None,
    balanced: bool = True,
    pi_limit: float = 30.0,
    pi_solver: Literal["newton", "nelder_mead_official"] = "newton",
    ema_space: Average = "log_debiased",
    rare_rule: Rare = "neutral",
) -> None:
    """Refine the method's predictions by the learned offsets, and keep them by the learned thresholds.

    Args:
        method: one that has predictions to refine and weighs them.
        num_classes: C.
        target_precision: t.
        val: whose labels teach. "extra": the validation split's. "split_online": half of the training labels of each
            class, which are then not trained on. "split_estimate", the paper's: that, only to record what is learned;
            then a second training, on all labels, by the record.
        thresholds: "replace" the method's weights, "multiply" them, or "none" at all; "auto" replaces thresholds of the
            method's own and multiplies all else, such as the weights of softmatch. The gate of uncertainty_weighted
            is replaced by both.
        test_refine: what the network that is evaluated and kept is refined by: the averages, the last offsets, nothing.
        decay: weight of the old value in the averages; by default 0.9 for 100 evaluations and more from there on. Less,
            such as 0.5, where there are few evaluations and the network changes much between them.
        ridge: r, which keeps offsets of classes with few samples small.
        fade: samples at which the ridge is r; with K of them it is r fade / K. None: always r.
        tau_rule: the least threshold that reaches t with at least 5 samples and 2 % of them, or the one that comes
            nearest; "official_nm": what the authors' search stops at.
        tau_groups: so many groups of classes of similar frequency share a threshold. None: classes with fewer than 10
            held-out samples do.
        balanced: held-out samples weigh 1 / frequency of their class in the precision.
        pi_limit: no offset makes a class more than so many times likelier or less likely.
        pi_solver: "nelder_mead_official" finds the same with pi in 0.001 to 3, without ridge, in seconds for 10 classes
            and minutes for 100.
        ema_space: averages of log pi, of which every evaluation counts, or of pi as in the authors' code.
        rare_rule: offsets and thresholds of classes with few held-out samples, or predicted very seldom: as found, and
            of hardly ever predicted ones the threshold of the start; or the least, and 0.

    Raises:
        UsageError: a number out of its range; the last offsets of a first training, of which the averages are kept.
    """
    if val == "split_estimate" and test_refine == "current":
        raise UsageError(
            "seval.test_refine='current' does not go with val='split_estimate': the second training follows the "
            "averages that the first has recorded, and finds no offsets itself. Use test_refine='ema' or 'none', or "
            "val='split_online'."
        )
    curriculum = Curriculum(
        num_classes,
        OffsetSearch(ridge=ridge, fade=fade, limit=pi_limit, solver=pi_solver),
        ThresholdSearch(target_precision, choice=tau_rule, groups=tau_groups, balanced=balanced),
        decay=decay,
        average=ema_space,
        rare=rare_rule,
    )
    offset, own = ClassOffset(curriculum, test_refine=test_refine), cast(Consistency, method)
    own.held_labels = val
    own.refine = offset if isinstance(own.refine, NoRefinement) else OffsetFirst(offset, own.refine)
    mine = ClassThreshold(offset)
    if thresholds in ("auto", "replace"):
        ungated(own)
    if thresholds == "auto":
        own.weigh = _in_place_of_thresholds(own.weigh, mine)
    elif thresholds == "replace":
        own.weigh = instead(own.weigh, mine)
    elif thresholds == "multiply":
        own.weigh = own.weigh * mine


def _in_place_of_thresholds(weigh: Weigher, mine: ClassThreshold) -> Weigher:
    """Thresholds among the factors of `weigh` replaced, and multiplied where there is none."""
    if _is_threshold(weigh):
        return instead(weigh, mine)
    if isinstance(weigh, Product) and _is_threshold(weigh.first):
        return Product(instead(weigh.first, mine), weigh.second)
    if isinstance(weigh, Product) and _is_threshold(weigh.second):
        return Product(weigh.first, instead(weigh.second, mine))
    return weigh * mine


def _is_threshold(weigh: Weigher) -> bool:
    return isinstance(weigh.weigh if isinstance(weigh, Aligned) else weigh, THRESHOLDS)

"""Mean Teacher: the student is to agree with the average of its own weights; CutMix-Seg is the same on mixed images.

With t the teacher's prediction on the weak view, mixed by the boxes of the strong one where there are any, and q the
student's on the strong view:

    L = L_x + lambda_u r(k) mean(c d(q, t))      d: squares of q - t over the classes, their mean or sum; or CE(t, q)

r rises linearly over the first `ramp` of training, as in later implementations, or as in the paper by
exp(-5 (1 - k / ramp)^2). c is 1 (Tarvainen and Valpola 2017, arXiv:1703.01780) or the share of predictions of which the
teacher is sure, one number for the batch (French et al. 2020, arXiv:1906.01916). The teacher is the average of the
weights, `train.ema`.

The paper shows the student a second weak view, as is done here where images have one class. On maps that view would be
the first, mixed at best; there it is a strong one, colors included, and `views.preset=u2pl` mixes and no more, as
CutMix-Seg does. In a peer library the student's prediction was by mistake the teacher's, so that d is 0: its published
rows are those of labels alone.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

from torch import Tensor

from sfumato.errors import check_choice
from sfumato.functional.divergence import Divergence, cross_entropy, mse
from sfumato.methods.consistency import Consistency
from sfumato.rules import All, Coverage, Soft
from sfumato.rules.schedule import Rise, rising
from sfumato.types import Target, ViewSpec

Distance = Literal["mse", "sum_of_squares", "cross_entropy"]


def sum_of_squares(logits: Tensor, target: Target) -> Tensor:
    """sum over the classes of (q - t)^2: its gradient does not fade as classes grow in number."""
    return logits.shape[1] * mse(logits, target)


DISTANCES: dict[str, tuple[Divergence, float]] = {  # with the usual lambda_u
    "mse": (mse, 10.0),
    "sum_of_squares": (sum_of_squares, 1.0),
    "cross_entropy": (cross_entropy, 1.0),
}


def mean_teacher(
    dense: bool = False,
    *,
    divergence: Distance = "mse",
    coverage: float | None = None,
    lambda_u: float | None = None,
    rise: Rise = "linear",
    ramp: float = 0.4,
    student_view: Literal["usual", "weak", "strong"] = "usual",
    normalize: Literal["valid", "all"] = "valid",
    labeled_strong: bool = False,
) -> Consistency:
    """The method as a choice of rules; `cutmix_seg` has the values of CutMix-Seg.

    Args:
        dense: labels are maps.
        divergence: d, to the teacher's probabilities as they are.
        coverage: c is the share of predictions at or above this confidence; none for c = 1.
        lambda_u: none for 10 with "mse" and 1 with the others. The classic benchmarks take 50, at a learning rate of
            0.03, and so do the recipes classic, long_tail and usb: with 0.1 that is too much.
        rise: the ramp's form, "exponential" in the paper.
        ramp: share of training over which lambda_u rises; 0 for a constant one.
        student_view: which view of an image the student sees; "usual" is "weak", as in the paper, and "strong" on maps.
        normalize: what divides the loss: valid predictions, or all, padding too.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: an unknown name, or a coverage that is no probability.
    """
    check_choice("mean_teacher", "divergence", divergence, get_args(Distance))
    check_choice("mean_teacher", "student_view", student_view, ("usual", "weak", "strong"))
    distance, usual = DISTANCES[divergence]
    further: Literal["weak", "strong"] = student_view if student_view != "usual" else "strong" if dense else "weak"
    return Consistency(
        weigh=All() if coverage is None else Coverage(coverage),
        target=Soft(),
        divergence=distance,
        lambda_u=rising(rise, usual if lambda_u is None else lambda_u, over=ramp),
        views=ViewSpec(teacher="ema", further=further, labeled_strong=labeled_strong),
        normalize=normalize,
    )


cutmix_seg = partial(
    mean_teacher, divergence="sum_of_squares", coverage=0.97, ramp=0.0, student_view="strong", normalize="all"
)

"""Does training on pseudo-labels confirm its own mistakes? Judged from held-out predictions, never from test ones.

Two signs. Confident and wrong: the network is sure of much of the held-out data and the labels disagree. Greedy: one
class takes nearly all pseudo-labels although few labels are of it. Either alone is a collapse. Without held-out data
the second is judged by the training labels' shares.

A class with most of the labels, as the ground of a map often is, may take nearly all pseudo-labels for no other reason
than that the network is surest of it. It is greedy only if held-out predictions, sure or not, are nearly all of it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.functional.calibration import valid_entries
from sfumato.functional.probability import class_counts, confidence, probability

SURE = 0.9  # what pseudo-labelling methods commonly trust without a second look
SURE_SHARE = 0.3  # a network sure of less can still change its mind
OVERCONFIDENCE = (
    0.25  # collapses seen on 20 MNIST labels had a calibration error of 0.43 to 0.52, sound runs 0.07 to 0.16
)
FEWEST_SURE = 10  # of fewer, two or three wrong ones by chance would look like a collapse
GREEDY_SHARE = 0.5  # most of all pseudo-labels, whatever the number of classes
GREEDY_RATIO = 3.0  # and far above the class's share of the labels: long-tailed data have large classes honestly
GREEDY_REST = 0.1  # for large classes, where three times is beyond 1: the others keep a tenth of their share
CROWDED_RATIO = 2.0  # named as crowded: a class with twice its share of the labels,
STARVING_RATIO = 1 / 3  # and as starving: one with less than a third
STARVED_COVERAGE = 0.01  # below, the unlabelled loss hardly moves the network
STARVED_AFTER = 0.25  # of training; methods with a fixed threshold legitimately start at 0
_NAMED = 3  # classes listed in a message


@dataclass(frozen=True, slots=True)
class Collapse:
    reason: str  # some sentences: what was seen, which classes, what to try
    sure_share: float  # of held-out predictions with confidence of at least 0.9
    sure_accuracy: float  # agreement of these with the labels; NaN if there are none
    sure_confidence: float  # their mean confidence; NaN if there are none
    crowded: tuple[str, ...]  # classes with far more pseudo-labels than their share, the worst first
    starving: tuple[str, ...]  # classes with far fewer, the worst first


def diagnose(
    logits: Tensor,
    labels: Tensor,
    histogram: Tensor | None,
    classes: Sequence[str],
    *,
    coverage: float = 1.0,
    trained: Tensor | None = None,
) -> Collapse | None:
    """What went wrong, or None while nothing points to a collapse.

    logits: (N, C, *S) of held-out images; labels: (N, *S), negative ones are ignored; histogram: (C,) counts, weights
    or shares of recent pseudo-labels, on any scale, None or all 0 when there are none; classes: C names; coverage:
    share of the unlabelled data with a pseudo-label: below 1 % the histogram is that of a handful and is not judged;
    trained: (C,) how many training labels each class has, which stand in where no image is held out.

    Raises UsageError when shapes do not fit.
    """
    if (
        logits.dim() < 2
        or logits.shape[1] != len(classes)
        or (histogram is not None and len(histogram) != len(classes))
    ):
        taken = "" if histogram is None else f" and a histogram of {len(histogram)}"
        raise UsageError(f"logits of shape {tuple(logits.shape)}{taken} do not fit {len(classes)} classes.")
    p, y = valid_entries(probability(logits.detach()), labels)
    counts, of = class_counts(y, len(classes), torch.ones_like(y, dtype=torch.float64)), "held-out"
    if len(y) == 0:
        if trained is None:
            return None
        counts, of = trained.to(counts), "training"
    sure, held = _Sure.of(p, y), _shares(counts)
    given = None if histogram is None or not bool(histogram.any()) else _shares(histogram.detach().to(held))
    guessed = _shares(class_counts(p.argmax(dim=1), len(classes), torch.ones_like(held[y])))
    greedy = given is not None and coverage >= STARVED_COVERAGE and bool(_greedy(given, guessed, held).any())
    if not (sure.wrong or greedy):
        return None
    if given is None:
        given, what = guessed, "predictions"
    else:
        what = "pseudo-labels"
    crowded = _worst(given - held, given >= CROWDED_RATIO * held)
    starving = _worst(held - given, given < STARVING_RATIO * held)
    seen = [sure.sentence(len(y))] if sure.wrong else []
    seen += _uneven(crowded, starving, given, held, classes, what, of)
    return Collapse(
        " ".join([*seen, REMEDY]),
        sure.share,
        sure.accuracy,
        sure.confidence,
        tuple(classes[c] for c in crowded),
        tuple(classes[c] for c in starving),
    )


@dataclass(frozen=True, slots=True)
class _Sure:
    """The held-out predictions with high confidence."""

    count: int
    share: float
    accuracy: float
    confidence: float

    @classmethod
    def of(cls, p: Tensor, y: Tensor) -> _Sure:
        top, guess = confidence(p)
        sure = top >= SURE
        right, tops = (guess == y)[sure].double(), top[sure].double()
        return cls(int(sure.sum()), float(sure.double().mean()), float(right.mean()), float(tops.mean()))

    @property
    def wrong(self) -> bool:
        many = self.count >= FEWEST_SURE and self.share >= SURE_SHARE
        return many and self.accuracy <= self.confidence - OVERCONFIDENCE

    def sentence(self, n: int) -> str:
        return (
            f"The network is confident and wrong: {_percent(self.share)} of {n:,} held-out predictions claim a "
            f"probability of {_percent(SURE)} or more ({_percent(self.confidence)} on average), but only "
            f"{_percent(self.accuracy)} of these agree with the held-out labels."
        )


def greedy_limit(held: Tensor) -> Tensor:
    """The share of pseudo-labels above which a class is greedy, from its share of held-out labels, (C,) -> (C,)."""
    return torch.minimum(GREEDY_RATIO * held, _limit_of_large(held)).clamp_min(GREEDY_SHARE)


def _limit_of_large(held: Tensor) -> Tensor:
    return 1 - GREEDY_REST * (1 - held)


def _greedy(given: Tensor, guessed: Tensor, held: Tensor) -> Tensor:
    """(C,) whether a class has too many pseudo-labels; `guessed`: its share of the held-out predictions, 0 of none."""
    limit = greedy_limit(held)
    large = GREEDY_RATIO * held > _limit_of_large(held)
    return (given > limit) & (~large | (guessed > limit) | (guessed.sum() == 0))


REMEDY = (
    'Try more labels, a smaller lambda_u, weight="one_sided_bell" with uncertainty_weighted, a higher threshold, or a '
    "self-adaptive one (freematch)."
)


def _shares(counts: Tensor) -> Tensor:
    return counts / counts.sum().clamp_min(torch.finfo(counts.dtype).tiny)


def _worst(excess: Tensor, named: Tensor) -> list[int]:
    """The classes that are named, the one furthest off first."""
    order: list[int] = excess.argsort(descending=True, stable=True).tolist()
    return [c for c in order if bool(named[c]) and float(excess[c]) > 0]


def _uneven(
    crowded: list[int], starving: list[int], given: Tensor, held: Tensor, classes: Sequence[str], what: str, of: str
) -> list[str]:
    """One sentence for the classes with too many and one for those with too few."""
    sentences: list[str] = []
    for chosen, verb in ((crowded, "crowd into"), (starving, "starve")):
        if not chosen:
            continue
        named = [
            f"'{classes[c]}' ({_percent(float(given[c]))} of them, {_percent(float(held[c]))} of the {of} labels)"
            for c in chosen[:_NAMED]
        ]
        more = f" and {len(chosen) - _NAMED} more" if len(chosen) > _NAMED else ""
        subject = "They" if sentences else f"The {what}"
        sentences.append(f"{subject} {verb} {', '.join(named)}{more}.")
    return sentences


def _percent(share: float) -> str:
    percent = 100 * share
    if 0 < percent < 1:
        return "under 1 %"
    return f"{percent:.0f} %"


def starved(coverage: float, fraction: float) -> str | None:
    """A warning when hardly any unlabelled image or pixel has a pseudo-label although training is well under way.

    coverage: share of the unlabelled data with a pseudo-label of late, weights counted; fraction: of training, 0 to 1.
    None up to a quarter of training, and from 1 % coverage on. The text is always the same, to be shown once.
    """
    if not (fraction >= STARVED_AFTER and coverage < STARVED_COVERAGE):
        return None
    return (
        f"Fewer than {_percent(STARVED_COVERAGE)} of the unlabelled data have a pseudo-label after "
        f"{_percent(STARVED_AFTER)} of training: so far this is labels-only training. Either the threshold is too high "
        "for a network that is not this confident yet (lower threshold, or take a self-adaptive one: freematch), or "
        "training is too short for it to become confident (raise steps)."
    )

"""Long tails: how many images each class keeps, from the most frequent class down to the rarest."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import did_you_mean, examples, plural
from sfumato.data.stratify import Rows, draw_per_class
from sfumato.data.table import Table
from sfumato.errors import DataError, UsageError, is_number

Gamma = float | Literal["reversed"]
Counts = NDArray[np.int64]
_ROUNDING = 1e-9  # a count that is whole in exact arithmetic is not lost to the last bit of a power


def tail_counts(head: int, gamma: float, classes: int) -> Counts:
    """Images of each class, (C,): floor(head * gamma^(-c / (C - 1))), which ends at floor(head / gamma).

    head: images of the largest class. gamma: head over tail, at least 1; or at most -1, which turns the order round.
    """
    places = np.arange(classes) / max(1, classes - 1)
    counts = np.floor(head * abs(gamma) ** -places * (1 + _ROUNDING)).astype(np.int64)
    return counts[::-1] if gamma < 0 else counts


@dataclass(frozen=True, slots=True)
class LongTail:
    """What is asked of the frequencies of the classes, of the labelled and of the unlabelled images independently.

    Args:
        gamma_labeled, gamma_unlabeled: images of the largest class over those of the smallest; negative: the order
            turned round; None: no tail, the part is as it would be without. "reversed": minus the labelled gamma.
        head_labeled, head_unlabeled: images of the largest class; None: as many as the whole tail allows.
        order: class names from head to tail; empty: as the classes are numbered.

    Raises UsageError for what is no number, a gamma between -1 and 1, a head without its gamma, and a tail that ends
    without a label.
    """

    gamma_labeled: float | None = None
    gamma_unlabeled: Gamma | None = None
    head_labeled: int | None = None
    head_unlabeled: int | None = None
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("gamma_labeled", "gamma_unlabeled", "head_labeled", "head_unlabeled"):
            _check_number(key, getattr(self, key))
        if self.gamma_unlabeled == "reversed" and self.gamma_labeled is None:
            raise UsageError("gamma_unlabeled=reversed turns the labelled tail round: give gamma_labeled too.")
        _check("labeled", self.gamma_labeled, self.head_labeled)
        _check("unlabeled", self.unlabeled, self.head_unlabeled)
        gamma, head = self.gamma_labeled, self.head_labeled
        if gamma is not None and head is not None and head < abs(gamma):
            raise UsageError(
                f"gamma_labeled={gamma:g} leaves the last class no label of head_labeled={head}. "
                f"Take head_labeled={math.ceil(abs(gamma))} or more, or a smaller gamma."
            )
        if self.order and not self:
            raise UsageError("class_order: nothing would use it: give gamma_labeled or gamma_unlabeled.")

    def __bool__(self) -> bool:
        return self.gamma_labeled is not None or self.gamma_unlabeled is not None

    @property
    def unlabeled(self) -> float | None:
        """The gamma of the unlabelled images, a number where there is one."""
        if self.gamma_unlabeled == "reversed":
            return None if self.gamma_labeled is None else -self.gamma_labeled
        return self.gamma_unlabeled

    def take_labeled(self, table: Table, available: Counts, total: int | None, aside: str) -> Counts:
        """Labels of each class (C,), of those that are `available` (C,); needs gamma_labeled.

        total: their number, from which the head follows: the largest whose tail does not exceed it.
        """
        assert self.gamma_labeled is not None
        wanted = _Tail("labeled", self.gamma_labeled, _ranks(table, self.order), available)
        head = self.head_labeled if self.head_labeled is not None else wanted.largest_head(total)
        if head < abs(self.gamma_labeled):
            raise DataError(f"{table.source}: {_no_label_left(wanted, total)}")
        return wanted.counts(head, table, aside)

    def keep_unlabeled(self, table: Table, rows: Rows, seed: int) -> Rows:
        """Those of the unlabelled `rows` that make up the tail; all of them where none is asked for.

        Raises DataError where the class of a row is unknown: no tail can be drawn then.
        """
        if self.unlabeled is None:
            return rows
        unknown = int((table.labels[rows] < 0).sum())
        if unknown:
            raise DataError(
                f"{table.source}: gamma_unlabeled={self.unlabeled:g} needs the class of every unlabelled image, and "
                f"{plural(unknown, 'image')} have none. Leave it out: they stay as frequent as they are."
            )
        available = np.bincount(table.labels[rows], minlength=len(table.classes))
        wanted = _Tail("unlabeled", self.unlabeled, _ranks(table, self.order), available)
        head = self.head_unlabeled if self.head_unlabeled is not None else wanted.largest_head(None)
        take = wanted.counts(head, table, " beside the labels")
        return draw_per_class(table.labels, rows, take, ("unlabeled", seed))


@dataclass(frozen=True, slots=True)
class _Tail:
    """One tail, and the images that there are for it. ranks: (C,) the place of each class, 0 = head."""

    part: str
    gamma: float
    ranks: Counts
    available: Counts  # (C,)

    def _wanted(self, head: int) -> Counts:
        return tail_counts(head, self.gamma, len(self.ranks))[self.ranks]

    def largest_head(self, total: int | None) -> int:
        """The most images of the largest class such that no class has too few, and all together at most `total`."""

        def fits(head: int) -> bool:
            wanted = self._wanted(head)
            return bool((wanted <= self.available).all()) and (total is None or int(wanted.sum()) <= total)

        low, high = 0, int(self.available.max(initial=0)) + 1  # a larger head asks for more of every class
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def fits(self, gamma: int, total: int | None) -> bool:
        """Whether a tail as steep as this, in place of its own, can end with one image."""
        other = replace(self, gamma=math.copysign(gamma, self.gamma))
        return other.largest_head(total) >= gamma

    def least(self) -> int:
        """Images of the whole tail whose last class has one."""
        return int(self._wanted(math.ceil(abs(self.gamma))).sum())

    def counts(self, head: int, table: Table, aside: str) -> Counts:
        """Images of each class (C,). Raises DataError naming the first class that has too few."""
        wanted = self._wanted(head)
        short = np.flatnonzero(wanted > self.available)
        if not len(short):
            return wanted
        label, key = short[0], f"head_{self.part}"
        raise DataError(
            f"{table.source}: class '{table.classes[label]}' has {plural(int(self.available[label]), 'image')}{aside}, "
            f"and the {self.part.replace('beled', 'belled')} long tail ({key}={head}, gamma_{self.part}="
            f"{self.gamma:g}) needs {wanted[label]}. Take {key}={self.largest_head(None)} or less, hold out fewer "
            "images (val=…, test=…), or give another class_order."
        )


def _check_number(key: str, value: object) -> None:
    if value is None or is_number(value) or (key == "gamma_unlabeled" and value == "reversed"):
        return
    word = ', or "reversed"' if key == "gamma_unlabeled" else ""
    raise UsageError(f"LongTail({key}={value!r}): expected a number{word}, or None.")


def _check(part: str, gamma: float | None, head: int | None) -> None:
    if gamma is not None and not (math.isfinite(gamma) and abs(gamma) >= 1):
        raise UsageError(
            f"gamma_{part}={gamma:g}: expected at least 1 (balanced), the images of the largest class over those of "
            "the smallest; or at most -1, which turns the order of the classes round."
        )
    if head is not None and gamma is None:
        instead = ", or labels_per_class" if part == "labeled" else ""
        raise UsageError(
            f"head_{part}={head}: nothing would use it: it is the largest class of a long tail. Give gamma_{part} too "
            f"(1 for equal classes){instead}."
        )
    if head is not None and head < 1:
        raise UsageError(f"head_{part}={head}: expected 1 image or more.")


def _ranks(table: Table, order: tuple[str, ...]) -> Counts:
    """The place of each class between head (0) and tail, (C,). Raises DataError for an order of other classes."""
    if not order:
        return np.arange(len(table.classes))
    unknown = [name for name in order if name not in table.classes]
    missing = [name for name in table.classes if name not in order]
    wrong = ""
    if unknown:
        wrong = f"there is no class '{unknown[0]}'.{did_you_mean(unknown[0], table.classes)}"
    elif missing:
        wrong = f"it lacks {examples(missing)}."
    elif len(order) > len(table.classes):
        wrong = "it names a class twice."
    if wrong:
        raise DataError(
            f"{table.source}: class_order: {wrong} Expected each of the {plural(len(table.classes), 'class')} once, "
            "from the most frequent to the rarest."
        )
    place = {name: rank for rank, name in enumerate(order)}
    return np.array([place[name] for name in table.classes])


def _no_label_left(tail: _Tail, total: int | None) -> str:
    head = tail.largest_head(None)  # however many labels are asked for
    what = f"gamma_labeled={tail.gamma:g} leaves the last class without a label: "
    if head >= abs(tail.gamma):
        return f"{what}labels={total} are too few. Ask for {tail.least()} or more, or a smaller gamma."
    steepest = max(1, bisect_left(range(1, head + 1), True, key=lambda gamma: not tail.fits(gamma, total)))
    also = f", and labels={total} for fewer" if total is not None and steepest < head else ""
    less = "or less" if tail.gamma > 0 else "or nearer to -1"
    return (
        f"{what}there are images for a head of {head} at most{also}. "
        f"Take gamma_labeled={math.copysign(steepest, tail.gamma):g} {less}."
    )

"""Wrong labels on purpose: which labels are replaced, and by what, as a function of the seed and the image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sfumato.data.stratify import Rows
from sfumato.errors import UsageError, check_choice, is_number

NoiseKind = Literal["symmetric", "asymmetric"]

# truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog (Patrini et al. 2017, arXiv:1609.03683)
_CIFAR10_PAIRS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
# the superclass of each of the 100 classes in alphabetical order (Krizhevsky 2009)
_CIFAR100_SUPERCLASSES = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7,
    6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10,
    16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16,
    12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """Noise on labels.

    Args:
        share: of the labels that become wrong, at least 0 and below 1. Symmetric noise counts all labels, asymmetric
            noise those of the classes that it confuses: five of the ten of `protocol` cifar10, else all.
        kind: "symmetric": any other class, each as likely. "asymmetric": the class that it is taken for: the pairs of
            the literature for `protocol` cifar10, the next one of the same superclass for cifar100, else the next one.
        val: wrong labels among those for validation too, in the same way.

    Raises UsageError for a share out of range or an unknown kind.
    """

    share: float = 0.0
    kind: NoiseKind = "symmetric"
    val: bool = False
    protocol: str | None = None

    def __post_init__(self) -> None:
        if not is_number(self.share):
            raise UsageError(f"LabelNoise(share={self.share!r}): expected a number, such as 0.2.")
        if not 0 <= self.share < 1:
            raise UsageError(
                f"noise={self.share:g}: expected a share of the labels, at least 0 and below 1, such as 0.2."
            )
        check_choice("LabelNoise", "kind", self.kind, get_args(NoiseKind))
        if self.val and not self.share:
            raise UsageError("noise_val: nothing would use it without noise. Give noise=0.2 or so too.")

    def flipped(self, names: Sequence[str], labels: Rows, classes: int, rows: Rows, seed: int) -> dict[int, int]:
        """Row -> wrong label, of those of `rows` whose label becomes wrong.

        labels: (N,) right ones. A share of the rows that can be confused, rounded: those whose draw is lowest. Which
        rows are wrong with less noise are therefore wrong with more, and to what a row's label turns depends on the
        seed, its name and its class alone.
        """
        if not self.share:
            return {}
        turned = _confused_with(self.protocol, classes) if self.kind == "asymmetric" else None
        fragile = [row for row in rows.tolist() if turned is None or turned[labels[row]] != labels[row]]
        draws = {row: _uniform(seed, names[row]) for row in fragile}
        chosen = sorted(fragile, key=lambda row: draws[row])[: round(self.share * len(fragile))]
        if turned is not None:
            return {row: int(turned[labels[row]]) for row in sorted(chosen)}
        return {row: _other(int(labels[row]), classes, _uniform(seed, names[row], "to")) for row in sorted(chosen)}

    def __str__(self) -> str:
        return f"{self.kind} noise of {100 * self.share:g} %"


def _confused_with(protocol: str | None, classes: int) -> NDArray[np.int64]:
    """What each class is taken for, (C,); itself where nothing is."""
    turned = np.roll(np.arange(classes), -1)
    if protocol == "cifar10" and classes == 10:
        turned = np.arange(classes)
        turned[list(_CIFAR10_PAIRS)] = list(_CIFAR10_PAIRS.values())
    elif protocol == "cifar100" and classes == len(_CIFAR100_SUPERCLASSES):
        superclass = np.array(_CIFAR100_SUPERCLASSES)
        for one in range(superclass.max() + 1):
            members = np.flatnonzero(superclass == one)
            turned[members] = np.roll(members, -1)
    return turned


def _other(label: int, classes: int, draw: float) -> int:
    """One of the other classes, each as likely."""
    place = min(int(draw * (classes - 1)), classes - 2)
    return place + (place >= label)


def _uniform(seed: int, name: str, *purpose: str) -> float:
    """A number in [0, 1) that is a function of the seed and the image's name."""
    text = "/".join(["noise", str(seed), *purpose, name])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / (1 << 56)

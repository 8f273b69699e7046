"""How rare classes are, by their counts (C,) among the labels: the chances that keep or change samples of each.

A class without a label counts as the rarest of those that have some, so that nothing is 0 / 0.
"""

from __future__ import annotations

from torch import Tensor

from sfumato.functional.prior_shift import class_shares


def keep_chance(counts: Tensor) -> Tensor:
    """n_min / n_c, (C,): samples kept at this chance are equally many of each class (ABC)."""
    shares = class_shares(counts)
    return shares.min() / shares


def shortfall(counts: Tensor) -> Tensor:
    """(n_max - n_c) / n_max, (C,): 0 for the largest class, near to 1 for the rarest (CoSSL)."""
    shares = class_shares(counts)
    return 1 - shares / shares.max()

"""Label smoothing (Szegedy et al. 2016): a control of CalibrateMix, the old cure for predictions too sure.

t = 1 - s on the label and s / (C - 1) on each other class, in the loss of the labels; pseudo-labels stay as they are.
"""

from __future__ import annotations

from sfumato.methods.base import Method
from sfumato.rules.smoothing import Smoothed


def label_smoothing(method: Method, *, smoothing: float = 0.1) -> None:
    """Smooth the labels.

    Args:
        method: whose labels.
        smoothing: s, what a label leaves to the other classes together.

    Raises:
        UsageError: an s outside 0 to 1.
    """
    method.charge = Smoothed(method.charge, smoothing=smoothing)

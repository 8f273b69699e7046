"""Label smoothing (Szegedy et al. 2016): a control of CalibrateMix, the old cure for predictions too sure.

    t_y = 1 - s,  t_c = s / (C - 1) for each other class c
    L_x = mean CE(z, t)

Pseudo-labels stay as they are. The paper spreads eps over all classes, that of the label too, eps / C on each: that is
s = eps (C - 1) / C here. A label that is a distribution y becomes (1 - s) y + s (1 - y) / (C - 1).
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

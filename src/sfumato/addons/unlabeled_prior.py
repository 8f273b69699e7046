"""How an add-on shows a prior the predictions for unlabeled images."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from sfumato.errors import UsageError
from sfumato.methods import Consistency, Method
from sfumato.rules import Prior, Then, Watch
from sfumato.rules.prior import Borrowed


def shown(method: Method, prior: Prior, *, offset: Tensor | None = None) -> Prior | Borrowed:
    """`prior` for a rule of `method`; one that learns is put before its correction of predictions, where it sees all.

    offset: as in `Watch`.

    Raises:
        UsageError: a prior that learns, and a method whose predictions for unlabeled images no rule sees.
    """
    if not prior.learns:
        return prior
    if "refine" not in method.slots:
        raise UsageError(
            f"prior={prior.source!r} is learned from predictions for unlabeled images, and the method shows none to "
            "its rules. Use prior='labeled', or give a number for each class."
        )
    family = cast(Consistency, method)
    family.refine = Then(Watch(prior, offset=offset), family.refine)
    return Borrowed(prior)

"""FlexMatch (Zhang et al. 2021)."""

from __future__ import annotations

from sfumato.methods.consistency import Consistency
from sfumato.rules import ClassCurriculum
from sfumato.types import ViewSpec


def flexmatch(
    num_classes: int,
    num_unlabeled: int,
    dense: bool = False,
    *,
    threshold: float = 0.95,
    count_unused: bool = True,
    lambda_u: float = 1.0,
    labeled_strong: bool = False,
) -> Consistency:
    """FixMatch with a threshold per class, tau * beta / (2 - beta), beta the class's learning status (eq. 5-8)."""
    curriculum = ClassCurriculum(
        num_classes, num_unlabeled, threshold=threshold, count_unused=count_unused, dense=dense
    )
    return Consistency(weigh=curriculum, lambda_u=lambda_u, views=ViewSpec(labeled_strong=labeled_strong))

"""CR-Match: FixMatch whose views agree in their class and differ in their features, and that tells turned images.

With y^ the class of the weak view and w = 1[max p >= tau], g a linear map of the features, and v one of four quarters
by which each unlabeled image is turned:

    L_u = mean(w CE(strong view, y^))
    L_d = mean(w max(0, cos(g_weak, g_strong)))
    L_r = mean(CE(rotation head(features of the image turned by v), v))
    L   = L_x + lambda_u L_u + lambda_distance L_d + lambda_rotation L_r

Fan, Kukleva and Schiele 2021 (arXiv:2112.05825), sections 3.2 and 3.3, with the cosine and equivariance. Each of the
weights acts; in the paper lambda_u is of L_u + L_d. Gradient reaches g through both views, as printed: the weak view
then goes through with gradient too. `gradient=strong` keeps it out, whatever the layout of the forward.

Different here: g is of the features that the network gives, one row for each image, and not of a map of places, so that
any network and any size of image will do. One turn is drawn for each unlabeled image, where the published code turns
other images in all four ways; the turned images move no running statistics. A weight of 0 leaves a term out.
"""

from __future__ import annotations

from typing import Literal

from sfumato.errors import UsageError, check_choice
from sfumato.methods.consistency import Consistency
from sfumato.rules import FeatureDistance, FixedThreshold, Rotation
from sfumato.types import ViewSpec


def crmatch(
    dense: bool,
    *,
    threshold: float = 0.95,
    lambda_u: float = 1.0,
    lambda_distance: float = 1.0,
    lambda_rotation: float = 1.0,
    dim: int = 128,
    gradient: Literal["both", "strong"] = "both",
    labeled_strong: bool = False,
) -> Consistency:
    """The method with its two further losses.

    Args:
        dense: labels are maps; must be false.
        threshold: tau.
        lambda_u: weight of L_u.
        lambda_distance: weight of L_d.
        lambda_rotation: weight of L_r, which takes a further forward of all unlabelled images.
        dim: values of g.
        gradient: through the features of both views in L_d, or of the strong one alone.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: labels that are maps, or a number out of range.
    """
    if dense:
        raise UsageError(
            "crmatch is for one class per image only: it compares one feature of each image, and asks by how much the "
            "whole image is turned. Take unimatch, which has a second loss of disturbed features."
        )
    check_choice("crmatch", "gradient", gradient, ("both", "strong"))
    both = gradient == "both" and lambda_distance > 0
    method = Consistency(
        weigh=FixedThreshold(threshold),
        lambda_u=lambda_u,
        views=ViewSpec(weak_gradient=both, labeled_strong=labeled_strong),
    )
    if lambda_distance:
        method.extras.append(FeatureDistance(weight=lambda_distance, dim=dim, gradient=gradient))
    if lambda_rotation:
        method.extras.append(Rotation(weight=lambda_rotation))
    return method

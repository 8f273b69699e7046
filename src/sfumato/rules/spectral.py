"""CSL's weigher: a split of each image's predictions, and Gaussians of its reliable part."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.distributed import sum_over_ranks
from sfumato.errors import UsageError, check_choice
from sfumato.functional.spectral import (
    DISPERSIONS,
    KERNELS,
    SPLITS,
    Floor,
    Gaussians,
    Keep,
    gaussians,
    moments,
    reliability_weight,
)
from sfumato.rules.base import Weigher
from sfumato.types import Context

Features = Literal["raw", "raw_winner_slot", "sqrt", "log"]
Split = Literal["absV", "pc1", "fixed"]
Kernel = Literal["z2_over_alpha", "z_over_alpha_sq"]


class Spectral(Weigher):
    """CSL: 1 for predictions at the good side of the reliable part's centers, a Gaussian of the distance elsewhere.

    Confidence and residual dispersion of an image's valid predictions are split in two; mean and variance of the
    reliable part give the weights (eq. 7-11). What each argument names is told in `sfumato.functional.spectral`.

    An image with fewer than two valid predictions has nothing to split: all such images, over all ranks, form one set.
    With one prediction per image, then, the set is the batch. A set of fewer than two keeps confidences of at least
    0.95.

    Args:
        split: "absV" (paper) or "pc1", the relaxation of 2-means that it is after; "fixed" takes 0.95 for the border.
        features: what stands for the dispersion; "raw" is the variance over the losing classes, "raw_winner_slot" the
            authors' variant of it.
        keep: full weight beyond the center of either feature (authors), of both (paper), or no jump at all.
        kernel: exp(-z^2 / 8) (eq. 10) or exp(-(z / 8)^2) (pseudocode).
        floor: of the standard deviations, the authors' or one to the scale of each feature.
        conf_floor: weight 0 below this confidence.

    The split is of the batch observed last and no memory: nothing of it outlives the next `observe`.

    Raises:
        UsageError: an unknown name, a confidence outside 0 to 1, or reading before observing.
    """

    def __init__(
        self,
        *,
        split: Split = "absV",
        features: Features = "raw",
        keep: Keep = "or",
        kernel: Kernel = "z2_over_alpha",
        floor: Floor = "shared",
        conf_floor: float = 0.0,
    ) -> None:
        super().__init__()
        choices = [("split", split, Split), ("features", features, Features), ("keep", keep, Keep)]
        for key, value, allowed in (*choices, ("kernel", kernel, Kernel), ("floor", floor, Floor)):
            check_choice("Spectral", key, value, get_args(allowed))
        if not 0.0 <= conf_floor <= 1.0:
            raise UsageError(f"Spectral(conf_floor={conf_floor}): expected a confidence between 0 and 1, such as 0.5.")
        self.split, self.keep, self.floor, self.conf_floor = split, keep, floor, conf_floor
        self.dispersion, self.kernel, self.parts = DISPERSIONS[features], KERNELS[kernel], SPLITS[split]
        self.fit: Gaussians | None = None

    def _features(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Confidence and dispersion, one row for each image."""
        n = len(p)
        return p.amax(dim=1).reshape(n, -1), self.dispersion(p).reshape(n, -1)

    @torch.no_grad()
    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        confidence, dispersion = self._features(p)
        chosen = valid.reshape(confidence.shape).to(p.dtype)
        own = moments(confidence, dispersion, chosen)
        lonely = own[:, :1] < 1.5
        whole = _pooled(own, lonely)
        first = self.parts(whole, confidence, dispersion)
        part = _pooled(moments(confidence, dispersion, chosen * first), lonely)
        self.fit = gaussians(whole, part, larger=self.split == "absV", floor=self.floor)

    def forward(self, p: Tensor) -> Tensor:
        if self.fit is None:
            raise UsageError("Spectral was asked for weights before it observed a batch to split. Call observe first.")
        confidence, dispersion = self._features(p)
        weight = reliability_weight(confidence, dispersion, self.fit, keep=self.keep, kernel=self.kernel)
        return (weight * (confidence >= self.conf_floor)).to(p.dtype).reshape(p[:, 0].shape)


def _pooled(sums: Tensor, lonely: Tensor) -> Tensor:
    """Sums (N, 6) of each image, and for the lonely ones the sums of all of them on all ranks."""
    together = sum_over_ranks(torch.where(lonely, sums, 0.0).sum(dim=0, keepdim=True))
    return torch.where(lonely, together, sums)

"""CutMix and ClassMix: a region of each image is another image's. The one place in which anything is mixed.

A `CutMix` is made once for a strong view and then applied to all that belongs to it, the image, its pseudo-label in
whatever form, weights and valid pixels, so that no two of them can differ in their region.

Partners. Consecutive rows are partners of each other (row ^ 1); the last of an odd number takes the one before it; a
single image is left as it is. The sampler's order is random, and so then is the partner. No image is its own. Ranks and
micro-batches of an even number of rows form the same pairs as one batch of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.functional.probability import most_probable
from sfumato.types import Pseudo, Sparse, Target


@dataclass(frozen=True, slots=True)
class CutMix:
    """Which pixels of N images come from which other image. A `Warp`: called, it mixes a pseudo-label.

    The other images are rows of a bank: by default the batch itself, or any other, such as labeled images with their
    labels. Bank and batch must be of one height, width and form of target.
    """

    partner: Tensor  # (N,) int64, row of the bank
    region: Tensor  # (N, H, W) bool, true where the partner shows

    def __call__(self, pseudo: Pseudo, bank: Pseudo | None = None) -> Pseudo:
        """The pseudo-label of the mixed images."""
        source = pseudo if bank is None else bank
        return Pseudo(
            self._target(pseudo.target, source.target),
            self.maps(pseudo.weight, source.weight),
            self.maps(pseudo.valid, source.valid),
        )

    def images(self, x: Tensor, bank: Tensor | None = None) -> Tensor:
        """Mixed images, or anything else with channels: (N, channels, H, W) of any dtype."""
        return self._mixed(self.region[:, None], x, bank)

    def maps(self, x: Tensor, bank: Tensor | None = None) -> Tensor:
        """Mixed maps without channels, (N, H, W) of any dtype."""
        return self._mixed(self.region, x, bank)

    def only(self, rows: Tensor) -> CutMix:
        """The same in the images where `rows` (N,) is true; the others keep all their pixels."""
        return CutMix(self.partner, self.region & rows[:, None, None])

    def _target(self, target: Target, bank: Target) -> Target:
        if isinstance(target, Sparse):
            assert isinstance(bank, Sparse)
            return Sparse(self.images(target.labels, bank.labels), self.images(target.share, bank.share))
        assert isinstance(bank, Tensor)
        return self.images(target, bank) if target.is_floating_point() else self.maps(target, bank)

    def _mixed(self, region: Tensor, x: Tensor, bank: Tensor | None) -> Tensor:
        return torch.where(region, (x if bank is None else bank).index_select(0, self.partner), x)


def paired(count: int, device: torch.device | None = None) -> Tensor:
    """(count,) int64: each row's partner, as the head of this module says."""
    rows = torch.arange(count, device=device)
    partner = rows ^ 1
    return torch.where(partner < count, partner, (rows - 1).clamp(min=0))


def from_boxes(boxes: Tensor, size: tuple[int, int], partner: Tensor | None = None) -> CutMix:
    """The mixing whose region is the union of each image's boxes.

    Args:
        boxes: (N, boxes, 4) or (N, 4) int64 left, top, right, bottom in pixels, the last two just outside.
        size: (height, width) of the images.
        partner: (N,) int64 rows of a bank; by default `paired`.

    """
    return _with_partner(inside(boxes, size), partner)


def inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) bool: true in any box of an image; `boxes` and `size` as in `from_boxes`."""
    left, top, right, bottom = boxes.view(len(boxes), -1, 4, 1).unbind(2)
    x, y = (torch.arange(length, device=boxes.device) for length in (size[1], size[0]))
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)  # (N, boxes, W), (N, boxes, H)
    return (down[..., None] & across[..., None, :]).any(1)


def classmix(pseudo: Pseudo, draw: Tensor, partner: Tensor | None = None, bank: Pseudo | None = None) -> CutMix:
    """ClassMix: the region is where the partner's pseudo-label is one of half of its classes, rounded down.

    Olsson et al., "ClassMix: Segmentation-Based Data Augmentation for Semi-Supervised Learning", 2021, algorithm 1.
    Classes count as present where they are the most probable on a valid pixel; the others are never taken.

    Args:
        pseudo: of the batch, before any mixing.
        draw: (N, C) in [0, 1): the classes with the smallest numbers are taken.
        partner: (N,) int64 rows of the bank; by default `paired`.
        bank: where the partners are; by default `pseudo`.

    """
    chosen_from = pseudo if bank is None else bank
    classes = draw.shape[1]
    labels = torch.where(chosen_from.valid > 0, most_probable(chosen_from.target), classes).clamp(max=classes)
    present = torch.zeros(len(labels), classes + 1, dtype=torch.bool, device=draw.device)
    present = present.scatter_(1, labels.flatten(1), True)[:, :classes]
    rows = paired(len(draw), draw.device) if partner is None else partner
    present, labels = present.index_select(0, rows), labels.index_select(0, rows)
    rank = torch.where(present, draw, 2.0).argsort(1).argsort(1)  # absent classes come last
    taken = rank < present.sum(1, keepdim=True) // 2
    taken = torch.cat((taken, torch.zeros_like(taken[:, :1])), 1)  # and no pixel without a class is
    region = taken.gather(1, labels.flatten(1)).view_as(labels)
    return _with_partner(region, partner)


def _with_partner(region: Tensor, partner: Tensor | None) -> CutMix:
    """Rows of the batch itself unless told otherwise; then an image alone keeps all its pixels."""
    if partner is not None:
        return CutMix(partner, region)
    alone = len(region) == 1
    return CutMix(paired(len(region), region.device), torch.zeros_like(region) if alone else region)

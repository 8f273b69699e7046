"""Where the boxes of CutMix lie: drawn for a whole batch at once, without a loop over images."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.views.dense_presets import Boxes
from sfumato.views.draws import uniform

_CANDIDATES = 128  # one in twelve of the unimatch preset's largest boxes fits: one image in 50,000 of those has none


def draw_boxes(boxes: Boxes, size: tuple[int, int], *, seed: int, step: int, slots: Tensor, purpose: str) -> Tensor:
    """The boxes of N images, a function of (seed, step, purpose, slot).

    Args:
        boxes: their law.
        size: (height, width) of the images.
        seed: of the run.
        step: of the training.
        slots: (N,) int64, the places of the samples in the global batch.
        purpose: what the boxes are for.

    Returns:
        (N, boxes, 4) int64 left, top, right, bottom in whole pixels, the last two just outside; zeros where an image
        is not to be mixed. Where no candidate fits, as for images far longer than wide, the first is cut to the image.

    """
    numbers, free = _numbers_of_area(boxes), boxes.shape in ("width", "image")
    candidates = 1 if free else _CANDIDATES
    draw = uniform(seed, step, purpose, slots, 1 + numbers + boxes.count * (2 + 2 * candidates))
    coin, for_area, for_boxes = draw.tensor_split((1, 1 + numbers), dim=1)
    if boxes.together:
        coin = uniform(seed, step, f"{purpose} together", torch.zeros_like(slots), 1)
    at, for_side, for_fit = for_boxes.view(len(slots), boxes.count, -1).tensor_split((2, 2 + candidates), dim=2)

    width, height = _sides(boxes, _area(boxes, for_area)[:, None, None], for_side, size)  # (N, boxes, candidates)
    if not free:
        first = _first(_fits(width, height, for_fit, size))
        width, height = width.gather(2, first), height.gather(2, first)
    left, right = _placed(width[..., 0], at[..., 0], size[1])
    top, bottom = _placed(height[..., 0], at[..., 1], size[0])
    box = torch.stack((left, top, right, bottom), 2)
    return torch.where(coin[:, :, None] < boxes.probability, box, 0)


def _numbers_of_area(boxes: Boxes) -> int:
    return 1 if boxes.beta is None else sum(boxes.beta) - 1


def _area(boxes: Boxes, draw: Tensor) -> Tensor:
    """(N,) share of the image that each of its boxes has."""
    # The a-th smallest of a + b - 1 uniform numbers has the Beta(a, b) distribution.
    place = draw[:, 0] if boxes.beta is None else draw.sort(1).values[:, boxes.beta[0] - 1]
    smallest, largest = boxes.area
    return (smallest + (largest - smallest) * place) / boxes.count


def _sides(boxes: Boxes, area: Tensor, draw: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Width and height in whole pixels, in the shape of `draw`; they may exceed the image."""
    height, width = size
    low, high = boxes.aspect
    pixels = area * (height * width)
    if boxes.shape == "image":
        across = (width * area.sqrt()).expand_as(draw)
        return across.floor(), (height * area.sqrt()).expand_as(draw).floor()
    if boxes.shape == "width":
        across = (width * (area + (1 - area) * draw)).clamp(min=1)
        return across.floor(), (pixels / across).floor()
    aspect = low + (high - low) * draw if boxes.shape == "uniform" else low * (high / low) ** draw
    return (pixels / aspect).sqrt().floor(), (pixels * aspect).sqrt().floor()


def _fits(width: Tensor, height: Tensor, draw: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether a box with its corner at any pixel of the image, all equally likely, would lie in the image.

    The draw decides by the share of pixels at which it would; given that it fits, all these are equally likely.
    """
    across = (size[1] - width + 1).clamp(0, size[1])
    down = (size[0] - height + 1).clamp(0, size[0])
    return draw * (size[0] * size[1]) < across * down


def _first(fits: Tensor) -> Tensor:
    """(N, boxes, 1): place of the first true along the last dimension, 0 where there is none."""
    order = torch.arange(fits.shape[2], 0, -1, device=fits.device)
    return (fits * order).argmax(2, keepdim=True)


def _placed(side: Tensor, at: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """First pixel and end of boxes with that side, every place within `limit` pixels equally likely."""
    length = side.long().clamp(max=limit)
    start = (at * (limit - length + 1)).long().minimum(limit - length)  # the product may round up
    return start, start + length

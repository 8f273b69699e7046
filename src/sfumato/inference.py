"""A network's answer for a whole image of any size.

Modes
    full: the image at its own size in one forward.
    padded: the image on a canvas of the size `crop`, for networks that take one size only; it must not be larger.
    sliding: windows of the size `crop`, `stride` apart, the last ones moved back to the image's border, so that none
        has less context than another. Where windows overlap their probabilities are averaged. An image smaller than the
        window is padded.

Padding is 0, the mean color of a normalized image, to the right and below, and its logits are cut away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UsageError, check_choice
from sfumato.evaluate import undisturbed
from sfumato.functional.probability import confidence, entropy, full_precision, probability, safe_log
from sfumato.types import VOID, Output

Mode = Literal["full", "sliding", "padded"]
Size = tuple[int, int]  # height, width
_WINDOWS = 4  # in one forward
_ROWS = 64  # reduced to maps at a time


@dataclass(frozen=True, slots=True)
class Maps:
    """What is left of the class planes, on the CPU, each (H, W)."""

    labels: Tensor  # uint8
    confidence: Tensor  # float32, the winning probability
    entropy: Tensor  # float32, over log C: 0 sure, 1 uniform


@dataclass(frozen=True, slots=True)
class _Plan:
    sliding: bool
    crop: Size  # of a window or the canvas
    stride: Size
    multiple: int


def segment(
    model: nn.Module,
    image: Tensor,
    *,
    mode: Mode = "full",
    crop: Size | None = None,
    stride: int | Size | None = None,
    multiple: int = 1,
) -> Tensor:
    """Logits of one image, (C, H, W) float32 on the model's device.

    Of overlapping windows they are the logarithms of the averaged probabilities, which `exp` gives back and softmax
    too.

    Args:
        model: answers images (n, channels, H, W) with an `Output` or with logits, of the same H and W.
        image: (channels, H, W), normalized.
        mode: see the head of this module.
        crop: height and width of windows or canvas.
        stride: of the windows, down and across; two thirds of the crop when None.
        multiple: of pixels that the model's input must measure; every forward is padded to it.

    Modes, buffers and torch's random state are as before afterwards. Raises UsageError when the arguments do not fit
    each other, the image or the model's answer.
    """
    plan = _planned(image, mode, crop, stride, multiple)
    device = _device(model, image)
    whole = torch.empty(0)
    with undisturbed(model, device):
        for top, part in _bands(model, image, plan, device):
            if top == 0:
                whole = part.new_empty((part.shape[0], *image.shape[1:]))
            whole[:, top : top + part.shape[1]] = safe_log(part) if plan.sliding else part
    return whole


def segment_maps(
    model: nn.Module,
    image: Tensor,
    *,
    mode: Mode = "full",
    crop: Size | None = None,
    stride: int | Size | None = None,
    multiple: int = 1,
) -> Maps:
    """Class, confidence and entropy of every pixel; arguments and errors as `segment`.

    In the sliding mode the class planes of one row of windows are held, C x crop height x W values, however tall the
    image is.
    """
    plan = _planned(image, mode, crop, stride, multiple)
    device = _device(model, image)
    labels = torch.empty(image.shape[1:], dtype=torch.uint8)
    sure, unsure = torch.empty((2, *image.shape[1:])).unbind()
    with undisturbed(model, device):
        for top, part in _bands(model, image, plan, device):
            if part.shape[0] > VOID:
                raise UsageError(f"{part.shape[0]} classes do not fit maps of 8 bits: at most {VOID}.")
            for start in range(0, part.shape[1], _ROWS):
                rows = part[None, :, start : start + _ROWS]
                p = rows if plan.sliding else probability(rows)
                place = slice(top + start, top + start + rows.shape[2])
                largest, guess = confidence(p)
                labels[place], sure[place] = guess[0].to(torch.uint8), largest[0]
                unsure[place] = entropy(p)[0] / math.log(max(2, p.shape[1]))
    return Maps(labels, sure, unsure)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along `length` >= `window` pixels: `stride` apart, the last one at the border."""
    count = 1 + -(-(length - window) // stride)
    return [min(i * stride, length - window) for i in range(count)]


def _planned(image: Tensor, mode: Mode, crop: Size | None, stride: int | Size | None, multiple: int) -> _Plan:
    check_choice("segment", "mode", mode, get_args(Mode))
    if image.dim() != 3 or not image.numel():
        raise UsageError(f"image of shape {tuple(image.shape)}: expected (channels, H, W), one image at a time.")
    if multiple < 1:
        raise UsageError(f"multiple={multiple}: expected at least 1.")
    height, width = image.shape[1:]
    if mode == "full":
        return _Plan(False, (height, width), (height, width), multiple)
    if crop is None or min(crop) < 1:
        raise UsageError(f"mode='{mode}' with crop={crop}: expected the height and width of the network's input.")
    if mode == "padded" and (height > crop[0] or width > crop[1]):
        raise UsageError(
            f"an image of {height} x {width} (height x width) does not fit the canvas of {crop[0]} x {crop[1]}: "
            "take mode='sliding', or a larger crop."
        )
    if stride is None:
        stride = (max(1, 2 * crop[0] // 3), max(1, 2 * crop[1] // 3))
    elif isinstance(stride, int):
        stride = (stride, stride)
    if not (0 < stride[0] <= crop[0] and 0 < stride[1] <= crop[1]):
        raise UsageError(f"stride={stride} with crop={crop}: expected 1 up to the crop, or pixels would be left out.")
    return _Plan(mode == "sliding", crop, stride, multiple)


def _device(model: nn.Module, image: Tensor) -> torch.device:
    weight = next(model.parameters(), None)
    return image.device if weight is None else weight.device


def _bands(model: nn.Module, image: Tensor, plan: _Plan, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Rows of the answer from above, with the place of the first: logits (C, rows, W), of windows probabilities."""
    height, width = image.shape[1:]
    below, right = max(0, plan.crop[0] - height), max(0, plan.crop[1] - width)
    canvas = F.pad(image, (0, right, 0, below)) if below or right else image
    if not plan.sliding:
        yield 0, _logits(model, canvas.unsqueeze(0).to(device), plan.multiple)[0, :, :height, :width]
        return
    for top, part in _window_bands(model, canvas, plan, device):
        yield top, part[:, : height - top, :width]


def _window_bands(model: nn.Module, image: Tensor, plan: _Plan, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """A row of windows at a time. What it shares with the next one waits in the same memory for that one's share."""
    (height, width), (across, down) = plan.crop, (image.shape[2], image.shape[1])
    tops, lefts = window_starts(down, height, plan.stride[0]), window_starts(across, width, plan.stride[1])
    times_down, times_across = (_times(*axis, device) for axis in ((down, tops, height), (across, lefts, width)))
    band = torch.empty(0)
    for top, following in zip(tops, [*tops[1:], down], strict=True):
        for first in range(0, len(lefts), _WINDOWS):
            places = lefts[first : first + _WINDOWS]
            windows = torch.stack([image[:, top : top + height, left : left + width] for left in places])
            p = probability(_logits(model, windows.to(device), plan.multiple))
            if not band.numel():
                band = p.new_zeros((p.shape[1], height, across))
            for left, one in zip(places, p, strict=True):
                band[:, :, left : left + width] += one
        done = following - top
        yield top, band[:, :done].div_(times_down[top:following, None] * times_across)
        rest = band[:, done:].clone()
        band[:, : height - done] = rest
        band[:, height - done :] = 0


def _times(length: int, starts: list[int], window: int, device: torch.device) -> Tensor:
    """How many windows hold each place, (length,)."""
    times = torch.zeros(length, device=device)
    for start in starts:
        times[start : start + window] += 1
    return times


def _logits(model: nn.Module, images: Tensor, multiple: int) -> Tensor:
    """(n, channels, H, W) -> (n, C, H, W), at least float32."""
    height, width = images.shape[2:]
    answer = model(F.pad(images, (0, -width % multiple, 0, -height % multiple)))
    logits = answer.logits if isinstance(answer, Output) else answer
    wanted = (len(images), height + -height % multiple, width + -width % multiple)
    if logits.dim() != 4 or (len(logits), *logits.shape[2:]) != wanted:
        raise UsageError(
            f"the model answers images of {wanted[1]} x {wanted[2]} with logits of shape {tuple(logits.shape)}: "
            f"expected ({wanted[0]}, C, {wanted[1]}, {wanted[2]}), a class for each pixel."
        )
    return full_precision(logits[:, :, :height, :width])

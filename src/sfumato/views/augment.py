"""The views of a batch: weak, strong, and the plain one for evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from sfumato.errors import UsageError
from sfumato.views import affine, crops, strong
from sfumato.views.draws import uniform
from sfumato.views.presets import OPERATIONS, Preset, find
from sfumato.views.slots import Slots

_CHUNK = 2**19  # values of the strong view that a CPU works on at a time: what its cache holds
_CUTOUT_DRAWS = 3


@dataclass(frozen=True, slots=True)
class _Constants:
    """What a device keeps at hand, so that no step waits for a copy to it."""

    scale: Tensor  # (channels, 1, 1): view = values in 0..255 * scale + offset
    offset: Tensor
    operation: Tensor  # (pool,) int64, place in OPERATIONS
    low: Tensor  # (pool,) float32
    high: Tensor


class Augment:
    """Weak, strong and evaluation views of whole batches, on the device the images are on.

    Every sample has operations and magnitudes of its own, drawn from (seed, step, purpose, slot) alone: a view does
    not depend on the rest of the batch and is the same after a resume. Views of one purpose share their crop and flip.

    Images are (N, channels, H, W), uint8 in 0..255 or floating in 0..1; views are (N, channels, image_size,
    image_size) float32, normalised.

    Args:
        preset: "digits", "natural32", "photos" (stored images larger than the views), or a `Preset`.
        seed: of the run.
        image_size: side of the views in pixels.
        mean: per channel, of values in 0..1.
        std: per channel, of values in 0..1.

    Raises:
        UsageError: an unknown preset, or images or slots of another kind than stated.
    """

    def __init__(
        self, preset: str | Preset, *, seed: int, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        if len(mean) != len(std) or min(std, default=0) <= 0:
            raise UsageError(f"mean={mean} and std={std} must hold one number per channel each, std above 0.")
        self.preset = find(preset)
        self.seed = seed
        self.image_size = image_size
        self.mean = mean
        self.std = std
        self._constants: dict[torch.device, _Constants] = {}

    def weak(self, images: Tensor, *, step: int, slots: Tensor, purpose: str) -> Tensor:
        """Crop, shift and flip. `slots` (N,) int64 are the samples' places in the global batch."""
        self._check(images, slots)
        draw = uniform(self.seed, step, purpose, slots.to(images.device), crops.DRAWS)
        size, (height, width) = self.image_size, images.shape[2:]
        if self.preset.area is None and height == width == size:  # whole pixels: a gather instead of a warp
            shift, flip = crops.shift_of(self.preset, draw, size), crops.flip_of(self.preset, draw)
            return self._normalized(_values(crops.shifted(images, shift, flip)))
        return self._normalized(affine.warp(*self._cropped(images, draw), size, "reflection"))

    def strong(self, images: Tensor, *, step: int, slots: Tensor, purpose: str) -> Tensor:
        """The weak view's crop, then the operations and the cutout of the preset; see `views.strong` for the order."""
        self._check(images, slots)
        count = crops.DRAWS + _CUTOUT_DRAWS + 2 * self.preset.slots
        draw = uniform(self.seed, step, purpose, slots.to(images.device), count)
        views = torch.empty(*images.shape[:2], self.image_size, self.image_size, device=images.device)
        rows = max(1, _CHUNK // (views.shape[1] * self.image_size**2)) if images.device.type == "cpu" else len(images)
        for part in zip(*(torch.split(whole, rows) for whole in (images, draw, views)), strict=True):
            self._strong(*part)
        return views

    def evaluation(self, images: Tensor) -> Tensor:
        """The middle square, resized if it must be; nothing is drawn."""
        self._check(images)
        height, width = images.shape[2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = _values(images[:, :, top : top + side, left : left + side])
        if side != self.image_size:
            square = interpolate(square, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        return self._normalized(square)

    def _strong(self, images: Tensor, draw: Tensor, views: Tensor) -> None:
        """Writes the strong views of a chunk into `views`."""
        constants, preset, size = self._on(images.device), self.preset, self.image_size
        for_crop, for_cutout, for_slots = draw.tensor_split((crops.DRAWS, crops.DRAWS + _CUTOUT_DRAWS), dim=1)
        slots = _chosen(constants, *for_slots.chunk(2, dim=1))
        pixels = strong.distorted(*self._cropped(images, for_crop), slots, preset, size)
        strong.recolored(pixels, slots, constants.scale[..., 0], constants.offset[..., 0], views)
        fill = 255 * preset.fill * constants.scale + constants.offset
        strong.cut_out(views, for_cutout, preset.cutout, fill)

    def _cropped(self, images: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """Values in 0..255, and the maps of their crops.

        Images of twice the views' size or more are first averaged over blocks of pixels, since the warp looks at no
        more than four neighbours.
        """
        values = _values(images)
        block = min(values.shape[2:]) // self.image_size
        if block > 1:
            values = avg_pool2d(values, block)
        height, width = values.shape[2:]
        return values, crops.crop_map(self.preset, draw, width, height, self.image_size)

    def _normalized(self, values: Tensor) -> Tensor:
        constants = self._on(values.device)
        return values * constants.scale + constants.offset

    def _on(self, device: torch.device) -> _Constants:
        if device not in self._constants:
            mean, std = (torch.tensor(numbers, device=device).view(-1, 1, 1) for numbers in (self.mean, self.std))
            places = [OPERATIONS.index(operation.name) for operation in self.preset.operations]
            ranges = [(operation.low, operation.high) for operation in self.preset.operations]
            low, high = torch.tensor(ranges, dtype=torch.float32, device=device).view(-1, 2).unbind(1)
            self._constants[device] = _Constants(
                scale=1 / (255 * std),
                offset=-mean / std,
                operation=torch.tensor(places, dtype=torch.int64, device=device),
                low=low,
                high=high,
            )
        return self._constants[device]

    def _check(self, images: Tensor, slots: Tensor | None = None) -> None:
        known = images.dtype == torch.uint8 or images.is_floating_point()
        if images.ndim != 4 or images.shape[1] != len(self.mean) or not known:
            raise UsageError(
                f"images must be (N, {len(self.mean)}, H, W), uint8 in 0..255 or floating in 0..1, one channel for "
                f"each number of mean={self.mean}; got {tuple(images.shape)} of {images.dtype}."
            )
        if slots is not None and slots.shape != images.shape[:1]:
            raise UsageError(f"slots must be ({len(images)},), one for each image; got {tuple(slots.shape)}.")


def _values(images: Tensor) -> Tensor:
    """uint8 in 0..255 or floating in 0..1 as float32 in 0..255."""
    return images.float() * 255 if images.is_floating_point() else images.float()


def _chosen(constants: _Constants, choice: Tensor, place: Tensor) -> Slots:
    """The operations that numbers in [0, 1) choose from the pool, and magnitudes at that place of their range."""
    chosen = (choice * len(constants.operation)).long()
    low, high = constants.low[chosen], constants.high[chosen]
    return Slots(constants.operation[chosen], low + (high - low) * place)

"""The views of a batch: weak, strong, and the plain one for evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from sfumato.views import affine, crops, pixels, strong
from sfumato.views.draws import uniform
from sfumato.views.presets import Preset, find
from sfumato.views.slots import chosen

_CUTOUT_DRAWS = 3


class Augment:
    """Weak, strong and evaluation views of whole batches, on the device the images are on.

    Every sample has operations and magnitudes of its own, drawn from (seed, step, purpose, slot) alone: a view does
    not depend on the rest of the batch and is the same after a resume. Views of one purpose share their crop and flip.

    Images are (N, channels, H, W), uint8 in 0..255 or floating in 0..1; views are (N, channels, image_size,
    image_size) float32, normalised.

    Args:
        preset: "digits", "natural32", "natural32_no_flip", "photos" (stored images larger than the views), or
            a `Preset`.
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
        pixels.check_statistics(mean, std)
        self.preset = find(preset)
        self.seed = seed
        self.image_size = image_size
        self.mean = mean
        self.std = std

    def weak(self, images: Tensor, *, step: int, slots: Tensor, purpose: str) -> Tensor:
        """Crop, shift and flip. `slots` (N,) int64 are the samples' places in the global batch."""
        pixels.check_images(images, self.mean, slots)
        draw = uniform(self.seed, step, purpose, slots.to(images.device), crops.DRAWS)
        size, (height, width) = self.image_size, images.shape[2:]
        if self.preset.area is None and height == width == size:  # whole pixels: a gather instead of a warp
            shift, flip = crops.shift_of(self.preset, draw, size), crops.flip_of(self.preset, draw)
            return self._normalized(pixels.values(crops.shifted(images, shift, flip)))
        return self._normalized(affine.warp(*self._cropped(images, draw), size, "reflection"))

    def strong(self, images: Tensor, *, step: int, slots: Tensor, purpose: str) -> Tensor:
        """The weak view's crop, then the operations and the cutout of the preset; see `views.strong` for the order."""
        pixels.check_images(images, self.mean, slots)
        count = crops.DRAWS + _CUTOUT_DRAWS + 2 * self.preset.slots
        draw = uniform(self.seed, step, purpose, slots.to(images.device), count)
        views = torch.empty(*images.shape[:2], self.image_size, self.image_size, device=images.device)
        rows = (
            max(1, pixels.CHUNK // (views.shape[1] * self.image_size**2))
            if images.device.type == "cpu"
            else len(images)
        )
        for part in zip(*(torch.split(whole, rows) for whole in (images, draw, views)), strict=True):
            self._strong(*part)
        return views

    def evaluation(self, images: Tensor) -> Tensor:
        """The middle square, resized if it must be; nothing is drawn."""
        pixels.check_images(images, self.mean)
        height, width = images.shape[2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = pixels.values(images[:, :, top : top + side, left : left + side])
        if side != self.image_size:
            square = interpolate(square, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        return self._normalized(square)

    def _strong(self, images: Tensor, draw: Tensor, views: Tensor) -> None:
        """Writes the strong views of a chunk into `views`."""
        preset, size = self.preset, self.image_size
        scale, offset = pixels.scale_and_offset(self.mean, self.std, images.device)
        for_crop, for_cutout, for_slots = draw.tensor_split((crops.DRAWS, crops.DRAWS + _CUTOUT_DRAWS), dim=1)
        slots = chosen(preset.operations, *for_slots.chunk(2, dim=1))
        distorted = strong.distorted(*self._cropped(images, for_crop), slots, preset, size)
        strong.recolored(distorted, slots, scale[..., 0], offset[..., 0], views)
        strong.cut_out(views, for_cutout, preset.cutout, 255 * preset.fill * scale + offset)

    def _cropped(self, images: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """Values in 0..255, and the maps of their crops.

        Images of twice the views' size or more are first averaged over blocks of pixels, since the warp looks at no
        more than four neighbours.
        """
        values = pixels.values(images)
        block = min(values.shape[2:]) // self.image_size
        if block > 1:
            values = avg_pool2d(values, block)
        height, width = values.shape[2:]
        return values, crops.crop_map(self.preset, draw, width, height, self.image_size)

    def _normalized(self, values: Tensor) -> Tensor:
        scale, offset = pixels.scale_and_offset(self.mean, self.std, values.device)
        return values * scale + offset

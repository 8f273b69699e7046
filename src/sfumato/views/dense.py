"""The views of images with masks: windows for the reader, then weak, strong and masked views and their mixing."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.types import Pasting, Pseudo, Windows
from sfumato.views import cutmix, dense_color, dense_presets, pixels, windows
from sfumato.views.boxes import draw_boxes
from sfumato.views.cutmix import CutMix
from sfumato.views.cutout import CutOut
from sfumato.views.dense_color import Recipe
from sfumato.views.dense_presets import DensePreset
from sfumato.views.draws import uniform
from sfumato.views.patches import draw_patches, with_patches


class DenseAugment:
    """Views of whole batches of crops, on the device the crops are on.

    Everything is drawn from (seed, step, purpose, slot) alone, so that a view depends on no other image of the batch
    (but for what CutMix pastes) and is the same after a resume. Windows, colors, boxes and patches of one purpose are
    independent of each other: one name per strong view is enough, and one for the window that all views share.

    Crops are (N, channels, h, w), uint8 in 0..255 or floating in 0..1, padded with black; views are the same shape in
    float32, normalized.

    Args:
        preset: "unimatch", "csl", "augseg", "u2pl", "small", or a `DensePreset`.
        seed: of the run.
        crop: (height, width) of the crops in pixels.
        mean: per channel, of values in 0..1.
        std: per channel, of values in 0..1.

    Raises:
        UsageError: an unknown preset, or images or slots of another kind than stated.

    """

    def __init__(
        self,
        preset: str | DensePreset,
        *,
        seed: int,
        crop: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        pixels.check_statistics(mean, std)
        if min(crop) < 1:
            raise UsageError(f"crop={crop} must be (height, width) in pixels, each 1 or more.")
        self.preset = dense_presets.find(preset)
        self.seed = seed
        self.crop = crop
        self.mean = mean
        self.std = std

    def windows(
        self, sizes: NDArray[np.int64], *, step: int, slots: NDArray[np.int64] | Tensor, purpose: str
    ) -> Windows:
        """What crops show of images of `sizes` (n, 2) width, height. See `views.windows` for the conventions."""
        return windows.draw_windows(
            self.preset, sizes, self.crop, seed=self.seed, step=step, slots=slots, purpose=purpose
        )

    def weak(self, images: Tensor) -> Tensor:
        """The crops as they are, normalized: their windows are all that is random in a weak view."""
        pixels.check_images(images, self.mean)
        return self._normalized(pixels.values(images))

    def evaluation(self, images: Tensor) -> Tensor:
        """Images of any size as they are, normalized."""
        return self.weak(images)

    def strong(self, images: Tensor, *, step: int, slots: Tensor, purpose: str) -> Tensor:
        """The crops in strong colors, before any CutMix. `slots` (N,) int64 are places in the global batch."""
        pixels.check_images(images, self.mean, slots)
        return self._colored(images, self._recipe(self.preset.colors, step, slots.to(images.device), purpose))

    def masked(self, images: Tensor, *, step: int, slots: Tensor, purpose: str) -> Tensor:
        """The view that goes with `patches` of the same purpose: gentle colors where these mask any, else strong."""
        pixels.check_images(images, self.mean, slots)
        slots = slots.to(images.device)
        gentle = self._recipe(self.preset.patches.colors, step, slots, purpose)
        recipe = self._recipe(self.preset.colors, step, slots, purpose)
        masks = with_patches(slots, self.preset.patches, seed=self.seed, step=step, purpose=f"{purpose} patches")
        return self._colored(images, recipe.unless(masks, gentle))

    def patches(self, *, step: int, slots: Tensor, purpose: str) -> Tensor:
        """(N, h, w) float32: 1 in the patches that may be masked, 0 all over an image that is to stay whole."""
        place = {"seed": self.seed, "step": step}
        return draw_patches(slots, self.crop, self.preset.patches, **place, purpose=f"{purpose} patches")

    def cutmix(self, *, step: int, slots: Tensor, purpose: str) -> CutMix:
        """The mixing of a strong view: boxes of its own for each image. See `views.cutmix` for who is whose partner."""
        place = {"seed": self.seed, "step": step}
        boxes = draw_boxes(self.preset.boxes, self.crop, **place, slots=slots, purpose=f"{purpose} boxes")
        return cutmix.from_boxes(boxes, self.crop)

    def cutout(self, *, step: int, slots: Tensor, purpose: str) -> CutOut:
        """The boxes that a strong view loses, with the noise that takes their place in the normalized view."""
        boxes = draw_boxes(
            self.preset.cutout, self.crop, seed=self.seed, step=step, slots=slots, purpose=f"{purpose} cutout"
        )
        channels, (height, width) = len(self.mean), self.crop
        noise = uniform(self.seed, step, f"{purpose} noise", slots, channels * height * width)
        return CutOut(cutmix.inside(boxes, self.crop), self._normalized(255 * noise.view(-1, channels, height, width)))

    def pasting(self, *, step: int, slots: Tensor, purpose: str) -> Pasting:
        """Boxes of labeled images, row i of the bank for image i, and boxes of other images of the batch."""
        place = {"seed": self.seed, "step": step}
        boxes = draw_boxes(
            self.preset.labeled_boxes, self.crop, **place, slots=slots, purpose=f"{purpose} labeled boxes"
        )
        rows = torch.arange(len(slots), device=slots.device)
        others = self.cutmix(step=step, slots=slots, purpose=purpose)
        return Pasting(cutmix.from_boxes(boxes, self.crop, rows), others)

    def classmix(self, pseudo: Pseudo, *, num_classes: int, step: int, slots: Tensor, purpose: str) -> CutMix:
        """The mixing by half of the partner's classes, of the images that the preset's boxes would mix at all."""
        draw = uniform(self.seed, step, f"{purpose} classes", slots, 1 + num_classes)
        mixing = cutmix.classmix(pseudo, draw[:, 1:])
        return mixing.only(draw[:, 0] < self.preset.boxes.probability)

    def _recipe(self, colors: dense_presets.Colors, step: int, slots: Tensor, purpose: str) -> Recipe:
        draw = uniform(self.seed, step, f"{purpose} colors", slots, dense_color.draws(colors))
        return dense_color.drawn(colors, draw)

    def _colored(self, images: Tensor, recipe: Recipe) -> Tensor:
        if images.device.type != "cpu":
            return self._normalized(dense_color.colored(pixels.values(images), recipe))
        views = torch.empty(images.shape)
        step = max(1, pixels.CHUNK // max(1, images.shape[1:].numel()))
        for start in range(0, len(images), step):
            values = pixels.values(images[start : start + step])
            colored = dense_color.colored(values, recipe.rows(start, start + step))
            views[start : start + step] = self._normalized(colored)
        return views

    def _normalized(self, values: Tensor) -> Tensor:
        scale, offset = pixels.scale_and_offset(self.mean, self.std, values.device)
        return values * scale + offset

"""Crop-then-resize against resize-then-crop: the pixels with PIL, the distribution by simulation."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.stats import ks_2samp

from sfumato.types import Windows
from sfumato.views import DENSE_PRESETS, DensePreset, draw_windows, uniform
from sfumato.views.windows import whole
from tests.views.pictures import pictures

SIZES = np.array([[160, 120], [90, 200], [64, 64], [301, 77]])
CROP = (97, 130)  # height, width


def drawn(preset, sizes, crop=CROP, *, seed=3, step=5, slots=None, purpose="p") -> Windows:
    slots = np.arange(len(sizes)) if slots is None else slots
    return draw_windows(preset, sizes, crop, seed=seed, step=step, slots=slots, purpose=purpose)


def picture(width: int, height: int, seed: int) -> tuple[Image.Image, Image.Image]:
    """A picture, and a mask of its grey values in eight classes."""
    image = pictures(1, side=max(width, height), seed=seed)[0, :, :height, :width].permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(image), Image.fromarray(image[..., 0] // 32)


def by_window(image: Image.Image, windows: Windows, row: int, how: Image.Resampling, fill: int) -> np.ndarray:
    crop = Image.new(image.mode, (CROP[1], CROP[0]), (fill,) * 3 if image.mode == "RGB" else fill)
    crop.paste(image.resize(tuple(windows.shape[row]), how, box=tuple(windows.box[row])))
    return np.array(ImageOps.mirror(crop) if windows.flip[row] else crop)


def resized_then_cropped(image: Image.Image, draw: np.ndarray, how: Image.Resampling, fill: int) -> np.ndarray:
    """The published order of things, a step at a time."""
    width, height = image.size
    long = max(width, height)
    long_side = int(0.5 * long) + int(draw[0] * (int(2.0 * long) - int(0.5 * long) + 1))
    if height > width:
        size = (int(width * long_side / height + 0.5), long_side)
    else:
        size = (long_side, int(height * long_side / width + 0.5))
    image = image.resize(size, how)
    padding = (0, 0, max(0, CROP[1] - size[0]), max(0, CROP[0] - size[1]))
    image = ImageOps.expand(image, border=padding, fill=(fill,) * 3 if image.mode == "RGB" else fill)
    left, top = (int(draw[1] * (image.width - CROP[1] + 1)), int(draw[2] * (image.height - CROP[0] + 1)))
    image = image.crop((left, top, left + CROP[1], top + CROP[0]))
    return np.array(ImageOps.mirror(image) if draw[3] < 0.5 else image)


def test_shows_the_pixels_of_resize_then_crop():
    sizes = np.repeat(SIZES, 12, axis=0)
    windows = drawn(DENSE_PRESETS["unimatch"], sizes)
    draws = uniform(3, 5, "p window", torch.arange(len(sizes)), 4).double().numpy()
    differences, agreements = [], []
    for row, (width, height) in enumerate(sizes):
        image, mask = picture(width, height, row)
        bilinear, nearest = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
        expected = resized_then_cropped(image, draws[row], bilinear, 0).astype(int)
        differences.append(np.abs(by_window(image, windows, row, bilinear, 0) - expected).ravel())
        masks = by_window(mask, windows, row, nearest, 255), resized_then_cropped(mask, draws[row], nearest, 255)
        agreements.append((masks[0] == masks[1]).mean())
        assert np.array_equal(masks[0] == 255, masks[1] == 255)  # the same padding, on the same side
    differences = np.concatenate(differences)
    assert differences.mean() < 0.05
    assert differences.max() <= 2  # PIL takes the box in single precision, and rounds between its two passes
    assert (differences > 1).mean() < 1e-5
    assert np.mean(agreements) > 0.99  # where a pixel's middle lies between two stored ones, either may be taken
    assert min(agreements) > 0.97


def test_has_the_distribution_of_resize_then_crop():
    count, size, crop = 20_000, np.array([300, 200]), 150
    windows = drawn(DensePreset(), np.tile(size, (count, 1)), (crop, crop))
    extent = windows.box[:, 2:] - windows.box[:, :2]
    generator, published = random.Random(0), []
    for _ in range(count):
        long_side = generator.randint(150, 600)
        width, height = long_side, int(200 * long_side / 300 + 0.5)
        left, top = generator.randint(0, max(0, width - crop)), generator.randint(0, max(0, height - crop))
        across, down = min(width, crop) * 300 / width, min(height, crop) * 200 / height
        published.append((across, down, left * 300 / width, top * 200 / height, min(height, crop)))
    ours = np.column_stack([extent, windows.box[:, :2], windows.shape[:, 1]])
    for here, there in zip(ours.T, np.array(published).T, strict=True):
        assert ks_2samp(here, there).pvalue > 1e-3
    assert abs(windows.flip.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(windows.flip, windows.box[:, 0])[0, 1]) < 0.03


@pytest.mark.parametrize("name", DENSE_PRESETS)
def test_windows_lie_in_their_images(name):
    sizes = np.tile(np.concatenate([SIZES, [[1, 500], [3, 1], [1, 1]]]), (300, 1))
    windows = drawn(DENSE_PRESETS[name], sizes)
    assert windows.box.dtype == np.float64
    assert windows.shape.dtype == np.int64
    assert windows.flip.dtype == np.bool_
    assert (windows.box[:, :2] >= 0).all()
    assert (windows.box[:, 2:] <= sizes).all()
    assert (windows.box[:, 2:] > windows.box[:, :2]).all()
    assert (windows.shape >= 1).all()
    assert (windows.shape <= [CROP[1], CROP[0]]).all()


def test_a_base_size_replaces_the_own_long_side():
    sizes = np.tile(SIZES, (500, 1))
    windows = drawn(DensePreset(base=100), sizes, (1000, 1000))
    assert windows.shape.max(1).min() == 50
    assert windows.shape.max(1).max() == 200
    own = drawn(DensePreset(), sizes, (1000, 1000)).shape.max(1) / sizes.max(1)
    assert own.min() == pytest.approx(0.5, abs=0.02)
    assert own.max() == pytest.approx(2, abs=0.02)


def test_a_window_depends_on_seed_step_purpose_and_slot_alone():
    sizes = np.tile(SIZES, (5, 1))
    slots = np.arange(20)
    first = drawn(DensePreset(), sizes)
    order = np.random.default_rng(0).permutation(20)
    again = drawn(DensePreset(), sizes[order], slots=slots[order])
    assert np.array_equal(first.box[order], again.box)
    assert np.array_equal(first.flip[order], again.flip)
    assert np.array_equal(first.box[3:7], drawn(DensePreset(), sizes[3:7], slots=torch.arange(3, 7)).box)
    for other in ({"seed": 4}, {"step": 6}, {"purpose": "q"}, {"slots": slots + 20}):
        assert (first.box != drawn(DensePreset(), sizes, **other).box).any(1).mean() > 0.8


def test_the_whole_image():
    windows = whole(SIZES)
    assert np.array_equal(windows.box[:, 2:], SIZES)
    assert not windows.box[:, :2].any()
    assert np.array_equal(windows.shape, SIZES)
    assert not windows.flip.any()

"""Pointwise operations against PIL, torchvision and loops."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms.v2 import functional as tv

from sfumato.views import strong, tables
from sfumato.views.slots import Slots, everywhere
from tests.views.pictures import pictures, slots_of


def applied(images: torch.Tensor, slots: Slots) -> torch.Tensor:
    """`images` uint8 after the pointwise operations, in 0..255."""
    pixels = images.long().flatten(2)
    return tables.composed(pixels, slots).gather(2, pixels).view(images.shape)


def to_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())


def from_pil(image: Image.Image) -> torch.Tensor:
    values = torch.from_numpy(np.array(image))
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1)


PIL_OPERATIONS = {
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "identity": lambda image, _: image,
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarize": lambda image, threshold: ImageOps.solarize(image, threshold),
}
CASES = [
    ("autocontrast", 0.0, 1),
    ("brightness", 0.3, 1),
    ("brightness", 1.5, 1),
    ("contrast", 0.05, 1),
    ("contrast", 1.6, 1),
    ("identity", 0.0, 0),
    ("posterize", 2.0, 0),
    ("posterize", 6.9, 0),
    ("solarize", 0.0, 0),
    ("solarize", 127.5, 0),
    ("solarize", 256.0, 0),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "magnitude", "tolerance"), CASES)
def test_equals_pil(name, magnitude, tolerance, channels):
    images = pictures(4, channels) // 2 + 40  # no channel fills the whole range
    views = applied(images, slots_of(*[((name, magnitude),)] * 4))
    for image, view in zip(images, views, strict=True):
        expected = from_pil(PIL_OPERATIONS[name](to_pil(image), magnitude)).float()
        assert (view - expected).abs().max() <= tolerance


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("autocontrast", tv.autocontrast),
        ("brightness", lambda image: tv.adjust_brightness(image, 0.7)),
        ("contrast", lambda image: tv.adjust_contrast(image, 0.7)),
        ("posterize", lambda image: tv.posterize(image, 3)),
        ("solarize", lambda image: tv.solarize(image, 100)),
    ],
)
def test_equals_torchvision(name, expected):
    images = pictures(4)
    magnitude = {"posterize": 3.0, "solarize": 100.0}.get(name, 0.7)
    views = applied(images, slots_of(*[((name, magnitude),)] * 4))
    assert (views - expected(images).float()).abs().max() <= 1


def equalized(values: list[int], bins: int) -> list[int]:
    """Each value to 255 times the share of pixels in darker bins, of those below the brightest bin."""
    width = 256 // bins
    places = [value // width for value in values]
    spread = sum(place < max(places) for place in places)
    if spread == 0:
        return values
    return [int(255 * sum(other < place for other in places) / spread + 0.5) for place in places]


@pytest.mark.parametrize("bins", [64, 256])
def test_equalize_against_a_loop(bins):
    images = pictures(3, side=9)
    views = applied(images, slots_of(*[(("equalize", bins),)] * 3))
    for image, view in zip(images.flatten(0, 1), views.flatten(0, 1), strict=True):
        assert view.flatten().tolist() == equalized(image.flatten().tolist(), bins)


def test_equalize_of_a_large_image_equals_pil():
    image = pictures(1, side=256)
    view = applied(image, slots_of((("equalize", 256),)))[0]
    assert (view - from_pil(ImageOps.equalize(to_pil(image[0]))).float()).abs().max() <= 1


def test_slots_apply_in_their_order():
    image = pictures(2) // 2 * 2  # halved without rounding, or values at the threshold would jump
    first = (("brightness", 0.5), ("solarize", 100.0))
    views = applied(image, slots_of(first, first[::-1]))
    expected = [
        tv.solarize(tv.adjust_brightness(image[0], 0.5), 100),
        tv.adjust_brightness(tv.solarize(image[1], 100), 0.5),
    ]
    assert (views - torch.stack(expected).float()).abs().max() <= 1


@pytest.mark.parametrize("second", ["autocontrast", "contrast", "equalize"])
def test_statistics_are_those_of_the_image_as_it_has_become(second):
    # Exactly the two operations one after the other on real pixels, which recounts them in between.
    images = pictures(4, side=16)
    magnitude = {"contrast": 1.6, "equalize": 64.0}.get(second, 0.0)
    once = applied(images, slots_of(*[(("solarize", 90.0),)] * 4)).to(torch.uint8)
    expected = applied(once, slots_of(*[((second, magnitude),)] * 4))
    assert torch.equal(applied(images, slots_of(*[(("solarize", 90.0), (second, magnitude))] * 4)), expected)


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("name", tables.POINTWISE)
def test_constant_images_stay_finite(name, value):
    image = torch.full((1, 3, 8, 8), value, dtype=torch.uint8)
    view = applied(image, slots_of(((name, 4.0), (name, 4.0))))
    assert view.isfinite().all()
    assert view.unique().numel() == 1
    if name in ("autocontrast", "equalize"):
        assert view.unique().item() == value


def test_histogram_counts():
    pixels = pictures(2, side=7).long().flatten(2)
    counts = tables.histogram(pixels)
    for image, count in zip(pixels.flatten(0, 1), counts.flatten(0, 1), strict=True):
        assert torch.equal(count.long(), torch.bincount(image, minlength=256))


def test_computing_every_row_gives_the_same(monkeypatch):
    # What an accelerator does: each operation runs on all samples, with the magnitudes of other operations.
    images = pictures(6)
    names = [*tables.POINTWISE, "rotate", "translate_x", "sharpness"]
    row = [(name, magnitude) for name, magnitude in zip(names, [0, 0.5, 1.4, 64, 3, 90, -30, -0.3, 0.5], strict=True)]
    slots = slots_of(*(tuple(row[place:] + row[:place]) for place in range(6)))
    expected = applied(images, slots)
    monkeypatch.setattr(tables, "on_rows", everywhere)
    assert torch.equal(applied(images, slots), expected)


def test_normalisation_rides_on_the_table():
    images = pictures(2)
    pixels = images.long().flatten(2)
    scale, offset = torch.tensor([[0.1], [0.2], [0.3]]), torch.tensor([[1.0], [2.0], [3.0]])
    views = torch.empty(images.shape)
    strong.recolored(pixels, slots_of((("identity", 0.0),), (("identity", 0.0),)), scale, offset, views)
    assert torch.equal(views, images * scale[..., None] + offset[..., None])

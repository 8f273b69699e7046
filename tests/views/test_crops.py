import pytest
import torch
from torch.nn.functional import pad

from sfumato.views import crops, uniform
from sfumato.views.presets import PRESETS, Preset
from tests.views.pictures import pictures, plain

MANY = torch.arange(4000)


def test_shifted_equals_padding_and_cutting():
    images = pictures(50, side=28)
    draw = uniform(0, 0, "p", torch.arange(50), crops.DRAWS)
    preset = PRESETS["natural32"]
    shift, flip = crops.shift_of(preset, draw, 28), crops.flip_of(preset, draw)
    views = crops.shifted(images, shift, flip)
    assert views.dtype == torch.uint8
    padded = pad(images.float(), (4, 4, 4, 4), mode="reflect")
    for place, ((right, down), mirrored) in enumerate(zip(shift.tolist(), flip.tolist(), strict=True)):
        expected = padded[place, :, 4 + down : 32 + down, 4 + right : 32 + right]
        # The picture is mirrored within its shifted window.
        expected = expected if not mirrored else flipped_window(padded[place], right, down)
        assert torch.equal(views[place].float(), expected)


def flipped_window(padded: torch.Tensor, right: int, down: int) -> torch.Tensor:
    """The window moved to the right of the mirrored image, padded likewise."""
    return padded.flip(2)[:, 4 + down : 32 + down, 4 - right : 32 - right]


@pytest.mark.parametrize(("name", "side", "reach"), [("digits", 28, 4), ("natural32", 32, 4), ("digits", 8, 1)])
def test_every_whole_shift_is_equally_likely(name, side, reach):
    shift = crops.shift_of(PRESETS[name], uniform(0, 0, "p", MANY, crops.DRAWS), side)
    assert shift.min() == -reach
    assert shift.max() == reach
    share = torch.bincount(shift[:, 0] + reach) / len(MANY)
    assert (share - 1 / (2 * reach + 1)).abs().max() < 0.03


@pytest.mark.parametrize(
    ("name", "probability"), [("digits", 0.0), ("natural32", 0.5), ("natural32_no_flip", 0.0), ("photos", 0.5)]
)
def test_flip_probability(name, probability):
    flip = crops.flip_of(PRESETS[name], uniform(0, 0, "p", MANY, crops.DRAWS))
    assert abs(float(flip.float().mean()) - probability) < 0.03


@pytest.mark.parametrize("name", ["natural32", "digits"])
def test_the_warp_of_a_crop_equals_the_gather(name):
    images = pictures(40)
    draw = uniform(0, 0, "p", torch.arange(40), crops.DRAWS)
    preset = PRESETS[name]
    gathered = crops.shifted(images, crops.shift_of(preset, draw, 32), crops.flip_of(preset, draw)).float()
    theta = crops.crop_map(preset, draw, 32, 32, 32)
    warped = crops.affine.warp(images.float(), theta, 32, "reflection")
    assert torch.allclose(warped, gathered, atol=0.02)


def test_random_crops_stay_inside_and_cover_their_range():
    preset = Preset((), slots=0, area=(0.25, 1.0))
    theta = crops.crop_map(preset, uniform(0, 0, "p", MANY, crops.DRAWS), 100, 80, 64)
    reach = theta[:, :, :2].abs().sum(2) + theta[:, :, 2].abs()
    assert (reach <= torch.tensor([100 / 99, 80 / 79]) + 1e-5).all()  # the outer borders of the outer pixels
    width, height = theta[:, 0, 0] * 99 / 2, theta[:, 1, 1] * 79 / 2
    share, ratio = 4 * width * height / 80**2, width / height
    assert 0.25 - 1e-4 <= share.min() < 0.27
    assert 0.9 < share.max() <= 1 + 1e-4
    assert 3 / 4 - 1e-3 <= ratio.min() < 0.78
    assert 1.28 < ratio.max() <= 4 / 3 + 1e-3


def test_photos_show_a_part_of_the_image():
    ramp = torch.arange(96).view(1, 1, 1, 96).expand(64, 3, 96, 96).to(torch.uint8)
    views = plain("photos", size=48).weak(ramp, step=0, slots=torch.arange(64), purpose="p")
    span = (views[..., -1] - views[..., 0]).abs().mean((1, 2)) * 255
    assert views.shape == (64, 3, 48, 48)
    assert 50 < span.min() < 75
    assert 80 < span.max() <= 96


@pytest.mark.parametrize("size", [28, 40])
def test_another_size_resizes(size):
    images = pictures(3, side=32)
    views = plain(Preset((), slots=0), size=size).weak(images, step=0, slots=torch.arange(3), purpose="p")
    expected = torch.nn.functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=False)
    inner = slice(2, -2)
    assert torch.allclose(views[..., inner, inner] * 255, expected[..., inner, inner], atol=0.05)

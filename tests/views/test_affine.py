"""Geometry against PIL, whose `transform` also asks where each pixel of the view comes from."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.views import affine, crops
from sfumato.views.presets import Preset
from tests.views.pictures import only, pictures, plain, slots_of

WHOLE = Preset((), slots=0)


def whole(count: int, side: int) -> torch.Tensor:
    return crops.crop_map(WHOLE, torch.zeros(count, crops.DRAWS), side, side, side)


def warped(image: torch.Tensor, *operations: tuple[str, float]) -> torch.Tensor:
    """One image (1, side, side) float, zeros beyond its border."""
    side = image.shape[-1]
    return affine.warp(image[None], affine.distort(whole(1, side), slots_of(operations)), side, "zeros")[0]


def by_pil(image: torch.Tensor, matrix: tuple[float, ...]) -> torch.Tensor:
    """The affine map about the centre, in pixels."""
    side = image.shape[-1]
    a, b, c, d, e, f = matrix
    middle = side / 2
    about = (a, b, c + middle - a * middle - b * middle, d, e, f + middle - d * middle - e * middle)
    view = Image.fromarray(image[0].numpy()).transform(
        (side, side), Image.Transform.AFFINE, about, Image.Resampling.BILINEAR
    )
    return torch.from_numpy(np.array(view))[None]


def inner(view: torch.Tensor) -> torch.Tensor:
    """Without the border, where PIL does not blend with what lies beyond; only within the image's own reach."""
    side = view.shape[-1]
    return view[..., side // 3 : -side // 3, side // 3 : -side // 3]


MATRICES = [
    ("shear_x", 0.2, (1, 0.2, 0, 0, 1, 0)),
    ("shear_y", -0.3, (1, 0, 0, -0.3, 1, 0)),
    ("translate_x", 0.25, (1, 0, 8, 0, 1, 0)),
    ("translate_y", -0.1, (1, 0, 0, 0, 1, -3.2)),
]


@pytest.mark.parametrize(("name", "magnitude", "matrix"), MATRICES)
def test_shear_and_translate_equal_pil(name, magnitude, matrix):
    image = pictures(1, channels=1)[0].float()
    assert torch.allclose(inner(warped(image, (name, magnitude))), inner(by_pil(image, matrix)), atol=0.05)


@pytest.mark.parametrize("degrees", [-30.0, 12.5, 90.0])
def test_rotation_equals_pil(degrees):
    image = pictures(1, channels=1)[0].float()
    expected = Image.fromarray(image[0].numpy()).rotate(degrees, Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(expected))[None]
    assert torch.allclose(inner(warped(image, ("rotate", degrees))), inner(expected), atol=0.05)


def test_a_quarter_turn_is_exact_and_anticlockwise():
    image = pictures(1, channels=1)[0].float()
    assert torch.allclose(warped(image, ("rotate", 90.0)), image.rot90(1, (1, 2)), atol=0.02)


def test_no_operation_is_the_identity():
    image = pictures(1, channels=1)[0].float()
    assert torch.allclose(warped(image, ("identity", 0.0), ("equalize", 64.0)), image, atol=0.01)


def test_slots_apply_in_their_order():
    image = pictures(1, channels=1, side=64)[0].float()
    turned_then_moved = warped(warped(image, ("rotate", 90.0)), ("translate_x", 0.25))
    composed = warped(image, ("rotate", 90.0), ("translate_x", 0.25))
    assert torch.allclose(composed, turned_then_moved, atol=0.05)
    assert not torch.allclose(composed, warped(image, ("translate_x", 0.25), ("rotate", 90.0)), atol=5)


def test_compose_equals_matrix_product():
    generator = torch.Generator().manual_seed(0)
    outer, inner_ = torch.randn(2, 5, 2, 3, generator=generator)
    bottom = torch.tensor([0.0, 0.0, 1.0]).expand(5, 1, 3)
    product = torch.cat((outer, bottom), 1) @ torch.cat((inner_, bottom), 1)
    assert torch.allclose(affine.compose(outer, inner_), product[:, :2], atol=1e-6)


def test_crop_shows_the_rectangle_it_names():
    image = torch.arange(12.0 * 20).view(1, 1, 12, 20)
    theta = affine.crop(20, 12, torch.tensor([[4.0, -2.0]]), torch.tensor([[3.0, 3.0]]))
    assert torch.allclose(affine.warp(image, theta, 6, "zeros"), image[..., 1:7, 11:17], atol=1e-3)
    mirrored = affine.crop(20, 12, torch.tensor([[4.0, -2.0]]), torch.tensor([[-3.0, 3.0]]))
    assert torch.allclose(affine.warp(image, mirrored, 6, "zeros"), image[..., 1:7, 11:17].flip(3), atol=1e-3)


@pytest.mark.parametrize("padding", ["zeros", "reflection"])
def test_beyond_the_border(padding):
    image = torch.full((1, 1, 32, 32), 200, dtype=torch.uint8)
    augment = plain(only("translate_x", 0.25, padding=padding), channels=1)
    view = augment.strong(image, step=0, slots=torch.tensor([0]), purpose="p")[0, 0]
    right = 0.0 if padding == "zeros" else 200 / 255
    assert torch.allclose(view[:, :24], torch.tensor(200 / 255))
    assert torch.allclose(view[:, 24:], torch.tensor(right))


def test_rotation_keeps_lengths():
    theta = affine.distort(whole(1, 33), slots_of((("rotate", 37.0),)))[0, :, :2] * 32 / 33
    assert torch.allclose(theta @ theta.T, torch.eye(2), atol=1e-6)
    assert math.isclose(float(theta.det()), 1.0, abs_tol=1e-6)

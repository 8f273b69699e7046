import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torchvision.transforms.v2 import functional as tv

from sfumato.views import filters
from tests.views.pictures import pictures


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.95, 1.6])
@pytest.mark.parametrize(
    ("name", "pil", "torchvision"),
    [
        ("sharpen", ImageEnhance.Sharpness, tv.adjust_sharpness),
        ("saturate", ImageEnhance.Color, tv.adjust_saturation),
    ],
)
def test_equals_pil_and_torchvision(name, pil, torchvision, factor):
    images = pictures(3)
    views = getattr(filters, name)(images.float(), torch.full((3,), factor))
    for image, view in zip(images, views, strict=True):
        enhanced = pil(Image.fromarray(image.permute(1, 2, 0).numpy())).enhance(factor)
        # Both round the plainer image to whole values, and cut off the fraction of the result.
        assert (view - torch.from_numpy(np.array(enhanced)).permute(2, 0, 1)).abs().max() < 2
        assert (view - torchvision(image, factor)).abs().max() < 2


def test_a_factor_for_each_sample():
    images = pictures(3).float()
    factors = torch.tensor([0.2, 1.0, 1.7])
    for operation in (filters.sharpen, filters.saturate):
        views = operation(images, factors)
        apart = torch.cat([operation(images[place : place + 1], factors[place : place + 1]) for place in range(3)])
        assert torch.equal(views, apart)
        assert (views[1] - images[1]).abs().max() < 1e-4
        assert views.min() >= 0
        assert views.max() <= 255


def test_a_grey_image_has_no_color():
    images = pictures(2, channels=1).float()
    assert torch.equal(filters.saturate(images, torch.tensor([0.1, 1.5])), images)


def test_the_border_stays_unsharpened():
    images = pictures(1).float()
    view = filters.sharpen(images, torch.tensor([0.0]))
    assert torch.equal(view[..., 0, :], images[..., 0, :])
    assert torch.equal(view[..., -1], images[..., -1])
    assert not torch.equal(view[..., 1:-1, 1:-1], images[..., 1:-1, 1:-1])


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 0.25])
def test_turned_hues_equal_torchvision(turns):
    pure = torch.tensor([[0.0, 255, 255], [255.0, 0, 9], [7, 7, 7], [255, 255, 0]]).T.reshape(1, 3, 1, 4)
    images = torch.cat([pictures(3).float(), pure.repeat(1, 1, 32, 8)])
    views = filters.turn(images, torch.full((4,), turns))
    assert (views / 255 - tv.adjust_hue(images / 255, turns)).abs().max() < 1e-5
    assert torch.allclose(views.amax(1), images.amax(1), atol=1e-3)
    assert torch.allclose(views.amin(1), images.amin(1), atol=1e-3)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_a_blur_equals_pil(sigma):
    # PIL puts three box filters in place of the Gaussian, each rounded.
    images = pictures(2, side=48)
    views = filters.blur(images.float(), torch.full((2,), sigma), widest=2.0)
    for image, view in zip(images, views, strict=True):
        blurred = Image.fromarray(image.permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(sigma))
        difference = (view - torch.from_numpy(np.array(blurred)).permute(2, 0, 1)).abs()
        assert difference.mean() < 1
        assert difference.max() < 4


def test_a_blur_keeps_constants_and_sums_and_bears_any_size():
    sigma = torch.tensor([0.0, 1.3])
    for shape in ((2, 3, 1, 1), (2, 3, 2, 5), (2, 1, 40, 3)):
        assert torch.allclose(filters.blur(torch.full(shape, 200.0), sigma, widest=2.0), torch.tensor(200.0))
    point = torch.zeros(2, 1, 31, 31)
    point[..., 15, 15] = 255
    views = filters.blur(point.clone(), sigma, widest=2.0)
    assert torch.allclose(views.sum((1, 2, 3)), torch.tensor(255.0))
    assert torch.equal(views[0], point[0])
    across = torch.arange(31.0) - 15
    assert float((views[1, 0].sum(0) * across.square()).sum() / 255) ** 0.5 == pytest.approx(1.3, abs=0.01)


def test_turns_and_blurs_of_each_sample():
    images, amounts = pictures(3).float(), torch.tensor([0.1, 0.3, 0.45])
    for operation in (filters.turn, lambda rows, amount: filters.blur(rows, amount, widest=0.5)):
        apart = torch.cat([operation(images[row : row + 1], amounts[row : row + 1]) for row in range(3)])
        assert torch.equal(operation(images.clone(), amounts), apart)

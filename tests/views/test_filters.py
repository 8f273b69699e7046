import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
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

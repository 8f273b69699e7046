from __future__ import annotations

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.models import build_model


def test_it_has_98042_parameters() -> None:
    model = build_model("small", num_classes=10, in_channels=1, image_size=28)
    assert sum(parameter.numel() for parameter in model.parameters()) == 98_042


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("size", [8, 9, 28, 33])
def test_any_size_from_8_pixels(norm: str, size: int) -> None:
    model = build_model("small", num_classes=3, in_channels=2, image_size=size, norm=norm)
    out = model(torch.randn(4, 2, size, size))
    assert out.logits.shape == (4, 3)
    assert out.features is not None
    assert out.features.shape == (4, model.num_features) == (4, 64)


def test_smaller_images_are_refused() -> None:
    with pytest.raises(UsageError, match="'small' needs images of at least 8 px, image_size=7"):
        build_model("small", num_classes=10, image_size=7)


def test_with_group_norm_the_output_of_an_image_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 1, 16, 16)
    for norm, alone_equals_together in (("group", True), ("batch", False)):
        model = build_model("small", num_classes=4, in_channels=1, image_size=16, norm=norm)
        together, alone = model(x).logits[:2], model(x[:2]).logits
        assert torch.allclose(together, alone, atol=1e-5) == alone_equals_together


def test_unknown_options_name_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'small' has no option 'nrom'. Did you mean 'norm'?"):
        build_model("small", num_classes=10, image_size=28, nrom="group")
    with pytest.raises(UsageError, match=r"unknown norm 'gruop'. Did you mean 'group'?"):
        build_model("small", num_classes=10, image_size=28, norm="gruop")

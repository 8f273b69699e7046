from __future__ import annotations

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.models.timm_encoder import TimmEncoder, timm_encoder


def encoder(name: str, **options: object) -> TimmEncoder:
    return timm_encoder(name, **{"in_channels": 3, "pretrained": False, "skips": None, "options": {}, **options})


@pytest.mark.parametrize(
    ("name", "channels", "sides"),
    [
        ("test_resnet", (32, 48, 192, 96), [24, 12, 6, 3]),
        ("convnext_atto", (40, 80, 160, 320), [24, 12, 6, 3]),  # has no map finer than stride 4
        ("vgg11", (256, 512, 512, 512), [24, 12, 6, 3]),  # has one at stride 1
        ("test_vit", (64, 64, 64), [6, 6, 6]),  # has one stride
    ],
)
def test_maps_from_stride_4_on(name: str, channels: tuple[int, ...], sides: list[int]) -> None:
    made = encoder(name)
    maps = made.eval()(torch.randn(1, 3, 96, 96))
    assert tuple(one.shape[1] for one in maps) == channels == made.channels
    assert [one.shape[2] for one in maps] == [one.shape[3] for one in maps] == sides
    assert (96 // made.finest, 96 // made.deepest) == (sides[0], sides[-1])


def test_maps_with_channels_last_are_turned() -> None:
    made = encoder("swin_tiny_patch4_window7_224", options={"strict_img_size": False, "depths": (1, 1, 1, 1)})
    assert [one.shape[1] for one in made(torch.randn(1, 3, 64, 96))] == [96, 192, 384, 768]
    assert made.multiple == 32


def test_the_finest_skips() -> None:
    made = encoder("test_resnet", skips=1)
    assert made.channels == (32, 96)
    assert (made.finest, made.deepest) == (4, 32)


def test_a_net_that_cannot_have_the_stride() -> None:
    with pytest.raises(UsageError, match=r"'efficientformer_l1' cannot have output_stride=8. Use output_stride=32 for"):
        encoder("efficientformer_l1", output_stride=8)
    with pytest.raises(UsageError, match=r"'test_vit' cannot have output_stride=8. Use output_stride=16 for the net"):
        encoder("test_vit", output_stride=8)
    assert encoder("test_vit", output_stride=16).deepest == 16


def test_a_net_for_images_of_one_size() -> None:
    with pytest.raises(UsageError, match=r"'vit_tiny_patch16_224' cannot take images of 32x48 px: .*dynamic_img_size"):
        encoder("vit_tiny_patch16_224")
    made = encoder("vit_tiny_patch16_224", options={"dynamic_img_size": True})
    assert made.multiple == 16


def test_a_net_with_one_coarse_map_only() -> None:
    with pytest.raises(UsageError, match=r"'test_resnet' has one map of stride 4 or more, and a decoder needs two"):
        encoder("test_resnet", options={"out_indices": (0, 1)})

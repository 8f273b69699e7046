from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.models import build_segmenter
from sfumato.models.deeplab import Pooled


def rates(model: nn.Module) -> list[int]:
    found = [one.dilation[0] for one in model.decoder.modules() if isinstance(one, nn.Conv2d)]
    return [rate for rate in found if rate > 1]


@pytest.mark.parametrize(("output_stride", "dilations"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
def test_the_output_stride_and_the_rates_that_go_with_it(output_stride: int, dilations: list[int]) -> None:
    model = build_segmenter("deeplabv3plus", num_classes=3, encoder="test_resnet", width=8, output_stride=output_stride)
    assert rates(model) == dilations
    skip, deep = model.encode(torch.randn(1, 3, 64, 96))
    assert skip.shape[2:] == (16, 24)
    assert deep.shape[2:] == (64 // output_stride, 96 // output_stride)
    assert model.encoder.deepest == output_stride


def test_the_reference_has_full_convolutions_256_channels_and_no_dropout() -> None:
    with torch.device("meta"):
        model = build_segmenter("deeplabv3plus", num_classes=21, encoder="test_resnet")
    convolutions = [one for one in model.decoder.modules() if isinstance(one, nn.Conv2d)]
    assert all(one.groups == 1 for one in convolutions)
    assert not any(isinstance(one, nn.Dropout | nn.Dropout2d) for one in model.modules())
    assert [(one.in_channels, one.out_channels) for one in convolutions] == [
        *[(96, 256)] * 5,  # 1x1, three dilated 3x3, mean
        (5 * 256, 256),
        (32, 48),
        (256 + 48, 256),
        (256, 256),
    ]
    assert (model.classifier.in_channels, model.classifier.kernel_size) == (256, (1, 1))


def test_given_rates() -> None:
    model = build_segmenter("deeplabv3plus", num_classes=3, encoder="test_resnet", width=8, rates=[2, 4])
    assert rates(model) == [2, 4]
    assert model(torch.randn(1, 3, 40, 40)).logits.shape == (1, 3, 40, 40)


def test_the_pooled_branch_of_an_image_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    branch = Pooled(12, 8).train()
    x = torch.randn(3, 12, 4, 5)
    assert torch.allclose(branch(x)[:1], branch(x[:1]), atol=1e-6)
    assert branch(x).shape == (3, 8, 4, 5)
    assert branch(x)[0, :, 0, 0].equal(branch(x)[0, :, 3, 4])
    assert branch(x)[0].std() > 0.1


def test_a_crop_of_513() -> None:
    model = build_segmenter("deeplabv3plus", num_classes=3, encoder="test_resnet", width=8, skip_width=8)
    out = model(torch.randn(1, 3, 513, 513))
    assert out.logits.shape == (1, 3, 513, 513)
    assert out.features.shape == (1, 8, 129, 129)

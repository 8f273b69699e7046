from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.models import build_model


def test_it_has_1467610_parameters() -> None:
    model = build_model("wrn_28_2", num_classes=10, image_size=32)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_467_610


def test_28_layers_with_weights() -> None:
    model = build_model("wrn_28_2", num_classes=10, image_size=32)
    sizes = [module.kernel_size for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert sizes.count((3, 3)) == 1 + 3 * 4 * 2
    assert sizes.count((1, 1)) == 3  # 25 + 3 = 28, the count that gives the net its name


def test_norms_and_initialisation_of_the_classic_protocol() -> None:
    torch.manual_seed(0)
    model = build_model("wrn_28_2", num_classes=10, image_size=32)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 25
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.001, 0.001)}
    last = model.get_parameter("backbone.stages.2.3.conv2.weight")
    fan_out = last.shape[0] * 9
    assert last.std().item() == pytest.approx((2 / (1 + 0.01**2) / fan_out) ** 0.5, rel=0.02)
    assert model.head.weight.std().item() == pytest.approx((2 / (128 + 10)) ** 0.5, rel=0.1)
    assert not model.head.bias.any()


def test_norm_momentum_is_the_weight_of_the_old_value() -> None:
    model = build_model("wrn_28_2", num_classes=2, image_size=32, norm_momentum=0.9)
    assert {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_every_parameter_takes_part() -> None:
    """A parameter without gradient would stop distributed training, which waits for all of them."""
    model = build_model("wrn_28_2", num_classes=5, image_size=16)
    model(torch.randn(4, 3, 16, 16)).logits.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("size", [8, 21, 32])
def test_any_size(size: int) -> None:
    model = build_model("wrn_28_2", num_classes=7, in_channels=1, image_size=size).eval()
    out = model(torch.randn(2, 1, size, size))
    assert out.logits.shape == (2, 7)
    assert out.features.shape == (2, 128)


def test_the_wider_net_and_the_one_for_96_pixels_have_the_published_sizes() -> None:
    for name, size, parameters in (("wrn_28_8", 32, 23_354_842), ("wrn_37_2", 96, 5_929_434)):
        model = build_model(name, num_classes=10, image_size=size)
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.num_features == 256
    with torch.no_grad():
        trunk = model.backbone.stages(model.backbone.stem(torch.zeros(1, 3, 96, 96)))
    assert trunk.shape == (1, 256, 6, 6)  # four strides of 2

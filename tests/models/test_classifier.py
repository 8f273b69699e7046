from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.errors import UsageError
from sfumato.models import Classifier, FeatureDropout, build_model, complementary, model_names


def small(**options: object) -> Classifier:
    return build_model("small", **{"num_classes": 4, "in_channels": 1, "image_size": 16, **options})


@pytest.mark.parametrize("name", ["small", "wrn_28_2", "test_vit"])
@pytest.mark.parametrize("classes", [2, 1000])
def test_two_and_a_thousand_classes(name: str, classes: int) -> None:
    model = build_model(name, num_classes=classes, image_size=16)
    out = model(torch.randn(3, 3, 16, 16))
    assert out.logits.shape == (3, classes)
    assert out.logits.isfinite().all()
    assert out.features.shape == (3, model.num_features)
    assert model.num_classes == classes


def test_groups_hold_every_parameter_once_and_decay_only_those_of_several_axes() -> None:
    model = small()
    groups = model.parameter_groups(lr=0.1, weight_decay=5e-4, backbone_lr_scale=0.3)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    for group in groups:
        plain = group["name"].endswith("no decay")
        assert group["weight_decay"] == (0.0 if plain else 5e-4)
        assert all((parameter.ndim <= 1) == plain for parameter in group["params"])
        assert group["lr"] == pytest.approx(0.03 if group["name"].startswith("backbone") else 0.1)
    assert [group["name"] for group in groups] == ["backbone", "backbone, no decay", "head", "head, no decay"]
    torch.optim.SGD(groups, lr=0.1)


def test_the_position_table_of_a_transformer_is_not_decayed() -> None:
    model = build_model("test_vit", num_classes=4, image_size=32)
    tables = {id(model.get_parameter(f"backbone.{name}")) for name in ("pos_embed", "cls_token")}
    plain = {id(one) for group in model.parameter_groups(lr=1, weight_decay=1)[1:2] for one in group["params"]}
    assert tables <= plain


def test_a_frozen_backbone_has_no_group_and_no_learning_rate_of_its_own() -> None:
    model = small(frozen=True)
    groups = model.parameter_groups(lr=0.1, weight_decay=0.1)
    assert {id(one) for group in groups for one in group["params"]} == {id(one) for one in model.head.parameters()}
    with pytest.raises(UsageError, match=r"backbone_lr_scale=0.1 asks .* frozen. Use frozen=false"):
        model.parameter_groups(lr=0.1, weight_decay=0.1, backbone_lr_scale=0.1)


def test_an_empty_group_is_an_error() -> None:
    model = small()
    model.head.requires_grad_(False)
    with pytest.raises(UsageError, match="The head has no parameter that takes a gradient"):
        model.parameter_groups(lr=0.1, weight_decay=0.1)
    model = small()
    model.backbone.requires_grad_(False)
    with pytest.raises(UsageError, match="The backbone has no parameter that takes a gradient"):
        model.parameter_groups(lr=0.1, weight_decay=0.1)
    with pytest.raises(UsageError, match="backbone_lr_scale=0 must be above 0"):
        model.parameter_groups(lr=0.1, weight_decay=0.1, backbone_lr_scale=0)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_keeps_weights_and_statistics(frozen: bool) -> None:
    torch.manual_seed(0)
    model = small(frozen=frozen).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameter_groups(lr=0.1, weight_decay=0.1))
    model(torch.randn(8, 1, 16, 16)).logits.square().mean().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert {"head.weight", "head.bias"} <= changed
    assert any(name.startswith("backbone") for name in changed) != frozen
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.training != frozen for norm in norms)
    assert model.head.training


def test_gradient_still_flows_to_the_images_of_a_frozen_backbone() -> None:
    x = torch.randn(2, 1, 16, 16, requires_grad=True)
    small(frozen=True)(x).logits.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_features_are_those_before_dropout() -> None:
    torch.manual_seed(0)
    model = small(dropout=0.5, norm="group").train()
    x = torch.randn(4, 1, 16, 16)
    one, two = model(x), model(x)
    assert one.features.equal(two.features)
    assert not one.logits.equal(two.logits)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"num_classes": 1}, "num_classes=1: a classifier needs at least 2 classes"),
        ({"in_channels": 0}, "in_channels=0: images have at least 1 channel"),
        ({"image_size": 0}, "image_size=0: expected the side of the images"),
        ({"dropout": 1.0}, "dropout=1.0: expected a share"),
        ({"pretrained": True}, "'small' has no pretrained weights. Use pretrained=false"),
        ({"pretrained": True, "weights": "x.pth"}, "Both pretrained=true and weights=x.pth"),
    ],
)
def test_values_out_of_range(wrong: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        small(**wrong)


def test_names() -> None:
    names = model_names()
    assert names[:4] == ["small", "wrn_28_2", "wrn_28_8", "wrn_37_2"]
    assert {"resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0"} <= set(names)
    with pytest.raises(UsageError, match=r"Unknown model 'wrn_28_3'. Did you mean 'wrn_28_8' or 'wrn_28_2'"):
        build_model("wrn_28_3", num_classes=2, image_size=32)
    with pytest.raises(UsageError, match=r"Unknown model 'resnet18s'. Did you mean 'resnet18'"):
        build_model("resnet18s", num_classes=2, image_size=32)
    known = r"Known: small, wrn_28_2, wrn_28_8, wrn_37_2, and every name that timm"
    with pytest.raises(UsageError, match=f"Unknown model 'qqqq'. {known}"):
        build_model("qqqq", num_classes=2, image_size=32)


def test_the_features_before_the_head_are_dropped() -> None:
    model, x = small().eval(), torch.randn(5, 1, 16, 16)
    plain = model(x)
    assert model.tap_channels == (64,)
    rows, mask = torch.tensor([4, 2]), 2.0 * (torch.rand(2, 64) < 0.5)
    again = model(x, FeatureDropout(rows, (mask,), again=True))
    torch.testing.assert_close(again.logits[:5], plain.logits)
    torch.testing.assert_close(again.features[5:], plain.features[rows] * mask)
    torch.testing.assert_close(again.logits[5:], model.head(plain.features[rows] * mask))
    pair = complementary((64,), torch.tensor([0]), torch.tensor([3]), torch.rand(1, 64), torch.rand(1))
    halves = model(torch.cat([x[:3], x[:2]]), pair)  # the fourth image is the first
    torch.testing.assert_close(halves.features[0] + halves.features[3], 2 * plain.features[0])
    torch.testing.assert_close(halves.logits[[1, 2, 4]], plain.logits[[1, 2, 1]])


def test_a_frozen_backbone_is_perturbed_behind_it() -> None:
    model = small(frozen=True, dropout=0.5).train()
    x, mask = torch.randn(3, 1, 16, 16), torch.ones(3, 64)
    out = model(x, FeatureDropout(torch.arange(3), (mask,), again=True))
    assert torch.equal(out.features[:3], out.features[3:])
    out.logits.sum().backward()
    assert model.head.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.backbone.parameters())

from __future__ import annotations

import pytest
import timm
import torch

from sfumato.errors import UsageError
from sfumato.models import build_model


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [
        ("vit_tiny_patch16_224", 32, 3),  # fixed size, built for this one
        ("vit_tiny_patch16_224", 28, 1),  # no multiple of the patch
        ("test_vit", 20, 4),
        ("swin_tiny_patch4_window7_224", 32, 3),
        ("resnet18", 45, 1),
        ("mobilenetv3_small_050", 40, 3),  # has a hidden layer after pooling
    ],
)
def test_by_name_at_a_small_size(name: str, size: int, channels: int) -> None:
    model = build_model(name, num_classes=5, in_channels=channels, image_size=size)
    out = model(torch.randn(2, channels, size, size))
    assert out.logits.shape == (2, 5)
    assert out.features.shape == (2, model.num_features)
    out.logits.sum().backward()
    assert model.head.weight.grad is not None
    assert model.normalization == ((0.5,) * channels, (0.5,) * channels)
    assert model.training


def test_padding_lets_every_pixel_count() -> None:
    torch.manual_seed(0)
    model = build_model("vit_tiny_patch16_224", num_classes=5, in_channels=1, image_size=28).eval()
    x = torch.zeros(1, 1, 28, 28, requires_grad=True)
    model(x).features.square().sum().backward()
    assert (x.grad != 0).all()


def test_a_size_the_net_cannot_take() -> None:
    with pytest.raises(UsageError, match=r"'inception_v3' cannot take images of 32 px: .* Use a larger image_size"):
        build_model("inception_v3", num_classes=2, image_size=32)


def test_wrong_option_and_tag() -> None:
    with pytest.raises(UsageError, match=r"timm cannot build 'resnet18' \(options given: bogus=1\): .*'bogus'"):
        build_model("resnet18", num_classes=2, image_size=32, bogus=1)
    with pytest.raises(UsageError, match=r"'resnet18.nope': Invalid pretrained tag \(nope\) .*Leave out"):
        build_model("resnet18.nope", num_classes=2, image_size=32)


def test_options_reach_the_net() -> None:
    model = build_model("test_vit", num_classes=2, image_size=32, drop_path_rate=0.2)
    assert any(getattr(module, "drop_prob", 0) for module in model.modules())


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: object) -> torch.nn.Module:
        if pretrained:
            raise ConnectionError("Name or service not known")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    expected = r"weights of 'resnet18' could not be fetched \(ConnectionError: Name or.*weights=FILE.*pretrained=false"
    with pytest.raises(UsageError, match=expected):
        build_model("resnet18", num_classes=2, image_size=32, pretrained=True)


@pytest.mark.parametrize(
    ("channels", "mean"), [(3, (0.485, 0.456, 0.406)), (1, (0.449,)), (4, (0.485, 0.456, 0.406, 0.485))]
)
def test_normalisation_of_pretrained_weights(
    monkeypatch: pytest.MonkeyPatch, channels: int, mean: tuple[float, ...]
) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **options: create(name, **options))
    model = build_model("resnet18", num_classes=2, in_channels=channels, image_size=32, pretrained=True)
    assert model.normalization[0] == pytest.approx(mean)
    assert len(model.normalization[1]) == channels

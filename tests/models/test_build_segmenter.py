from __future__ import annotations

import pytest
import timm
import torch

from sfumato.errors import UsageError
from sfumato.models import Segmenter, build_segmenter, segmenter_names


def deeplab(**options: object) -> Segmenter:
    return build_segmenter("deeplabv3plus", **{"num_classes": 3, "encoder": "test_resnet", "width": 8, **options})


def test_names() -> None:
    assert segmenter_names()[:3] == ["small_seg", "deeplabv3plus", "fpn"]
    assert {"smp_deeplabv3plus", "smp_unet", "smp_fpn", "smp_segformer", "smp_upernet", "smp_dpt"} < set(
        segmenter_names()
    )
    with pytest.raises(UsageError, match=r"Unknown segmentation model 'deeplabv3'. Did you mean 'deeplabv3plus'\?"):
        build_segmenter("deeplabv3", num_classes=2)
    with pytest.raises(UsageError, match=r"model 'resnet18'. A model of timm is an encoder: use .* encoder=resnet18"):
        build_segmenter("resnet18", num_classes=2)
    with pytest.raises(UsageError, match=r"Unknown encoder 'resnet18s' of model 'fpn'. Did you mean 'resnet18'"):
        build_segmenter("fpn", num_classes=2, encoder="resnet18s")


@pytest.mark.parametrize(
    ("name", "wrong", "text"),
    [
        ("small_seg", {"num_classes": 1}, "num_classes=1: a segmenter needs at least 2 classes"),
        ("small_seg", {"in_channels": 0}, "in_channels=0: images have at least 1 channel"),
        ("small_seg", {"pretrained": True}, "'small_seg' has no pretrained weights. Remove the option, or use fpn"),
        ("small_seg", {"encoder": "resnet18"}, "'small_seg' has its own encoder, encoder=resnet18 is given"),
        ("small_seg", {"nrom": "group"}, "'small_seg' has no option 'nrom'. Did you mean 'norm'"),
        ("small_seg", {"norm": "layer"}, r"small_seg\(norm='layer'\): expected one of batch, group"),
        ("fpn", {"pretrained": True, "weights": "x.pth"}, "Both pretrained=true and weights=x.pth are given"),
        ("fpn", {"width": 0}, "'fpn': width=0, expected a number of channels, 1 or more"),
        ("fpn", {"encoder": "test_resnet", "bogus": 1}, r"timm cannot build 'test_resnet' \(.*bogus=1\).*Correct or"),
        ("deeplabv3plus", {"encoder": "resnet18.nope"}, r"Invalid pretrained tag \(nope\)"),
    ],
)
def test_values_out_of_range(name: str, wrong: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        build_segmenter(name, **{"num_classes": 3, **wrong})


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_other_than_three(channels: int) -> None:
    model = deeplab(in_channels=channels)
    assert model(torch.randn(1, channels, 64, 64)).logits.shape == (1, 3, 64, 64)
    assert model.normalization == ((0.5,) * channels, (0.5,) * channels)


def test_options_reach_the_encoder() -> None:
    model = deeplab(drop_path_rate=0.2)
    assert any(getattr(module, "drop_prob", 0) for module in model.encoder.modules())


def test_pretrained_weights_bring_their_normalization(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    asked = []

    def offline(name: str, pretrained: bool = False, **options: object) -> torch.nn.Module:
        asked.append((pretrained, options.get("output_stride")))
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    model = deeplab(encoder="resnet18", pretrained=True, output_stride=16)
    assert asked[-1] == (True, 16)
    assert model.normalization[0] == pytest.approx((0.485, 0.456, 0.406))

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from sfumato.errors import UsageError
from sfumato.models import FeatureDropout, Segmenter, build_segmenter
from sfumato.models.smp import LenientBatchNorm
from sfumato.rules.base import with_output
from sfumato.running.second_head import SecondHead


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.import_module

    def missing(name: str, package: str | None = None) -> ModuleType:
        if name.startswith("segmentation_models_pytorch"):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return find(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        UsageError, match=r"'smp_unet' needs the package segmentation-models-pytorch.*pip install 'sfumato\[smp\]'"
    ):
        build_segmenter("smp_unet", num_classes=2, encoder="test_resnet")


def test_other_models_import_neither_the_package_nor_timm() -> None:
    code = (
        "import sys; from sfumato.models import build_segmenter; build_segmenter('small_seg', num_classes=2); "
        "print(sorted({'segmentation_models_pytorch', 'timm'} & sys.modules.keys()))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.fixture
def package() -> ModuleType:
    return pytest.importorskip("segmentation_models_pytorch")


TITLES = {
    "smp_deeplabv3plus": "DeepLabV3Plus",
    "smp_unet": "Unet",
    "smp_fpn": "FPN",
    "smp_segformer": "Segformer",
    "smp_upernet": "UPerNet",
    "smp_dpt": "DPT",
}
NETS = {
    "smp_deeplabv3plus": {"encoder": "test_resnet", "decoder_channels": 16},
    "smp_unet": {"encoder": "test_resnet", "decoder_channels": (16, 16, 16, 8, 8)},
    "smp_fpn": {"encoder": "test_resnet", "decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32},
    "smp_segformer": {"encoder": "test_resnet", "decoder_segmentation_channels": 16},
    "smp_upernet": {"encoder": "test_resnet", "decoder_channels": 16},
    "smp_dpt": {"encoder": "test_vit", "decoder_intermediate_channels": (8,) * 4, "decoder_fusion_channels": 8},
}


def net(name: str, **options: object) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(name, **{"num_classes": 5, **NETS[name], **options})


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [(64, 64), (31, 47), (321, 129)])
def test_any_size_and_a_batch_of_one_in_training(name: str, size: tuple[int, int]) -> None:
    model = net(name).train()
    out = model(torch.randn(1, 3, *size))
    assert out.logits.shape == (1, 5, *size)
    assert out.logits.isfinite().all()
    assert out.features.shape[1] == model.num_features
    for side, embedded in zip(size, out.features.shape[2:], strict=True):
        assert (embedded - 1) * model.stride < side <= embedded * model.stride
    out.logits.square().mean().backward()
    assert [key for key, one in model.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize("name", NETS)
def test_our_forward_is_theirs_up_to_the_enlargement(name: str, package: ModuleType) -> None:
    """On the size they accept, with the enlargement they do by a factor."""
    model = net(name).eval()
    theirs = getattr(package, TITLES[name])
    options = {key: value for key, value in NETS[name].items() if key != "encoder"}
    if name == "smp_deeplabv3plus":
        options |= {"decoder_aspp_separable": False, "decoder_atrous_rates": (6, 12, 18)}
    if name == "smp_dpt":
        options |= {"decoder_readout": "ignore", "dynamic_img_size": True}
    encoder = f"tu-{NETS[name]['encoder']}"
    other = theirs(encoder_name=encoder, encoder_weights=None, classes=5, **options).eval()
    other.encoder.load_state_dict(model.encoder.net.state_dict(), strict=name != "smp_dpt")
    other.decoder.load_state_dict(model.decoder.net.state_dict())
    head = other.segmentation_head.head if name == "smp_dpt" else other.segmentation_head
    mine = (*model.decoder.last.children(), model.classifier)  # in DPT a convolution and a batch norm come before
    learned = [[one for one in layers if list(one.parameters())] for layers in (head, mine)]
    assert len(learned[0]) == (3 if name == "smp_dpt" else 1)
    for its, ours in zip(*learned, strict=True):
        its.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 64, 96)
    assert torch.allclose(model(x).logits, other(x), atol=1e-4)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [64, 65, 81, 97])
def test_a_second_head_gives_what_the_network_with_its_weights_gives(name: str, size: int) -> None:
    """In sizes that are filled up for the encoder too, where the embedding is cut before the head gets it."""
    model = net(name).eval()
    head, x = SecondHead(model, 5, dense=True), torch.randn(2, 3, size, size)
    deployed, found = with_output(model, head.deployed())(x).logits, head(model(x).features, (size, size))
    seen = size - model.classifier.kernel_size[0] // 2  # a 3x3 convolution would look past the cut
    torch.testing.assert_close(found[..., :seen, :seen], deployed[..., :seen, :seen], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("package")
def test_deeplabv3plus_has_the_rates_of_the_reference_and_no_dropout() -> None:
    model = net("smp_deeplabv3plus")
    dilated = [one for one in model.decoder.modules() if isinstance(one, nn.Conv2d) and one.dilation[0] > 1]
    assert [(one.dilation[0], one.groups) for one in dilated] == [(6, 1), (12, 1), (18, 1)]
    for name in NETS:
        for module in net(name).modules():
            assert not isinstance(module, nn.Dropout | nn.Dropout2d) or module.p == 0


@pytest.mark.usefixtures("package")
def test_dinov2_has_patches_of_14_and_needs_a_multiple_of_28() -> None:
    model = build_segmenter("smp_dpt", num_classes=3, encoder="tu-vit_small_patch14_dinov2").eval()
    assert (model.encoder.multiple, model.encoder.deepest, model.stride, model.num_features) == (28, 14, 1.75, 64)
    assert model.tap_channels == (384,) * 4
    maps = model.encode(torch.randn(1, 3, 60, 84))
    assert [tuple(one.shape[1:]) for one in maps] == [(384, 6, 6)] * 4
    assert model.decode(maps).shape == (1, 64, 48, 48)
    assert model(torch.randn(1, 3, 60, 84)).logits.shape == (1, 3, 60, 84)


@pytest.mark.usefixtures("package")
def test_tokens_beside_the_image_reach_the_decoder_that_reads_them() -> None:
    model = net("smp_dpt", decoder_readout="cat").eval()
    x = torch.randn(2, 3, 64, 64)
    maps = model.encode(x)
    assert [one.ndim for one in maps] == [4] * 4 + [3] * 4
    plain = model(x).logits
    again = FeatureDropout(torch.tensor([1]), tuple(torch.ones(1, 64) for _ in range(4)), again=True)
    assert torch.allclose(model(x, again).logits, torch.cat([plain, plain[1:]]), atol=1e-5)
    without = model.decode((*maps[:4], *(torch.zeros_like(one) for one in maps[4:])))
    assert not torch.allclose(model.decode(maps), without, atol=1e-3)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("name", NETS)
def test_dropping_every_channel_of_an_image_hides_it(name: str) -> None:
    model = net(name).eval()
    x = torch.randn(2, 3, 64, 64)
    zeros = FeatureDropout(torch.tensor([0]), tuple(torch.zeros(1, width) for width in model.tap_channels), again=False)
    one, other = model(x, zeros).logits, model(torch.cat([-x[:1], x[1:]]), zeros).logits
    assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(one[1], model(x).logits[1], atol=1e-5)


@pytest.mark.usefixtures("package")
def test_names_of_encoders() -> None:
    assert type(net("smp_segformer", encoder="mit_b0").encoder.net).__name__.startswith("MixVisionTransformer")
    with pytest.raises(UsageError, match=r"Unknown encoder 'mit_b00' of model 'smp_segformer'. Did you mean 'mit_b0'"):
        net("smp_segformer", encoder="mit_b00")
    with pytest.raises(UsageError, match=r"cannot build Unet with the encoder 'tu-test_resnet' .*bogus.*Correct or"):
        net("smp_unet", bogus=1)


def test_weights_that_cannot_be_fetched(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    create = package.Unet

    def offline(encoder_weights: str | None = None, **options: object) -> nn.Module:
        if encoder_weights is not None:
            raise ConnectionError("Name or service not known")
        return create(encoder_weights=None, **options)

    monkeypatch.setattr(package, "Unet", offline)
    with pytest.raises(UsageError, match=r"encoder 'resnet18' could not be fetched \(ConnectionError.*weights=FILE"):
        build_segmenter("smp_unet", num_classes=2, encoder="resnet18", pretrained=True)


def test_a_single_value_is_normalized_by_the_running_statistics_and_leaves_them() -> None:
    norm = LenientBatchNorm(3).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    before = norm.running_mean.clone()
    assert torch.allclose(norm(torch.full((1, 3, 1, 1), 3.0)).flatten(), torch.tensor([2.0, 1.0, 0.0]), atol=1e-4)
    assert norm.running_mean.equal(before)
    x = torch.randn(2, 3, 1, 1)
    assert torch.allclose(norm(x), nn.BatchNorm2d(3).train()(x))
    assert not norm.running_mean.equal(before)

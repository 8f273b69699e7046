from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from sfumato.errors import UsageError
from sfumato.models import Segmenter, build_segmenter

NETS = {
    "small_seg": {},
    "deeplabv3plus": {"encoder": "test_resnet", "width": 16, "skip_width": 8},
    "fpn": {"encoder": "mobilenetv3_small_050", "width": 16},
    "filled": {"encoder": "test_vit", "width": 16, "skip_width": 8},  # images must be a multiple of 16
}


def net(name: str, **options: object) -> Segmenter:
    known = "deeplabv3plus" if name == "filled" else name
    return build_segmenter(known, **{"num_classes": 5, **NETS[name], **options})


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [(64, 64), (31, 47), (321, 321)])
def test_logits_have_the_size_of_the_image_for_a_batch_of_one_in_training(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = net(name).train()
    out = model(torch.randn(1, 3, *size))
    assert out.logits.shape == (1, 5, *size)
    assert out.logits.isfinite().all()
    assert out.features.shape[:2] == (1, model.num_features)
    for side, embedded in zip(size, out.features.shape[2:], strict=True):
        assert (embedded - 1) * model.stride < side <= embedded * model.stride


@pytest.mark.parametrize("name", NETS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = net(name).train()
    model(torch.randn(2, 3, 64, 64)).logits.square().mean().backward()
    assert [key for key, one in model.named_parameters() if one.grad is None or not one.grad.isfinite().all()] == []
    for part in (model.encoder, model.decoder, model.classifier):
        assert sum(one.grad.abs().sum() for one in part.parameters()) > 0


@pytest.mark.parametrize("name", NETS)
def test_every_map_reaches_the_embedding(name: str) -> None:
    torch.manual_seed(0)
    model = net(name).eval()
    maps = model.encode(torch.randn(1, 3, 64, 64))
    assert tuple(one.shape[1] for one in maps) == model.tap_channels
    plain = model.decode(maps)
    for place, one in enumerate(maps):
        changed = model.decode((*maps[:place], one + 1, *maps[place + 1 :]))
        assert (changed - plain).abs().amax() > 1e-3


def test_the_steps_make_up_the_forward() -> None:
    model = net("filled").eval()
    x = torch.randn(2, 3, 31, 47)
    embedding = model.decode(model.encode(x))
    out = model(x)
    assert model.upsample(model.classify(embedding), (31, 47)).equal(out.logits)
    assert embedding[..., : out.features.shape[2], : out.features.shape[3]].equal(out.features)


def test_upsampling_puts_corner_on_corner() -> None:
    low = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    full = net("small_seg").upsample(low, (5, 3))
    assert torch.allclose(full[0, 0, 0], torch.tensor([0.0, 2.0, 4.0]))
    assert torch.allclose(full[0, 0, :, 0], torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0]))


def test_filling_leaves_no_trace_in_the_size_and_adds_nothing_where_the_size_fits() -> None:
    model = net("filled").eval()
    x = torch.randn(1, 3, 40, 50)
    filled = torch.zeros(1, 3, 48, 64)
    filled[..., :40, :50] = x
    assert torch.allclose(model(x).logits, model(filled).logits[..., :40, :50], atol=1e-6)
    assert model(filled).features.shape[2:] == (3, 4)


@pytest.mark.parametrize("name", NETS)
def test_memory_format_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    model = net(name).eval()
    x = torch.randn(2, 3, 48, 64)
    plain = model(x).logits
    model = model.to(memory_format=torch.channels_last)
    assert torch.allclose(model(x.to(memory_format=torch.channels_last)).logits, plain, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_state_and_copies(name: str) -> None:
    torch.manual_seed(0)
    model, other = net(name).eval(), net(name).eval()
    x = torch.randn(1, 3, 64, 64)
    assert not other(x).logits.equal(model(x).logits)
    other.load_state_dict(model.state_dict())
    assert other(x).logits.equal(model(x).logits)
    assert deepcopy(model)(x).logits.equal(model(x).logits)


def test_groups_hold_every_parameter_once() -> None:
    model = net("filled")
    groups = model.parameter_groups(lr=0.1, weight_decay=5e-4, backbone_lr_scale=0.1)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert [group["name"] for group in groups] == ["backbone", "backbone, no decay", "head", "head, no decay"]
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.01, 0.1, 0.1])
    assert [group["weight_decay"] for group in groups] == [5e-4, 0, 5e-4, 0]
    assert {id(one) for group in groups[:2] for one in group["params"]} == {
        id(one) for one in model.encoder.parameters()
    }
    assert all(one.ndim > 1 for group in groups[::2] for one in group["params"])
    tables = [one for key, one in model.named_parameters() if key.endswith(("pos_embed", "cls_token"))]
    plain = {id(one) for one in groups[1]["params"]}
    assert tables
    assert all(id(one) in plain for one in tables)


def test_an_empty_group_is_an_error() -> None:
    model = net("fpn")
    model.encoder.requires_grad_(False)
    with pytest.raises(UsageError, match="The backbone has no parameter that takes a gradient"):
        model.parameter_groups(lr=0.1, weight_decay=0.1)
    model = net("fpn")
    model.decoder.requires_grad_(False)
    model.classifier.requires_grad_(False)
    with pytest.raises(UsageError, match="The head has no parameter that takes a gradient"):
        model.parameter_groups(lr=0.1, weight_decay=0.1)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_keeps_weights_and_statistics(frozen: bool) -> None:
    torch.manual_seed(0)
    model = net("deeplabv3plus", frozen=frozen).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameter_groups(lr=0.1, weight_decay=0.1))
    model(torch.randn(2, 3, 64, 64)).logits.square().mean().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert {"classifier.weight", "decoder.fuse.1.1.running_mean"} <= changed
    assert any(name.startswith("encoder") for name in changed) != frozen
    norms = [module for module in model.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.training != frozen for norm in norms)
    if frozen:
        with pytest.raises(UsageError, match=r"backbone_lr_scale=0.1 asks .* frozen"):
            model.parameter_groups(lr=0.1, weight_decay=0.1, backbone_lr_scale=0.1)


def test_crops_that_leave_nothing_of_the_coarsest_map() -> None:
    model = net("fpn")
    model.check_crop(64)
    model.check_crop((64, 100))
    with pytest.raises(UsageError, match=r"one pixel to 32 of the image, too few for crops of 80x63. Use .* 64x64"):
        model.check_crop((80, 63))
    net("deeplabv3plus").check_crop(32)
    with pytest.raises(UsageError, match=r"crops of 31x31. Use crops of at least 32x32, .*output_stride=16 or 8"):
        net("deeplabv3plus").check_crop(31)
    net("small_seg").check_crop(16)


def test_a_batch_of_one_at_the_smallest_crop() -> None:
    for name, size in (("fpn", 64), ("deeplabv3plus", 32), ("small_seg", 16)):
        model = net(name).train()
        model.check_crop(size)
        assert model(torch.randn(1, 3, size, size)).logits.isfinite().all()

"""Learning rates that fall from the head down to the first layer."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.models import build_model
from sfumato.optim import make_optimizer
from sfumato.train_config import TrainConfig


def test_each_layer_learns_at_a_share_of_the_one_above() -> None:
    model = build_model("test_vit", num_classes=3, image_size=32)
    groups = model.parameter_groups(lr=1.0, weight_decay=0.1, layer_decay=0.5)
    rate = {id(one): group["lr"] for group in groups for one in group["params"]}  # type: ignore[attr-defined]
    assert rate.keys() == {id(one) for one in model.parameters()}
    by_name = {name: rate[id(one)] for name, one in model.named_parameters()}
    blocks = 1 + max(int(name.split(".")[2]) for name in by_name if name.startswith("backbone.blocks."))
    assert by_name["head.weight"] == 1
    assert by_name["backbone.norm.weight"] == 0.5  # with the last block
    for block in range(blocks):
        rates = {value for name, value in by_name.items() if name.startswith(f"backbone.blocks.{block}.")}
        assert rates == {0.5 ** (blocks - block)}
    assert by_name["backbone.patch_embed.proj.weight"] == by_name["backbone.pos_embed"] == 0.5 ** (blocks + 1)
    assert all(group["weight_decay"] == 0 for group in groups if "no decay" in str(group["name"]))


def test_the_loop_passes_it_on_and_one_changes_nothing() -> None:
    model = build_model("test_vit", num_classes=3, image_size=32)
    plain = make_optimizer(model, TrainConfig())
    decayed = make_optimizer(model, TrainConfig(layer_decay=0.5, backbone_lr_scale=0.1))
    assert len(plain.param_groups) < len(decayed.param_groups)
    assert min(group["lr"] for group in decayed.param_groups) < 0.1 * 0.1 * 0.51
    assert {group["lr"] for group in plain.param_groups} == {0.1}


def test_images_that_are_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("test_vit", num_classes=3, image_size=40)  # patches of 16
    groups = model.parameter_groups(lr=1.0, weight_decay=0.1, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "small"}, "layer_decay=0.5 needs the layers of the net, and this one does not tell them."),
        ({"name": "test_vit", "frozen": True}, "layer_decay=0.5 is for the layers of the backbone, but it is frozen."),
    ],
)
def test_nets_without_layers(given: dict[str, object], message: str) -> None:
    model = build_model(**given, num_classes=3, image_size=32)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        model.parameter_groups(lr=1.0, weight_decay=0.1, layer_decay=0.5)


def test_a_step_moves_the_first_layer_least() -> None:
    torch.manual_seed(0)
    model = build_model("test_vit", num_classes=3, image_size=32)
    optimizer = make_optimizer(model, TrainConfig(optimizer="adamw", lr=0.01, layer_decay=0.1, weight_decay=0))
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    model(torch.randn(4, 3, 32, 32)).logits.square().sum().backward()
    optimizer.step()
    moved = {name: float((one.detach() - before[name]).abs().max()) for name, one in model.named_parameters()}
    assert moved["backbone.patch_embed.proj.weight"] < 0.1 * moved["head.weight"]

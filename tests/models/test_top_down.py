from __future__ import annotations

import pytest
import torch

from sfumato.models import build_segmenter


def test_the_number_of_parameters() -> None:
    small = build_segmenter("small_seg", num_classes=5)
    assert sum(one.numel() for one in small.parameters()) == 268_549
    fpn = build_segmenter("fpn", num_classes=11)
    assert sum(one.numel() for one in fpn.parameters()) == 3_046_075


def test_maps_of_the_top_down_decoder() -> None:
    model = build_segmenter("fpn", num_classes=3, encoder="test_resnet", width=24)
    assert model.tap_channels == (32, 48, 192, 96)
    assert [one.shape[2] for one in model.encode(torch.randn(1, 3, 64, 64))] == [16, 8, 4, 2]
    assert model(torch.randn(1, 3, 64, 64)).features.shape == (1, 24, 16, 16)


def test_maps_of_the_small_net() -> None:
    model = build_segmenter("small_seg", num_classes=3, in_channels=1)
    assert [tuple(one.shape[1:]) for one in model.encode(torch.randn(1, 1, 64, 40))] == [
        (16, 64, 40),
        (32, 32, 20),
        (64, 16, 10),
        (96, 8, 5),
    ]
    assert model(torch.randn(1, 1, 64, 40)).features.shape == (1, 16, 64, 40)


def test_with_group_norm_the_output_of_an_image_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 3, 32, 32)
    for norm, alone_equals_together in (("group", True), ("batch", False)):
        model = build_segmenter("small_seg", num_classes=4, norm=norm).train()
        together, alone = model(x).logits[:1], model(x[:1]).logits
        assert torch.allclose(together, alone, atol=1e-5) == alone_equals_together


@pytest.mark.parametrize("name", ["small_seg", "fpn"])
def test_a_few_steps_learn_where_things_are(name: str) -> None:
    """Bright squares on dark ground: every level must carry its part for the border to come out."""
    torch.manual_seed(0)
    options = {} if name == "small_seg" else {"encoder": "test_resnet", "width": 16}
    model = build_segmenter(name, num_classes=2, **options).train()
    y = torch.zeros(2, 64, 64, dtype=torch.int64)
    y[0, 10:30, 20:40] = 1
    y[1, 30:60, 5:25] = 1
    x = (y[:, None] * 2.0 - 1).expand(-1, 3, -1, -1) + 0.1 * torch.randn(2, 3, 64, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        logits = model(x).logits
        torch.nn.functional.cross_entropy(logits, y).backward()
        optimizer.step()
    assert (logits.argmax(1) == y).float().mean() > 0.97

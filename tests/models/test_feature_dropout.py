from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.models import FeatureDropout, Segmenter, build_segmenter, complementary, dropped_again
from sfumato.models.feature_dropout import perturbed


def net() -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter("fpn", num_classes=4, encoder="test_resnet", width=16).eval()


def ones(channels: tuple[int, ...], images: int) -> tuple[Tensor, ...]:
    return tuple(torch.ones(images, width) for width in channels)


def test_factors_are_0_or_2_and_have_mean_1() -> None:
    torch.manual_seed(0)
    made = dropped_again((8, 400), torch.arange(5), torch.rand(5, 408))
    assert [mask.shape for mask in made.masks] == [(5, 8), (5, 400)]
    values = torch.cat(made.masks, dim=1)
    assert set(values.unique().tolist()) == {0.0, 2.0}
    assert values.mean() == pytest.approx(1, abs=0.1)
    assert made.again


def test_the_rate_sets_the_share_and_the_factor() -> None:
    uniform = torch.arange(1000)[None] / 1000
    (mask,) = dropped_again((1000,), torch.tensor([0]), uniform, rate=0.2).masks
    assert (mask == 0).sum() == 200
    assert mask.mean() == pytest.approx(1)
    with pytest.raises(UsageError, match=r"rate=1.0: expected the share of channels to drop"):
        dropped_again((1000,), torch.tensor([0]), uniform, rate=1.0)


def test_complementary_factors_sum_to_2_and_half_of_the_images_stay_whole() -> None:
    torch.manual_seed(0)
    first, second = torch.arange(2, 7), torch.arange(7, 12)
    made = complementary((6, 10), first, second, torch.rand(5, 16), torch.tensor([0.9, 0.1, 0.5, 0.3, 0.7]))
    assert made.rows.tolist() == list(range(2, 12))
    assert not made.again
    for mask in made.masks:
        assert (mask[:5] + mask[5:]).equal(torch.full_like(mask[:5], 2))
    values = torch.cat(made.masks, dim=1)
    whole = [bool((row == 1).all()) for row in values]
    assert whole == [False, True, False, True, False] * 2
    assert set(values[torch.tensor(whole).logical_not()].unique().tolist()) == {0.0, 2.0}
    assert not made.masks[0][0].equal(made.masks[1][0, :6])


def test_a_single_image_is_always_dropped() -> None:
    made = complementary((64,), torch.tensor([0]), torch.tensor([1]), torch.rand(1, 64), torch.rand(1))
    assert set(made.masks[0].unique().tolist()) == {0.0, 2.0}


def test_maps_of_one_width_share_their_mask() -> None:
    made = complementary((8, 8, 8), torch.tensor([0]), torch.tensor([1]), torch.rand(1, 24), torch.rand(1))
    assert made.masks[0].equal(made.masks[1])
    assert made.masks[0].equal(made.masks[2])


def test_the_shape_of_the_draws_is_checked() -> None:
    with pytest.raises(UsageError, match=r"uniform has shape \(2, 8\), expected \(2, 18\): a number for each image"):
        dropped_again((8, 10), torch.arange(2), torch.rand(2, 8))


def test_decoding_again_appends_outputs_and_leaves_the_others() -> None:
    model, x = net(), torch.randn(4, 3, 64, 64)
    plain = model(x)
    rows = torch.tensor([3, 1])
    same = model(x, FeatureDropout(rows, ones(model.tap_channels, 2), again=True))
    assert same.logits.shape == (6, 4, 64, 64)
    assert same.features.shape[0] == 6
    assert torch.allclose(same.logits, torch.cat([plain.logits, plain.logits[rows]]), atol=1e-5)
    assert torch.allclose(same.features, torch.cat([plain.features, plain.features[rows]]), atol=1e-5)
    other = model(x, dropped_again(model.tap_channels, rows, torch.rand(2, sum(model.tap_channels))))
    assert torch.allclose(other.logits[:4], plain.logits, atol=1e-5)
    assert (other.logits[4:] - plain.logits[rows]).abs().amax() > 1e-3


def test_in_place_only_the_chosen_images_change() -> None:
    model, x = net(), torch.randn(4, 3, 64, 64)
    plain = model(x).logits
    same = model(x, FeatureDropout(torch.tensor([1, 2]), ones(model.tap_channels, 2), again=False)).logits
    assert torch.allclose(same, plain, atol=1e-5)
    width = sum(model.tap_channels)
    made = complementary(model.tap_channels, torch.tensor([1]), torch.tensor([3]), torch.rand(1, width), torch.rand(1))
    other = model(x, made).logits
    assert other.shape == plain.shape
    changed = (other - plain).abs().amax((1, 2, 3)) > 1e-3
    assert changed.tolist() == [False, True, False, True]


def test_the_masks_meet_the_maps_they_were_made_for() -> None:
    maps = tuple(torch.randn(3, width, 2, 2) for width in (5, 2, 3))  # the middle one is no tap
    made = FeatureDropout(torch.tensor([2]), (torch.zeros(1, 5), torch.full((1, 3), 2.0)), again=False)
    one, two, three = perturbed(maps, (0, 2), made)
    assert one[2].abs().sum() == 0
    assert one[:2].equal(maps[0][:2])
    assert two.equal(maps[1])
    assert three[2].equal(2 * maps[2][2])


def test_the_same_draws_give_the_same_output() -> None:
    model, x = net(), torch.randn(2, 3, 64, 64)
    uniform = torch.rand(2, sum(model.tap_channels))
    outputs = [model(x, dropped_again(model.tap_channels, torch.arange(2), uniform)).logits for _ in range(2)]
    assert outputs[0].equal(outputs[1])

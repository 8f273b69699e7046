"""Boxes of noise: where they are, what they hold, and that nothing is to be predicted there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato.types import Pseudo, Sparse
from sfumato.views import DenseAugment
from sfumato.views.cutout import CutOut
from sfumato.views.dense_presets import Boxes, DensePreset

MEAN, STD, CROP = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), (24, 32)


def augment(cutout: Boxes | None = None, seed: int = 0) -> DenseAugment:
    preset = DensePreset() if cutout is None else replace(DensePreset(), cutout=cutout)
    return DenseAugment(preset, seed=seed, crop=CROP, mean=MEAN, std=STD)


def drawn(count: int = 400, step: int = 5, seed: int = 0, cutout: Boxes | None = None) -> CutOut:
    return augment(cutout, seed).cutout(step=step, slots=torch.arange(count), purpose="strong 0")


def test_half_of_the_images_lose_a_box_of_the_size_law_of_the_mixing():
    region = drawn().region
    assert region.shape == (400, *CROP)
    area = region.float().mean(dim=(1, 2))
    hit = area > 0
    assert 0.42 < hit.float().mean() < 0.58
    assert 0.01 < area[hit].min() < area[hit].max() <= 0.4
    assert not drawn(cutout=Boxes(probability=0.0)).region.any()


def test_the_boxes_hold_noise_over_all_values_and_the_rest_is_as_it_was():
    found, x = drawn(), torch.full((400, 3, *CROP), 7.0)
    images = found.images(x)
    inside = found.region[:, None].expand_as(images)
    assert (images[~inside] == 7.0).all()
    values = images.movedim(1, -1)[found.region] * torch.tensor(STD) + torch.tensor(MEAN)
    assert values.min() > -1e-6
    assert values.max() < 1 + 1e-6
    torch.testing.assert_close(values.mean(dim=0), torch.full((3,), 0.5), rtol=0, atol=0.01)
    torch.testing.assert_close(values.std(dim=0), torch.full((3,), 12**-0.5), rtol=0, atol=0.01)
    first = found.noise[found.region.any(dim=(1, 2))][:2]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0, 0], first[0, 1])


@pytest.mark.parametrize("form", ["hard", "soft", "sparse"])
def test_nothing_is_to_be_predicted_in_a_box(form):
    found = drawn(6)
    labels = torch.randint(4, (6, 2, *CROP))
    target = {"hard": labels[:, 0], "soft": torch.rand(6, 4, *CROP), "sparse": Sparse(labels, torch.rand(labels.shape))}
    weight, valid = torch.rand(6, *CROP), torch.ones(6, *CROP)
    valid[:, 0] = 0
    erased = found(Pseudo(target[form], weight, valid))
    assert erased.target is target[form]
    assert torch.equal(erased.weight, weight)
    assert torch.equal(erased.valid, valid * ~found.region)
    assert erased.valid.dtype == valid.dtype


def test_a_box_is_a_function_of_seed_step_and_slot():
    whole, part = drawn(8), augment().cutout(step=5, slots=torch.arange(4, 8), purpose="strong 0")
    assert torch.equal(part.region, whole.region[4:])
    assert torch.equal(part.noise, whole.noise[4:])
    assert not torch.equal(drawn(8, step=6).region, whole.region)
    assert not torch.equal(drawn(8, seed=1).noise, whole.noise)

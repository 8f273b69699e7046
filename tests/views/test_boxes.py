import itertools
import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import beta, ks_2samp, kstest

from sfumato.views import DENSE_PRESETS, Boxes
from sfumato.views.boxes import _fits, draw_boxes

COUNT, SIDE = 6000, 321
UNIMATCH = DENSE_PRESETS["unimatch"].boxes


def drawn(boxes: Boxes, size=(SIDE, SIDE), *, seed=1, step=2, slots=None, purpose="p") -> torch.Tensor:
    slots = torch.arange(COUNT) if slots is None else slots
    return draw_boxes(boxes, size, seed=seed, step=step, slots=slots, purpose=purpose)


def sides(box: torch.Tensor) -> np.ndarray:
    """(n, 2) width and height of the boxes that were drawn."""
    flat = box.flatten(0, 1)
    return (flat[:, 2:] - flat[:, :2])[flat[:, 2] > 0].double().numpy()


def published(count: int, *, log: bool, generator: random.Random) -> np.ndarray:
    """(count, 4) left, top, width, height by drawing again until the box fits, as UniMatch does."""
    found = []
    for _ in range(count):
        area = generator.uniform(0.02, 0.4) * SIDE * SIDE
        while True:
            aspect = 0.3 ** generator.uniform(-1, 1) if log else generator.uniform(0.3, 1 / 0.3)
            width, height = int(math.sqrt(area / aspect)), int(math.sqrt(area * aspect))
            left, top = generator.randrange(SIDE), generator.randrange(SIDE)
            if left + width <= SIDE and top + height <= SIDE:
                break
        found.append((left, top, width, height))
    return np.array(found)


@pytest.mark.parametrize("law", ["uniform", "log"])
def test_boxes_have_the_published_distribution(law):
    box = drawn(Boxes(1.0, shape=law))
    ours = np.column_stack([box[:, 0, :2].numpy(), sides(box)])
    theirs = published(COUNT, log=law == "log", generator=random.Random(0))
    for here, there in zip(ours.T, theirs.T, strict=True):
        assert ks_2samp(here, there).pvalue > 1e-3
    aspects = [boxes[:, 3] / boxes[:, 2] for boxes in (ours, theirs)]
    assert ks_2samp(*aspects).pvalue > 1e-3
    assert abs(np.corrcoef(ours[:, 0], ours[:, 2])[0, 1] - np.corrcoef(theirs[:, 0], theirs[:, 2])[0, 1]) < 0.05


def test_a_candidate_fits_as_often_as_its_corner_would():
    height, width = 5, 8
    corners = (torch.arange(height * width) + 0.5) / (height * width)  # each corner once
    for across, down in itertools.product(range(11), range(8)):
        sides_ = (torch.full_like(corners, side) for side in (across, down))
        expected = sum(x + across <= width and y + down <= height for x in range(width) for y in range(height))
        assert _fits(*sides_, corners, (height, width)).sum() == expected


def test_aspects_uniform_in_the_ratio_stand_taller_than_wide():
    smallest = Boxes(1.0, area=(0.02, 0.03))  # nearly every candidate fits, so that the law shows
    width, height = sides(drawn(smallest)).T
    assert (height / width).mean() == pytest.approx(1.8, abs=0.06)
    log = sides(drawn(Boxes(1.0, area=(0.02, 0.03), shape="log")))
    assert np.log(log[:, 1] / log[:, 0]).mean() == pytest.approx(0, abs=0.03)


def test_half_of_the_images_are_mixed_by_areas_in_their_range():
    box = drawn(UNIMATCH)
    assert (box[:, 0, 2] > 0).double().mean() == pytest.approx(0.5, abs=0.02)
    share = sides(box).prod(1) / SIDE**2
    assert 0.018 < share.min() < 0.025
    assert 0.39 < share.max() <= 0.4
    assert share.mean() == pytest.approx(0.21, abs=0.01)


@pytest.mark.parametrize("size", [(321, 321), (64, 64), (120, 160), (9, 7), (1, 1), (400, 20)])
@pytest.mark.parametrize("name", DENSE_PRESETS)
def test_boxes_lie_in_the_image(name, size):
    box = drawn(DENSE_PRESETS[name].boxes, size, slots=torch.arange(2000))
    assert box.dtype == torch.int64
    assert (box[..., :2] >= 0).all()
    assert (box[..., 2] <= size[1]).all()
    assert (box[..., 3] <= size[0]).all()
    assert (box[..., 2:] >= box[..., :2]).all()


def test_u2pl_takes_half_of_the_image_in_half_of_the_steps():
    law = DENSE_PRESETS["u2pl"].boxes
    steps = [drawn(law, step=step, slots=torch.arange(6)) for step in range(300)]
    mixed = [float((box[:, 0, 2] > 0).double().mean()) for box in steps]
    assert set(mixed) == {0.0, 1.0}
    assert np.mean(mixed) == pytest.approx(0.5, abs=0.1)
    width, height = sides(torch.cat(steps)).T
    assert width * height / SIDE**2 == pytest.approx(0.5, abs=0.005)
    assert kstest(width / SIDE, "uniform", args=(0.5, 0.5)).pvalue > 1e-3


def test_areas_of_a_beta_distribution():
    law = Boxes(1.0, area=(0.0, 1.0), beta=(4, 4), shape="image")
    width, height = sides(drawn(law, (2000, 3000))).T
    assert kstest(width * height / 6e6, beta(4, 4).cdf).pvalue > 1e-3
    assert width / height == pytest.approx(1.5, abs=0.02)
    uneven = Boxes(1.0, area=(0.0, 1.0), beta=(8, 2), shape="image")
    assert kstest(sides(drawn(uneven, (2000, 3000))).prod(1) / 6e6, beta(8, 2).cdf).pvalue > 1e-3


def test_several_boxes_share_the_area():
    box = drawn(Boxes(1.0, area=(0.3, 0.3), count=3))
    assert box.shape == (COUNT, 3, 4)
    assert sides(box).prod(1) / SIDE**2 == pytest.approx(0.1, abs=0.005)
    assert not torch.equal(box[:, 0], box[:, 1])


def test_a_box_depends_on_seed_step_purpose_and_slot_alone():
    always, slots = Boxes(1.0), torch.arange(50)
    first = drawn(always, slots=slots)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first[order], drawn(always, slots=slots[order]))
    assert torch.equal(first[7:8], drawn(always, slots=slots[7:8]))
    for other in ({"seed": 2}, {"step": 3}, {"purpose": "q"}, {"slots": slots + 50}):
        assert (first != drawn(always, **{"slots": slots, **other})).any(2).double().mean() > 0.9

"""The distances to three tails, and the adjustment that follows."""

import math

import pytest
import torch

from sfumato.functional.anchors import adjustment, anchors, distance

TAIL = torch.tensor([0.6, 0.25, 0.1, 0.05])


def test_the_reverse_is_by_rank_whatever_the_order():
    """By the order of the classes a tail that is not sorted would be reversed into another one."""
    order = torch.tensor([2, 0, 3, 1])
    same, even, reverse = anchors(TAIL[order])
    torch.testing.assert_close(same, TAIL[order])
    torch.testing.assert_close(even, torch.full((4,), 0.25))
    torch.testing.assert_close(reverse, TAIL.flip(0)[order])


def test_distance_is_the_mean_of_both_divergences():
    a, b = TAIL.tolist(), [0.3, 0.3, 0.2, 0.2]
    want = sum(x * math.log(x / y) + y * math.log(y / x) for x, y in zip(a, b, strict=True)) / 2
    torch.testing.assert_close(distance(TAIL, torch.tensor(b)), torch.tensor(want))
    assert distance(TAIL, TAIL) == 0
    assert distance(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])).isfinite()


@pytest.mark.parametrize("strength", [2.0, 1.0])
def test_the_further_from_the_labels_the_more_is_adjusted(strength):
    same, even, reverse = (float(adjustment(anchor, TAIL, strength)) for anchor in anchors(TAIL))
    assert 0 < same < even < reverse < strength
    d = distance(TAIL, anchors(TAIL))
    assert same == pytest.approx(strength * float(torch.exp(d[0]) / torch.exp(d).sum()))


def test_without_a_tail_nothing_tells_the_anchors_apart():
    even = torch.full((5,), 0.2)
    assert float(adjustment(even, even)) == pytest.approx(2 / 3)

"""Thresholds of equal shares against sorted confidences, and where the peer's go astray."""

from __future__ import annotations

import pytest
import torch

from sfumato.functional.equal_share import confidence_edges, equal_share_thresholds

TAU = 0.95
EDGES = confidence_edges(TAU, 400)


def thresholds(*confidences: list[float], head: int = 0, edges: torch.Tensor = EDGES) -> list[float]:
    """Of classes whose predictions have these confidences."""
    mass = torch.zeros(len(confidences), len(edges) - 1)
    for row, values in zip(mass, confidences, strict=True):
        place = torch.bucketize(torch.tensor(values), edges, right=True) - 1
        row.index_add_(0, place.clamp(0, len(row) - 1), torch.ones(len(values)))
    return equal_share_thresholds(mass, edges, torch.tensor(head), TAU).tolist()


def by_sorting(confidences: list[list[float]], head: int) -> list[float]:
    """The paper's rule on the predictions themselves, with what is right where it is silent."""
    rho = sum(c >= TAU for c in confidences[head]) / max(1, len(confidences[head]))
    found = []
    for c, values in enumerate(confidences):
        if c == head or not values or rho == 0:
            found.append(TAU)
        else:
            found.append(sorted(values, reverse=True)[max(1, int(len(values) * rho + 1e-9)) - 1])
    return found


def test_edges_have_the_threshold_among_them():
    for bins in (2, 3, 200):
        edges = confidence_edges(TAU, bins)
        assert len(edges) == bins + 1
        assert (edges.diff() > 0).all()
        assert edges.tolist()[:: bins // 2][:2] == pytest.approx([0, TAU])
        assert edges[-1] == 1


@pytest.mark.parametrize("head", [0, 2])
def test_against_sorting(head):
    """To the width of a bin, whose lower edge stands for the confidence, and what falls into it."""
    draw = torch.Generator().manual_seed(head)
    confidences = [torch.rand(n, generator=draw).pow(0.3).tolist() for n in (4000, 500, 2000, 900)]
    got, want = thresholds(*confidences, head=head), by_sorting(confidences, head)
    for values, mine, theirs in zip(confidences, got, want, strict=True):
        kept, wanted = (sum(v >= limit for v in values) / len(values) for limit in (mine, theirs))
        assert kept == pytest.approx(wanted, abs=0.015)
        assert mine == pytest.approx(theirs, abs=0.006)
    assert got[head] == pytest.approx(TAU)


def test_the_head_is_the_frequent_class_and_not_the_first():
    half, none = [0.99] * 10 + [0.5] * 10, [0.3, 0.4, 0.5, 0.6]
    assert thresholds(half, none, head=0)[1] == pytest.approx(0.5, abs=0.005)
    assert thresholds(none, half, head=1)[0] == pytest.approx(0.5, abs=0.005)
    assert thresholds(half, none, head=1) == pytest.approx([TAU, TAU])  # whose head is never sure


def test_a_share_of_less_than_one_prediction_is_the_surest_one():
    """The peer's index is then -1, which is the least confident."""
    head = [0.99] + [0.5] * 99
    assert thresholds(head, [0.9, 0.6, 0.4])[1] == pytest.approx(0.9, abs=0.005)


def test_without_a_sure_prediction_of_the_head_nothing_comes_down():
    """The peer's share stays 1, which lets in everything."""
    assert thresholds([0.9] * 50, [0.9, 0.6, 0.4]) == pytest.approx([TAU, TAU])


def test_a_class_without_predictions_keeps_the_threshold():
    assert thresholds([0.99, 0.5], [], [0.8, 0.7]) == pytest.approx([TAU, TAU, 0.8], abs=0.005)
    assert thresholds([], [0.9]) == pytest.approx([TAU, TAU])


def test_all_of_the_head_is_sure_all_of_the_others_may_come():
    assert thresholds([0.99, 0.96], [0.9, 0.4])[1] == pytest.approx(0.4, abs=0.005)


def test_a_class_may_need_more_than_the_head():
    assert thresholds([0.99, 0.5], [0.999, 0.998, 0.6])[1] == pytest.approx(0.998, abs=0.001)

"""Anchors, negatives and their charge against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato import distributed
from sfumato.functional.contrast import (
    among_first,
    earliest,
    first_of_each,
    info_nce,
    mine,
    negatives_as_released,
    negatives_of_labeled,
    negatives_of_unlabeled,
)

ROWS = 40
COUNTS = (2, 3, 5, 25)


def given(classes, seed=0):
    """Probabilities with ties, labels, and a mask."""
    draw = torch.Generator().manual_seed(seed)
    p = torch.randint(0, 6, (ROWS, classes), generator=draw).double() + 0.5
    p[:10] = torch.rand((10, classes), generator=draw).double()
    label = torch.randint(classes, (ROWS,), generator=draw)
    return p / p.sum(1, keepdim=True), label, torch.rand(ROWS, generator=draw) < 0.6


def ranks(p):
    """rank[m][c]: 0 for the most probable class, of equal ones the first, by a sort of each row."""
    out = []
    for row in p.tolist():
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        out.append([order.index(c) for c in range(len(row))])
    return out


@pytest.mark.parametrize("classes", COUNTS)
def test_among_first_is_a_sort(classes):
    p, _, _ = given(classes)
    for k in range(classes + 3):
        want = [[r < k for r in row] for row in ranks(p)]
        assert among_first(p, k).tolist() == want, k


@pytest.mark.parametrize("classes", COUNTS)
def test_negatives_are_a_loop(classes):
    p, label, mask = given(classes)
    low, high = min(3, classes - 1), 20
    labeled, unlabeled, released = (torch.zeros(ROWS, classes, dtype=torch.bool) for _ in range(3))
    for m, row in enumerate(ranks(p)):
        for c in range(classes):
            if not mask[m]:
                continue
            labeled[m, c] = row[c] < low and label[m] != c
            unlabeled[m, c] = low <= row[c] < high
            released[m, c] = low <= row[c] < high and label[m] == c
    assert torch.equal(negatives_of_labeled(p, label, mask, low), labeled)
    assert torch.equal(negatives_of_unlabeled(p, mask, low, high), unlabeled)
    assert torch.equal(negatives_as_released(p, label, mask, low, high), released)
    assert classes == 25 or labeled.any(dim=0).all(), "each class has negatives, however few classes there are"
    assert unlabeled.any(dim=0).all()
    assert classes < 25 or (unlabeled.sum(dim=1)[mask] == 17).all()


def test_first_of_each_takes_the_smallest_keys():
    draw = torch.Generator().manual_seed(1)
    members = torch.rand((ROWS, 4), generator=draw) < torch.tensor([0.0, 0.1, 0.5, 1.0])
    keys = torch.rand(ROWS, generator=draw)
    keys[5] = keys[9]
    for k in (1, 6, ROWS, ROWS + 3):
        rows, there = first_of_each(members, keys, k)
        assert rows.shape == there.shape == (4, min(k, ROWS))
        for c in range(4):
            want = sorted((m for m in range(ROWS) if members[m, c]), key=lambda m: (keys[m], m))[:k]
            assert rows[c][there[c]].tolist() == want
            assert there[c].int().diff().le(0).all(), "those that are there come first"


KEYS = torch.tensor([[0.5, 0.1, 0.7, math.inf], [0.3, math.inf, 0.3, 0.2], [math.inf] * 4])


def chosen_on_this_rank(k):
    part = KEYS.chunk(distributed.world_size(), dim=1)[distributed.rank()]
    places, found = earliest(distributed.gather_batch(part.T).T, k)
    return places, found, mine(places, found, part.shape[1])


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_two_ranks_choose_what_one_does(k, two_ranks):
    want = torch.zeros_like(KEYS, dtype=torch.bool)
    for c, row in enumerate(KEYS.tolist()):
        for m in sorted((m for m in range(4) if row[m] < math.inf), key=lambda m: (row[m], m))[:k]:
            want[c, m] = True
    alone, (first, second) = chosen_on_this_rank(k), two_ranks.call(chosen_on_this_rank, k)
    assert torch.equal(alone[2], want)
    assert torch.equal(torch.cat((first[2], second[2]), dim=1), want)
    for places, found, _ in (first, second):
        assert torch.equal(places[found], alone[0][alone[1]])
        assert torch.equal(found.sum(1), want.sum(1))


def test_info_nce_is_a_loop():
    draw = torch.Generator().manual_seed(2)
    near = torch.rand(6, generator=draw, dtype=torch.float64, requires_grad=True)
    far = torch.rand((6, 7), generator=draw, dtype=torch.float64, requires_grad=True)
    charges = []
    for one, others in zip(near, far, strict=True):
        own = (one / 0.5).exp()
        charges.append(-(own / (own + sum((other / 0.5).exp() for other in others))).log())
    torch.testing.assert_close(info_nce(near, far, 0.5), torch.stack(charges), rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.5), (near, far))
    assert info_nce(torch.zeros(1), torch.zeros(1, 5), 0.5).item() == pytest.approx(math.log(6))

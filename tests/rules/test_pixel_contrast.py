"""The contrast where classes have more anchors than are taken, over ranks too, and where there is nothing."""

from __future__ import annotations

import pytest
import torch

from sfumato import distributed
from sfumato.errors import UsageError
from sfumato.rules import PixelContrast, pixel_contrast
from sfumato.rules.pixel_contrast import Rows

C, M, D = 3, 24, 4


def contrast(num_anchors=2, **options):
    options = {"num_negatives": 5, "temperature": 0.5, "dim": 6, "memory": 7, **options}
    rule = PixelContrast(C, num_anchors=num_anchors, **options).double()
    torch.manual_seed(0)
    rule.attach(D)
    return rule.double()


def given():
    draw = torch.Generator().manual_seed(1)
    student, taught = (torch.randn((M, D), generator=draw, dtype=torch.float64) for _ in range(2))
    label, used = torch.randint(C, (M,), generator=draw), torch.rand(M, generator=draw) < 0.7
    negatives = torch.rand((M, C), generator=draw) < 0.3
    return student, taught, label, used, negatives, torch.rand((M, 2), generator=draw)


def loss_and_gradients(num_anchors):
    rule = contrast(num_anchors)
    world, rank = distributed.world_size(), distributed.rank()
    student, taught, label, used, negatives, uniform = (x.chunk(world)[rank] for x in given())
    student = student.requires_grad_()
    seen = rule.represent(taught)
    rule.remember(seen, negatives, uniform[:, 0])
    loss = rule(Rows(student, label, used), Rows(seen, label, used), uniform)
    loss.backward()
    head = {name: distributed.mean_over_ranks(one.grad) for name, one in rule.named_parameters() if one.requires_grad}
    return distributed.mean_over_ranks(loss.detach()), distributed.gather(student.grad) / world, head


@pytest.mark.parametrize("num_anchors", [1, 2, 5, 99])
def test_the_anchors_are_those_with_the_smallest_keys(num_anchors):
    _, gradient, _ = loss_and_gradients(num_anchors)
    _, _, label, used, _, uniform = given()
    want = set()
    for c in range(C):
        mine = sorted((m for m in range(M) if used[m] and label[m] == c), key=lambda m: uniform[m, 0])
        want.update(mine[:num_anchors])
    assert set(gradient.abs().sum(1).nonzero().flatten().tolist()) == want


@pytest.mark.parametrize("num_anchors", [2, 5, 99])
def test_two_ranks_charge_what_one_does(num_anchors, two_ranks):
    alone = loss_and_gradients(num_anchors)
    for rank in two_ranks.call(loss_and_gradients, num_anchors):
        torch.testing.assert_close(rank, alone, rtol=1e-9, atol=1e-12)
    assert alone[0] > 0.5


@pytest.mark.parametrize("num_anchors", [3, 99])
def test_it_is_a_loop(num_anchors, monkeypatch):
    spread = torch.tensor([0.0, 0.2, 0.5, 0.7, 0.99])
    monkeypatch.setattr(pixel_contrast, "numbers", lambda state, count: spread.expand(len(state), count))
    student, taught, label, used, negatives, uniform = given()
    rule = contrast(num_anchors)
    seen = rule.represent(taught)
    rule.remember(seen, negatives, uniform[:, 0])
    means = []
    for c in range(C):
        rows = sorted((m for m in range(M) if used[m] and label[m] == c), key=lambda m: uniform[m, 0])
        positive = torch.stack([seen[m] for m in rows]).mean(0)
        memory = rule.memory.entries[c, : rule.memory.filled[c]]
        assert len(memory) > 4
        charges = []
        for m in rows[:num_anchors]:
            a = rule.head(student[m : m + 1])[0]
            against = [positive, *(memory[int(u * len(memory))] for u in spread)]
            scores = torch.stack([torch.cosine_similarity(a, b, dim=0) for b in against]) / 0.5
            charges.append(-scores.log_softmax(0)[0])
        means.append(torch.stack(charges).mean())
    got = rule(Rows(student, label, used), Rows(seen, label, used), uniform)
    torch.testing.assert_close(got, torch.stack(means).mean(), rtol=1e-9, atol=0)


def test_without_negatives_anchors_or_positives_it_is_nothing():
    student, taught, label, used, negatives, uniform = given()
    nobody = torch.zeros_like(used)
    for there, positive, enemies in (
        (used, used, negatives & False),
        (nobody, used, negatives),
        (used, nobody, negatives),
    ):
        rule = contrast()
        student = student.detach().requires_grad_()
        seen = rule.represent(taught)
        rule.remember(seen, enemies, uniform[:, 0])
        loss = rule(Rows(student, label, there), Rows(seen, label, positive), uniform)
        loss.backward()
        assert loss == 0
        assert not student.grad.any()


def test_each_anchor_has_negatives_of_its_own():
    """The loss of equal anchors with equal positives is not one number: their negatives differ."""
    rule = contrast(99, num_negatives=2)
    _, taught, _, _, _, uniform = given()
    seen = rule.represent(taught)
    rule.remember(seen, torch.ones(M, C, dtype=torch.bool), uniform[:, 0])
    zeros, everybody = torch.zeros(M, dtype=torch.int64), torch.ones(M, dtype=torch.bool)
    anchor = torch.ones((1, D), dtype=torch.float64)
    losses = set()
    for m in range(M):
        row = Rows(anchor, zeros[:1], everybody[:1])
        losses.add(round(rule(row, Rows(seen, zeros, everybody), uniform[m : m + 1]).item(), 9))
    assert len(losses) > M // 3


def test_wrong_numbers_say_what_is_expected():
    for name in ("num_anchors", "num_negatives", "dim", "memory"):
        with pytest.raises(UsageError, match=rf"PixelContrast\({name}=0\): expected at least 1"):
            contrast(**{name: 0})
    with pytest.raises(UsageError, match=r"temperature=0.0\): expected a number above 0, such as 0.5"):
        contrast(temperature=0.0)
    rule = PixelContrast(C, num_anchors=1, num_negatives=1, temperature=1.0, dim=2, memory=1)
    with pytest.raises(UsageError, match=r"PixelContrast has not made yet .*: call method.attach\(net\) before"):
        rule.represent(torch.ones(1, D))

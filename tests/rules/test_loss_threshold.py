"""Dash's limit: where it comes from, how it falls, and what it lets pass."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sfumato.errors import UsageError
from sfumato.functional.probability import probability
from sfumato.rules import LossThreshold, SoftThenHard
from sfumato.types import Progress
from tests.given import context, learn

P = probability(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 3)


def labeled_at(cost):
    """Logits (1, 3) of which label 0 costs so much."""
    return torch.tensor([[math.log(2 / math.expm1(cost)), 0.0, 0.0]])


def shown(rule, *costs, steps=100, start=0):
    for step, cost in enumerate(costs, start):
        learn(rule, P, labeled=labeled_at(cost), y=torch.zeros(1, dtype=torch.int64), progress=Progress(step, steps))
    return rule


def test_the_cost_given_is_the_cost():
    torch.testing.assert_close(F.cross_entropy(labeled_at(1.3), torch.tensor([0])), torch.tensor(1.3))


def test_nothing_counts_before_the_warm_up_ends_and_rho_is_of_its_end():
    rule = shown(LossThreshold(warmup=0.5, momentum=0.5), *[3.0] * 40, *[1.0] * 10)
    assert rule(P).sum() == 0
    assert not rule.hard
    shown(rule, 9.0, start=50)  # after the warm-up labels tell nothing any more
    torch.testing.assert_close(rule.rho, torch.tensor(1.0001 * 1.0), rtol=0, atol=3e-3)
    assert rule(P).sum() > 0


def test_without_a_warm_up_the_first_labels_tell():
    rule = shown(LossThreshold(warmup=0.1), 2.0, 7.0, start=30)
    torch.testing.assert_close(rule.labeled.value, torch.tensor(2.0))


def test_the_limit_falls_from_the_step_at_which_it_was_first_known():
    """Without unlabelled images for longer than the warm-up: the same limit so many stages later."""
    early, late = LossThreshold(warmup=0.1, stage=0.05), LossThreshold(warmup=0.1, stage=0.05)
    for since, stage in ((0, 0), (24, 0), (25, 1), (260, 10)):
        shown(early, 2.303, start=50 + since, steps=500)
        shown(late, 2.303, start=150 + since, steps=500)
        torch.testing.assert_close(late.rho, torch.tensor(1.0001 * 2.303 * 1.27**-stage))
        assert torch.equal(late.rho, early.rho)
    assert late.state_dict()["begin"] == 150


def test_without_labels_there_is_no_limit_and_no_stage():
    rule = LossThreshold(warmup=0.1, stage=0.05)
    rule.observe(P, torch.ones(6), replace(context(P, progress=Progress(20, 100)), labeled_valid=torch.zeros(1)))
    assert (rule.rho, rule(P).sum(), bool(rule.hard)) == (-1, 0, False)
    shown(rule, 2.0, start=40)
    torch.testing.assert_close(rule.rho, torch.tensor(1.0001 * 2.0))


def test_stages_are_shares_of_the_training():
    """The same limit at the same share of a training of 200 steps as of one of 1,000."""
    for steps in (200, 1000):
        rule = shown(LossThreshold(warmup=0.1, stage=0.05), 2.0, start=steps // 10 - 1, steps=steps)
        for share, stage in ((0.1, 0), (0.149, 0), (0.15, 1), (0.3, 4), (0.349, 4)):
            shown(rule, 5.0, start=int(share * steps), steps=steps)
            torch.testing.assert_close(rule.rho, torch.tensor(1.0001 * 2.0 * 1.27**-stage))


def test_soft_until_the_limit_is_at_its_floor_and_hard_then():
    rule = LossThreshold(warmup=0.0, stage=0.1, floor=0.5)
    target = SoftThenHard(rule)
    shown(rule, 1.0)
    torch.testing.assert_close(target(P), (P**2) / (P**2).sum(dim=1, keepdim=True))
    cost = -(target(P) * P.log()).sum(dim=1)
    assert torch.equal(rule(P), (cost <= rule.rho).float())
    shown(rule, 1.0, start=30)
    assert rule.rho == 0.5
    assert torch.equal(target(P), F.one_hot(P.argmax(dim=1), 3).float())
    assert torch.equal(rule(P), (P.amax(dim=1) >= torch.tensor(-0.5).exp()).float())


def test_the_temperature_changes_target_and_cost():
    """At T = 1 the cost is the entropy; the peers' slip of a temperature that is accepted and ignored would show."""
    rules = [shown(LossThreshold(warmup=0.0, temperature=t), 1.0) for t in (0.25, 1.0)]
    sharp, plain = (SoftThenHard(rule)(P) for rule in rules)
    torch.testing.assert_close(plain, P)
    assert (sharp.amax(dim=1) > plain.amax(dim=1)).all()
    entropy = -(P * P.log()).sum(dim=1)
    between = (entropy.min() + entropy.max()) / 2
    rules[1].rho.copy_(between)
    assert torch.equal(rules[1](P), (entropy <= between).float())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gamma": 1.0}, r"LossThreshold\(gamma=1.0\): expected a number above 1; 1.27 lets the limit fall"),
        ({"stage": 0.0}, r"LossThreshold\(stage=0.0\): expected a number above 0"),
        ({"floor": -1.0}, r"LossThreshold\(floor=-1.0\): expected a number above 0"),
        ({"warmup": 1.0}, r"LossThreshold\(warmup=1.0\): expected a share of training, 0 or more and below 1"),
        ({"temperature": 0.0}, r"LossThreshold\(temperature=0.0\): expected a number above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        LossThreshold(**options)

import pytest
import torch
from torch import nn

from sfumato.functional.probability import probability
from sfumato.rules import ClassOffset, ClassThreshold, FixedThreshold, Instead, SelfAdaptiveThreshold
from sfumato.running.curriculum import Curriculum, OffsetSearch, Replay, ThresholdSearch
from sfumato.types import HeldOut, Output, Progress
from tests.functional.test_offsets import problem
from tests.given import context, learn

CLASSES = 6


def made(**options):
    return ClassOffset(Curriculum(CLASSES, OffsetSearch(), ThresholdSearch(0.9)), **options)


def held(seed=0):
    z, y = problem(400, CLASSES, seed=seed)
    return HeldOut(z.float(), y, torch.ones(400))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.output_layer = nn.Linear(CLASSES, CLASSES)
        with torch.no_grad():
            self.output_layer.weight.copy_(torch.eye(CLASSES))
            self.output_layer.bias.zero_()

    def forward(self, x):
        return Output(self.output_layer(x))


@pytest.mark.parametrize("space", [(), (3, 4)], ids=str)
def test_refines_as_the_logits_would_be(space):
    rule = made()
    rule.calibrate(held())
    z = torch.randn(5, CLASSES, *space, generator=torch.Generator().manual_seed(0)) * 3
    b = rule.curriculum.offset.reshape(1, -1, *(1,) * len(space))
    assert b.abs().max() > 0.3
    torch.testing.assert_close(rule(probability(z)), probability(z - b))


def test_sure_predictions_do_not_underflow():
    rule = made()
    rule.calibrate(held())
    p = torch.zeros(2, CLASSES)
    p[:, 0] = 1.0
    p[1, 1] = 1e-38
    refined = rule(p)
    assert refined.isfinite().all()
    torch.testing.assert_close(refined.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(refined[:, 0], torch.ones(2))


def test_threshold_is_that_of_the_refined_class():
    rule = made()
    rule.calibrate(held())
    keep = ClassThreshold(rule)
    tau = keep.thresholds
    assert tau.unique().numel() > 2
    for c in range(CLASSES):
        p = torch.full((2, CLASSES), 0.0)
        p[0, c], p[1, c] = tau[c] + 1e-4, tau[c] - 1e-4
        p[:, (c + 1) % CLASSES] = 1e-5
        assert keep(p).tolist() == [1.0, 0.0], c
    assert keep.state_dict() == {}


@pytest.mark.parametrize("test_refine", ["none", "ema", "current"])
def test_deployed_network_gives_refined_logits_and_calibrating_on_them_goes_on_as_before(test_refine):
    rule, raw, net, before = made(test_refine=test_refine), made(test_refine="none"), Linear(), {}
    for seed in range(4):
        evaluated = rule.deployed(net)
        seen = held(seed)
        logits = evaluated(seen.logits).logits.detach()
        before[seed] = seen.logits - logits
        rule.calibrate(HeldOut(logits, seen.y, seen.valid))
        raw.calibrate(seen)
    torch.testing.assert_close(rule.curriculum.offset, raw.curriculum.offset, rtol=0, atol=1e-5)
    assert torch.equal(net.output_layer.bias, torch.zeros(CLASSES)), "the network itself is changed"
    shift = (rule.deployed(net)(torch.zeros(1, CLASSES)).logits[0]).detach()
    expected = {"none": torch.zeros(CLASSES), "ema": -rule.curriculum.offset, "current": -rule.curriculum.current}
    torch.testing.assert_close(shift, expected[test_refine])
    assert not torch.allclose(rule.curriculum.current, rule.curriculum.offset, atol=1e-3)


def test_offsets_in_the_network_raise_balanced_accuracy():
    rule, net, seen = made(), Linear(), held()
    rule.calibrate(seen)

    def balanced(network):
        right = network(seen.logits).logits.argmax(dim=1) == seen.y
        return float(torch.stack([right[seen.y == c].float().mean() for c in range(CLASSES)]).mean())

    assert balanced(rule.deployed(net)) > balanced(net) + 0.05


def test_replay_follows_the_steps():
    rule, learned = made(), Curriculum(CLASSES, OffsetSearch(), ThresholdSearch(0.9))
    learned.record(2)
    for seed in range(2):
        learned.learn(held(seed), torch.zeros(CLASSES))
    rule.curriculum = Replay([5, 10], learned.history[:, 0], learned.history[:, 1])
    keep = ClassThreshold(rule)
    p = torch.softmax(torch.randn(3, CLASSES, generator=torch.Generator().manual_seed(1)), dim=1)
    for step, row in ((0, None), (4, None), (5, 0), (9, 0)):
        learn(rule, p, progress=Progress(step, 10))
        want = torch.zeros(CLASSES) if row is None else learned.history[row, 0]
        assert torch.equal(rule.curriculum.offset, want)
        assert torch.equal(keep.thresholds, torch.full((CLASSES,), 0.95) if row is None else learned.history[row, 1])


def test_the_rule_whose_place_is_taken_goes_on_learning():
    old = SelfAdaptiveThreshold(CLASSES, momentum=0.5)
    alone = SelfAdaptiveThreshold(CLASSES, momentum=0.5)
    both = Instead(old, FixedThreshold(1.0))
    p = torch.softmax(torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(2)), dim=1)
    both.observe(p, torch.ones(8), context(p))
    alone.observe(p, torch.ones(8), context(p))
    assert torch.equal(old.thresholds, alone.thresholds)
    assert torch.equal(both(p), torch.zeros(8))
    assert torch.equal(old(p), alone(p))
    assert old(p).any()

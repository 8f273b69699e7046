"""Adsh on-line: where it starts, what it remembers, and that it ends where a pass over the whole set would."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.rules import EqualShare, Prior
from tests.given import context, learn


def predictions(confidence: torch.Tensor, label: torch.Tensor, classes: int) -> torch.Tensor:
    """p (N, C) whose largest entry is `confidence` (N,), of the class `label` (N,)."""
    p = ((1 - confidence) / (classes - 1)).unsqueeze(1).expand(-1, classes).clone()
    return p.scatter_(1, label.unsqueeze(1), confidence.unsqueeze(1))


def rule(counts: tuple[int, ...], **given: object) -> EqualShare:
    return EqualShare(len(counts), Prior(len(counts), counts), **given)


def test_it_starts_at_the_threshold():
    """The peer starts at exp(-0.95) = 0.387."""
    assert rule((5, 3, 1)).thresholds.tolist() == pytest.approx([0.95] * 3)
    p = torch.tensor([[0.94, 0.03, 0.03], [0.03, 0.96, 0.01]])
    assert learn(rule((5, 3, 1)), p).tolist() == [0.0, 1.0]


def test_few_predictions_of_the_head_say_nothing():
    p = predictions(torch.tensor([0.99, 0.6]), torch.tensor([0, 1]), 3)
    assert learn(rule((5, 3, 1)), p).tolist() == [1.0, 0.0]


def stream(classes: int = 4, size: int = 6000):
    """Confidences that fall from class to class, of a head that is class 2."""
    draw = torch.Generator().manual_seed(0)
    label = torch.multinomial(torch.tensor([0.2, 0.1, 0.6, 0.1]), size, replacement=True, generator=draw)
    sure = torch.tensor([0.2, 0.4, 0.1, 0.8])[label]
    confidence = 1 - 0.7 * torch.rand(size, generator=draw).pow(1 / (sure + 0.2)) * torch.rand(size, generator=draw)
    return predictions(confidence.clamp_max(1 - 1e-6), label, classes), confidence, label


def test_it_tends_to_what_a_pass_over_all_predictions_gives():
    p, confidence, label = stream()
    threshold = rule((20, 10, 60, 10), momentum=0.9999)
    for part in p.split(60):
        threshold.observe(part, torch.ones(len(part)), context(part))
    rho = (confidence[label == 2] >= 0.95).float().mean()
    assert 0.1 < rho < 0.9
    got = threshold(p)
    for c in range(4):
        assert got[label == c].mean().item() == pytest.approx(rho.item(), abs=0.02)
    assert threshold.thresholds[2].item() == pytest.approx(0.95)
    assert (threshold.thresholds[[0, 1, 3]] < 0.95).all()


def test_the_head_may_be_the_class_predicted_most():
    p, _, label = stream()
    threshold = EqualShare(4, Prior(4, source="predicted", momentum=0.0))
    assert learn(threshold, p)[label == 2].mean() == pytest.approx(learn(rule((1, 1, 9, 1)), p)[label == 2].mean())
    assert threshold.thresholds.argmax() == 2


def test_a_class_out_of_the_batch_keeps_its_threshold():
    p, _, label = stream()
    threshold = rule((20, 10, 60, 10), momentum=0.9)
    threshold.observe(p, torch.ones(len(p)), context(p))
    before = threshold.thresholds
    for _ in range(30):
        threshold.observe(p[label != 3], torch.ones(int((label != 3).sum())), context(p[label != 3]))
    assert before[3] < 0.95
    torch.testing.assert_close(threshold.thresholds, before)


def test_what_was_seen_fades():
    """A network that becomes sure of a class asks for more of it."""
    p, _, label = stream()
    threshold = rule((20, 10, 60, 10), momentum=0.5)
    before = learn(threshold, p), threshold.thresholds
    surer = predictions(torch.where(label == 3, 0.97, p.amax(dim=1)), label, 4)
    for _ in range(12):
        threshold.observe(surer, torch.ones(len(surer)), context(surer))
    assert before[1][3] < 0.93
    assert threshold.thresholds[3] > 0.95


def test_wrong_settings():
    with pytest.raises(UsageError, match=r"^EqualShare\(threshold=95\): expected a probability between 0 and 1"):
        rule((1, 1), threshold=95)
    with pytest.raises(UsageError, match=r"^EqualShare\(bins=1\): expected at least 2; the default is 200\.$"):
        rule((1, 1), bins=1)
    with pytest.raises(UsageError, match=r"^momentum=1: expected at least 0 and below 1"):
        rule((1, 1), momentum=1)

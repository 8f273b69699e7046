"""Every entry has the scores that its probabilities have."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.functional import calibration
from sfumato.functional import entries as module
from sfumato.functional.entries import Entries, entries


def sample(n: int = 3, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, 7, 6, generator=draw)
    labels = torch.randint(0, classes, (n, 7, 6), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.3] = 255
    return logits, labels, labels != 255


def of(logits: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor, temperature: float = 1.0) -> Entries:
    return entries(logits, logits.argmax(dim=1), labels, valid, temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
@pytest.mark.parametrize("block", [1, 100, 1 << 16])
def test_equal_the_scores_of_the_probabilities(monkeypatch, block, temperature):
    monkeypatch.setattr(module, "_BLOCK", block)
    logits, labels, valid = sample()
    p, y = calibration.valid_entries(torch.softmax(logits.double() / temperature, dim=1), labels, valid)
    found = of(logits, labels, valid, temperature)
    torch.testing.assert_close(found.top, p.amax(dim=1))
    torch.testing.assert_close(found.nll, calibration.nll_each(p, y))
    torch.testing.assert_close(found.brier, calibration.brier_each(p, y))
    assert torch.equal(found.right, p.argmax(dim=1) == y)


@pytest.mark.parametrize("scale", [1e-30, 1e4, 1e30])
def test_any_logit_is_finite(scale):
    logits, labels, valid = sample()
    found = of(logits * scale, labels, valid)
    for values, most in ((found.top, 1), (found.nll, -math.log(1e-12)), (found.brier, 2)):
        assert bool(((values >= 0) & (values <= most * (1 + 1e-12))).all())


def test_logarithms_of_zero_are_as_good_as_small_ones():
    found = of(
        torch.tensor([[[0.0, 0.0]], [[-math.inf, -math.inf]]]).movedim(0, 1),
        torch.tensor([[0, 1]]),
        torch.ones(1, 2) > 0,
    )
    assert found.nll.tolist() == pytest.approx([0, -math.log(1e-12)])
    assert found.brier.tolist() == [0, 2]


def test_nothing_valid_and_half_precision():
    logits, labels, valid = sample()
    assert of(logits, labels, valid & False).top.shape == (0,)
    assert of(logits.bfloat16(), labels, valid).nll.dtype == torch.float64

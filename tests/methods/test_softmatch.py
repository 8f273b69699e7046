from __future__ import annotations

import math

import pytest
import torch

from sfumato.functional.probability import probability
from sfumato.methods import Facts, build
from tests.given import step


def leaning(n=40, seed=0, by=2.0):
    weak = torch.randn((n, 5), generator=torch.Generator().manual_seed(seed)) * 2
    weak[:, 0] += by
    return weak


def test_statistics_are_updated_before_they_are_used():
    """With no memory of the past, the mean is that of this very batch: full weight above it, a tail below."""
    weak = leaning()
    top = probability(weak).amax(dim=1)
    pseudo = step(build("softmatch", Facts(5), {"momentum": 0.0, "align": "none"}), weak, weak).pseudo
    mean, variance = top.mean(), top.var()
    expected = torch.exp(-((top - mean).clamp_max(0) ** 2) * 4 / (2 * variance))
    torch.testing.assert_close(pseudo.weight, expected)
    assert (pseudo.weight[top >= mean] == 1).all()
    assert (pseudo.weight[top < mean] < 1).all()


def test_labels_are_of_the_prediction_before_alignment():
    weak = leaning()
    p = probability(weak)
    method = build("softmatch", Facts(5))
    pseudo = step(method, weak, weak).pseudo
    aligned = method.weigh.refine(p)
    assert (aligned.argmax(dim=1) != p.argmax(dim=1)).any()
    assert torch.equal(pseudo.target, p.argmax(dim=1))


@pytest.mark.parametrize("estimate", ["unbiased", "population"])
def test_a_batch_of_one_is_no_end(estimate):
    method = build("softmatch", Facts(5), {"estimate": estimate, "momentum": 0.9})
    for seed in range(3):
        weak = leaning(1, seed)
        losses = step(method, weak, weak)
        assert losses.total.isfinite()
        assert losses.pseudo.weight.isfinite().all()
    plain = step(method, leaning(), leaning())
    assert plain.total.isfinite()
    assert all(value.isfinite().all() for value in method.state_dict().values())


def test_the_formula_as_written():
    """n_sigma = 1: a confidence one standard deviation below the mean weighs exp(-1/2)."""
    weak = leaning()
    method = build("softmatch", Facts(5), {"momentum": 0.0, "align": "none", "n_sigma": 1.0})
    step(method, weak, weak)
    gaussian = method.weigh.confidence
    c = (gaussian.mean - gaussian.variance.sqrt()).item()
    p = torch.tensor([[c, *[(1 - c) / 4] * 4]])
    assert method.weigh(p).item() == pytest.approx(math.exp(-0.5), rel=1e-4)


def test_statistics_of_the_raw_or_the_aligned_confidence():
    weak = leaning()
    means = {}
    for statistics in ("raw", "aligned"):
        method = build("softmatch", Facts(5), {"momentum": 0.0, "statistics": statistics})
        step(method, weak, weak)
        means[statistics] = method.weigh.weigh.confidence.mean.item()
    assert means["raw"] == pytest.approx(probability(weak).amax(dim=1).mean().item())
    assert means["aligned"] != pytest.approx(means["raw"], rel=1e-3)

"""What the percentile of entropies keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.functional.probability import normalized_entropy
from sfumato.rules import Constant, EntropyPercentile
from sfumato.types import Progress
from tests.given import learn
from tests.rules.factory import steps


@pytest.mark.parametrize("space", [(), (3, 4)])
@pytest.mark.parametrize(("step", "dropped"), [(0, 0.2), (5, 0.1), (10, 0.0)])
def test_the_share_that_is_dropped_falls(space, step, dropped):
    (seen,) = steps(1, space=space, size=40)
    rule = EntropyPercentile()
    weight = learn(rule, seen.p, seen.valid, progress=Progress(step, 11))
    e, valid = normalized_entropy(seen.p), seen.valid > 0
    gamma = np.percentile(e[valid].numpy(), 100 * (1 - dropped))
    assert rule.gamma.item() == pytest.approx(gamma, rel=1e-6)
    kept = weight[valid] > 0
    assert torch.equal(kept, e[valid] < rule.gamma)
    assert (~kept).sum().item() == pytest.approx(dropped * valid.sum().item(), abs=1)


def test_entropy_of_what_is_ignored_does_not_count():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.5, 0.5]])
    rule = EntropyPercentile(Constant(0.34))  # of three: the place 0.66 * 2 is between the second and the third
    assert learn(rule, p, torch.tensor([1.0, 1.0, 1.0, 0.0])).tolist()[:3] == [1, 1, 0]
    assert learn(rule, p, torch.zeros(4)).tolist()[:3] == [1, 1, 0], "with nothing valid it stays"


def test_predictions_without_entropy_are_kept():
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.9, 0.1]])
    rule = EntropyPercentile(Constant(0.5))
    assert learn(rule, p).tolist() == [1, 1, 1, 0]
    assert rule.gamma == 0


def test_the_surest_are_below_a_percentile_of_their_own():
    (seen,) = steps(1, space=(3, 4), size=40)
    rule = EntropyPercentile(Constant(0.3), surest=Constant(0.1))
    learn(rule, seen.p, seen.valid)
    e = normalized_entropy(seen.p)
    limit = np.percentile(e[seen.valid > 0].numpy(), 10)
    assert torch.equal(rule.sure(seen.p) > 0, e < limit)
    assert rule.sure(torch.tensor([[1.0, 0.0]])) == 1


def test_without_a_share_all_that_are_kept_are_sure():
    (seen,) = steps(1, space=(3, 4), size=40)
    for share in (0.0, 0.3):
        rule = EntropyPercentile(Constant(share))
        weight = learn(rule, seen.p, seen.valid) * seen.valid
        assert 0 < weight.sum() < seen.valid.sum()
        assert torch.equal(weight * rule.sure(seen.p), weight)

import math

import pytest
import torch

from sfumato.functional.probability import probability
from sfumato.functional.weigh import (
    above,
    bell,
    curriculum_threshold,
    one_sided_bell,
    self_adaptive_threshold,
    truncated_gaussian,
)
from tests.functional.oracle import CLASSES, SPACES, logits_of, softmax


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("space", SPACES)
def test_above_against_a_loop(classes, space):
    logits = logits_of(4, classes, *space)
    each = torch.rand(classes, dtype=torch.float64)
    rows = [softmax(row) for row in logits.movedim(1, -1).reshape(-1, classes).tolist()]
    p = probability(logits)
    assert above(p, 0.6).flatten().tolist() == [float(max(q) >= 0.6) for q in rows]
    assert above(p, torch.tensor(0.6)).flatten().tolist() == [float(max(q) >= 0.6) for q in rows]
    assert above(p, each).flatten().tolist() == [float(max(q) >= float(each[q.index(max(q))])) for q in rows]


def test_reaching_the_threshold_is_enough():
    assert above(torch.tensor([[0.25, 0.75]]), 0.75).tolist() == [1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_masks(dtype):
    logits = logits_of(20000, 10, scale=2)
    exact = probability(logits)
    rough = probability(logits.to(dtype))
    apart = above(exact, 0.8) != above(rough, 0.8)
    width = 1e-3 if dtype == torch.float16 else 1e-2  # logits themselves are rounded by 2^-11 and 2^-8
    assert (exact.amax(dim=1)[apart] - 0.8).abs().max() < width
    assert apart.float().mean() < 0.02


def test_weights_of_the_seed_paper():
    e = torch.tensor([0.0, 0.134, 0.5, 0.8, 1.0], dtype=torch.float64)
    torch.testing.assert_close(bell(e), torch.tensor([0.0, 0.464176, 1.0, 0.64, 0.0], dtype=torch.float64))
    torch.testing.assert_close(one_sided_bell(e), torch.tensor([1.0, 1.0, 1.0, 0.64, 0.0], dtype=torch.float64))


def test_thresholds_against_loops():
    status, prior = torch.rand(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    curriculum = [0.95 * b / (2 - b) for b in status.tolist()]
    adaptive = [0.7 * q / max(prior.tolist()) for q in prior.tolist()]
    assert curriculum_threshold(status, 0.95).tolist() == pytest.approx(curriculum)
    assert self_adaptive_threshold(torch.tensor(0.7).double(), prior).tolist() == pytest.approx(adaptive)
    ends = curriculum_threshold(torch.tensor([0.0, 1.0]), 0.95)
    torch.testing.assert_close(ends, torch.tensor([0.0, 0.95]))


def test_truncated_gaussian_against_a_loop():
    conf, mean, var = torch.rand(50, dtype=torch.float64), 0.6, 0.04
    got = truncated_gaussian(conf, *torch.tensor([mean, var], dtype=torch.float64), 2.0)
    want = [math.exp(-(min(c - mean, 0) ** 2) * 4 / (2 * var)) for c in conf.tolist()]
    assert got.tolist() == pytest.approx(want, rel=1e-9)
    assert (got[conf >= mean] == 1).all()
    assert truncated_gaussian(conf, torch.tensor(mean), torch.tensor(0.0)).isfinite().all()

"""Against loops over samples and rows, in float64."""

import math

import pytest
import torch

from sfumato.functional.neighbors import (
    aggregated,
    blended,
    log_similarity,
    recalled,
    similarity_cross_entropy,
    unfolded,
)
from sfumato.functional.prototypes import unit

DRAW = torch.Generator().manual_seed(0)
N, K, D, C, T = 6, 9, 4, 3, 0.1


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=DRAW)


H, M = unit(normal(N, D)), unit(normal(K, D))
P, P_MEMORY = normal(N, C).softmax(1), normal(K, C).softmax(1)
LABEL = torch.randint(C, (K,), generator=DRAW)
SOME = torch.tensor([True, True, False, True, False, True, True, True, False])
NONE, ALL = torch.zeros(K, dtype=torch.bool), torch.ones(K, dtype=torch.bool)


def similarity(n, filled):
    """exp(h . m / T) over its sum, a loop."""
    e = [math.exp(sum(a * b for a, b in zip(H[n].tolist(), M[k].tolist(), strict=True)) / T) for k in range(K)]
    e = [value if filled[k] else 0.0 for k, value in enumerate(e)]
    return [value / sum(e) for value in e]


@pytest.mark.parametrize("filled", [SOME, ALL])
def test_each_against_a_loop(filled):
    log_a = log_similarity(H, M, filled, T)
    found, shares, spread = recalled(log_a, P_MEMORY), aggregated(log_a, LABEL, C), unfolded(log_a, P, LABEL, filled)
    for n in range(N):
        a = similarity(n, filled)
        assert log_a[n].exp().tolist() == pytest.approx(a, abs=1e-12)
        for c in range(C):
            assert found[n, c].item() == pytest.approx(sum(a[k] * P_MEMORY[k, c].item() for k in range(K)))
            assert shares[n, c].item() == pytest.approx(sum(a[k] for k in range(K) if LABEL[k] == c))
        weighted = [a[k] * P[n, LABEL[k]].item() for k in range(K)]
        assert spread[n].tolist() == pytest.approx([w / sum(weighted) for w in weighted], abs=1e-12)
    charge = similarity_cross_entropy(log_a.flip(0), spread)
    for n in range(N):
        other = similarity(N - 1 - n, filled)
        want = -sum(spread[n, k].item() * math.log(other[k]) for k in range(K) if filled[k])
        assert charge[n].item() == pytest.approx(want)


def test_rows_that_hold_nothing_count_for_nothing():
    """The peer's queue counts them with exp(0): a zero row is as near as one at a right angle."""
    for rows in (torch.zeros(K, D, dtype=torch.float64), 99 * normal(K, D)):
        memory = torch.where(SOME.unsqueeze(1), M, rows)
        torch.testing.assert_close(log_similarity(H, memory, SOME, T)[:, SOME], log_similarity(H, M, SOME, T)[:, SOME])
        assert (log_similarity(H, memory, SOME, T).exp()[:, ~SOME] == 0).all()


def test_an_empty_memory_changes_nothing_and_stays_finite():
    h = H.clone().requires_grad_()
    log_a = log_similarity(h, M * 0, NONE, T)
    assert torch.equal(blended(P, recalled(log_a, P_MEMORY * 0), NONE, 0.9), P)
    charge = similarity_cross_entropy(log_a, unfolded(log_a.detach(), P, LABEL, NONE))
    charge.sum().backward()
    assert charge.isfinite().all()
    assert h.grad.isfinite().all()


def test_blending():
    torch.testing.assert_close(blended(P, P.flip(0), SOME, 0.9), 0.9 * P + 0.1 * P.flip(0))


def test_no_epsilon_is_needed_where_cosines_are_far_apart():
    """exp(cos / T) of T = 0.005 overflows float32; a log of what has underflown would be capped by an epsilon."""
    h = torch.tensor([[1.0, 0.0]], requires_grad=True)
    log_a = log_similarity(h, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.ones(2, dtype=torch.bool), 0.005)
    charge = similarity_cross_entropy(log_a, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(charge, torch.tensor([400.0]))
    charge.backward()
    assert h.grad.isfinite().all()
    assert h.grad.abs().sum() > 0

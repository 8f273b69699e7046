"""Against loops over pairs, in float64."""

import math

import pytest
import torch

from sfumato.functional.graph import graph_contrast, label_graph
from sfumato.functional.prototypes import unit

DRAW = torch.Generator().manual_seed(0)
N, D, C, T = 7, 4, 3, 0.2
P = (torch.randn(N, C, dtype=torch.float64, generator=DRAW) * 4).softmax(1)
FIRST, SECOND = (unit(torch.randn(N, D, dtype=torch.float64, generator=DRAW)) for _ in range(2))
SOME = torch.tensor([1.0, 1, 0, 1, 1, 0, 1], dtype=torch.float64)


def looped_graph(valid, threshold):
    rows = []
    for i in range(N):
        row = [sum(a * b for a, b in zip(P[i].tolist(), P[j].tolist(), strict=True)) for j in range(N)]
        row = [1.0 if i == j else w if w >= threshold else 0.0 for j, w in enumerate(row)]
        row = [w * valid[i].item() * valid[j].item() for j, w in enumerate(row)]
        rows.append([w / sum(row) for w in row] if sum(row) else row)
    return rows


@pytest.mark.parametrize("valid", [torch.ones(N, dtype=torch.float64), SOME])
def test_graph_and_contrast_against_loops(valid):
    graph, rows = label_graph(P, valid, 0.5), looped_graph(valid, 0.5)
    assert any(0 < w < 1 for row in rows for w in row)
    torch.testing.assert_close(graph, torch.tensor(rows, dtype=torch.float64))
    charge = graph_contrast(FIRST, SECOND, graph, valid, T)
    for i in range(N):
        e = [math.exp(float(FIRST[i] @ SECOND[j]) / T) * valid[j].item() for j in range(N)]
        want = -sum(rows[i][j] * math.log(e[j] / sum(e)) for j in range(N) if rows[i][j])
        assert charge[i].item() == pytest.approx(want)


def test_a_sample_is_always_like_itself():
    """However doubtful: p . p of a uniform prediction is 1 / C."""
    even = torch.full((3, 4), 0.25)
    assert torch.equal(label_graph(even, torch.ones(3), 0.8), torch.eye(3))


def test_both_views_have_gradient():
    first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    graph = label_graph(P, SOME, 0.5)
    graph_contrast(first, second, graph, SOME, T).sum().backward()
    for grad in (first.grad, second.grad):
        assert (grad[SOME > 0].abs().sum(dim=1) > 0).all()
        assert (grad[SOME == 0] == 0).all()


def test_nothing_valid_costs_nothing():
    first = FIRST.clone().requires_grad_()
    none = torch.zeros(N, dtype=torch.float64)
    charge = graph_contrast(first, SECOND, label_graph(P, none, 0.5), none, T)
    charge.sum().backward()
    assert (charge == 0).all()
    assert (first.grad == 0).all()

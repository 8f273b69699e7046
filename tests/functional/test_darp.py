"""The projection is the nearest table that meets the budgets, and meets them wherever a table can."""

import math

import pytest
import torch

from sfumato.functional.darp import EPS, alternated, projected, pruned


def table(n: int = 60, classes: int = 5, *, seed: int = 0, sharp: float = 2.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.softmax(sharp * torch.randn(n, classes, generator=draw, dtype=torch.float64), dim=1)


def budget(n: int = 60, classes: int = 5, ratio: float = 10.0) -> torch.Tensor:
    shares = ratio ** -(torch.arange(classes, dtype=torch.float64) / max(1, classes - 1))
    return n * shares / shares.sum()


def cost(m: torch.Tensor, a: torch.Tensor) -> float:
    """What is to be least, entry by entry."""
    total = 0.0
    for row, was in zip(m.tolist(), a.tolist(), strict=True):
        height = -sum(q * math.log(q + EPS) for q in was)
        total += sum(x * math.log(x / q) for x, q in zip(row, was, strict=True) if x > 0) / height
    return total


def test_no_table_with_these_budgets_is_nearer():
    a = table()
    m, miss = projected(a, budget(), tolerance=1e-10)
    assert float(miss) < 1e-10
    least, draw = cost(m, a), torch.Generator().manual_seed(1)
    for _ in range(50):
        i, j = torch.randint(60, (2,), generator=draw).tolist()
        c, d = torch.randperm(5, generator=draw)[:2].tolist()
        size = 1e-3 * float(torch.stack((m[i, c], m[j, d], m[i, d], m[j, c])).min()) if i != j else 0.0
        other = m.clone()  # a swap keeps all sums
        other[i, c] += size
        other[i, d] -= size
        other[j, c] -= size
        other[j, d] += size
        assert cost(other, a) >= least - 1e-12


def test_sure_rows_move_last():
    a = torch.tensor([[0.98, 0.01, 0.01], [0.4, 0.3, 0.3], [0.4, 0.3, 0.3]])
    m, _ = projected(a, torch.tensor([1.0, 1.0, 1.0]), tolerance=1e-9)
    moved = (m - a).abs().sum(dim=1)
    assert moved[0] < 0.1 * moved[1]


def test_a_met_budget_changes_nothing():
    a = table()
    m, _ = projected(a, a.sum(dim=0))
    torch.testing.assert_close(m, a, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "solve", [lambda a, q: projected(a, q, tolerance=1e-9)[0], alternated], ids=["exact", "rounds"]
)
def test_order_of_samples_and_names_of_classes_do_not_matter(solve):
    a, q = table(), budget()
    rows, classes = (torch.randperm(k, generator=torch.Generator().manual_seed(2)) for k in a.shape)
    torch.testing.assert_close(solve(a[rows][:, classes], q[classes]), solve(a, q)[rows][:, classes])


def test_the_rounds_tend_to_the_solution():
    a, q = table(), budget()
    far, near = ((alternated(a, q, rounds=k) - projected(a, q, tolerance=1e-9)[0]).abs().max() for k in (2, 60))
    assert near < 1e-6 < far


@pytest.mark.parametrize("ratio", [1.0, 10.0, 1e4])
@pytest.mark.parametrize(("n", "classes"), [(40, 2), (200, 10), (50, 1000)])
def test_hard_budgets_are_met(n, classes, ratio):
    a, q = pruned(table(n, classes, sharp=6.0), budget(n, classes, ratio)), budget(n, classes, ratio)
    m, miss = projected(a, q)
    assert float(miss) <= 1e-3
    torch.testing.assert_close(m.sum(dim=1), torch.ones(n, dtype=torch.float64))
    assert alternated(a, q).isfinite().all()


def test_a_class_without_a_budget_gets_nothing():
    q = torch.tensor([30.0, 30.0, 0.0, 0.0, 0.0])
    for p in (table(), pruned(table(), q)):
        m, miss = projected(p, q)
        assert float(miss) <= 1e-3
        assert m[:, 2:].sum(dim=0).max() <= 1e-3
    assert alternated(table(), q)[:, 2:].sum() < 1e-2


def test_what_cannot_be_met_says_so():
    sure = torch.zeros(20, 3)
    sure[:, 0] = 1.0
    m, miss = projected(sure, torch.tensor([10.0, 10.0, 0.0]))
    assert float(miss) > 1
    assert m.isfinite().all()
    assert alternated(sure, torch.tensor([10.0, 10.0, 0.0])).isfinite().all()


def test_half_precision_is_solved_in_double():
    m, miss = projected(table().bfloat16(), budget())
    assert m.dtype == torch.float64
    assert float(miss) <= 1e-3


def test_pruning_leaves_the_largest_entries_of_each_class():
    p, q = table(), budget()
    a = pruned(p, q, keep=2.0)
    for c in range(5):
        count = int(2 * q[c])
        kept = p[:, c].argsort(descending=True)[:count]
        assert (a[kept, c] > 10 * EPS).sum() >= 0.9 * count
        rest = torch.ones(60, dtype=torch.bool)
        rest[kept] = False
        bare = a[rest].max(dim=1).values < 0.3  # a row that lost nearly all is near to uniform
        assert (a[rest, c][~bare] < 1e-2).all()
    torch.testing.assert_close(a.sum(dim=1), torch.ones(60, dtype=torch.float64))


def test_a_row_that_no_class_keeps_is_uniform():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.55, 0.45]])
    torch.testing.assert_close(pruned(p, torch.tensor([1.0, 1.0]), keep=1.0)[3], torch.full((2,), 0.5).double())

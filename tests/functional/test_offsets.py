import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from sfumato.errors import UsageError
from sfumato.functional import offsets
from sfumato.functional.offsets import LIMIT, balanced_cross_entropy, class_offsets
from tests.functional.oracle import logits_of, softmax


def problem(samples=300, classes=6, *, tilt=1.5, seed=0):
    """A long tail of labels, and a net that predicts the head too often."""
    draw = torch.Generator().manual_seed(seed)
    p = torch.tensor([0.6**c for c in range(classes)])
    y = torch.multinomial(p, samples, replacement=True, generator=draw)
    y[:classes] = torch.arange(classes)
    z = logits_of(samples, classes, scale=1.0, seed=seed)
    z[torch.arange(samples), y] += 1.5
    return z + torch.linspace(tilt, -tilt, classes), y


def test_loss_is_the_mean_over_classes_of_their_mean():
    z, y = problem(40, 4)
    log_pi = torch.tensor([0.3, -0.1, 0.0, -0.2])
    means = []
    for c in range(4):
        rows = [softmax((row - log_pi).tolist()) for row in z[y == c]]
        means.append(sum(-math.log(p[c]) for p in rows) / len(rows))
    assert float(balanced_cross_entropy(z, y, log_pi)) == pytest.approx(sum(means) / 4, abs=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("dense", [300, 0], ids=["matrix", "products"])
def test_gradient_is_none_at_the_solution(monkeypatch, ridge, dense):
    monkeypatch.setattr(offsets, "_DENSE", dense)
    z, y = problem()
    b = class_offsets(z, y, ridge=ridge).requires_grad_()
    (balanced_cross_entropy(z, y, b) + ridge / 2 * b.square().sum()).backward()
    assert b.grad.abs().max() < 1e-9
    assert float(b.detach().sum()) == pytest.approx(0, abs=1e-12)


def test_over_predicted_classes_get_large_offsets():
    z, y = problem()
    b = class_offsets(z, y)
    assert b[0] > 0.3 > -0.3 > b[-1]
    assert balanced_cross_entropy(z, y, b) < balanced_cross_entropy(z, y) - 0.05


def test_the_start_changes_nothing():
    z, y = problem()
    torch.testing.assert_close(
        class_offsets(z, y, start=torch.linspace(-3, 3, 6)), class_offsets(z, y), rtol=0, atol=1e-8
    )


def test_many_classes_by_products_as_by_matrix(monkeypatch):
    z, y = problem(900, 320)
    by_products = class_offsets(z, y)
    monkeypatch.setattr(offsets, "_DENSE", 1000)
    torch.testing.assert_close(by_products, class_offsets(z, y), rtol=0, atol=1e-8)


@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_a_class_without_samples_stays_neutral(ridge):
    """The authors' objective drives its offset to infinity, which forbids the class; their other rule favors it."""
    z, y = problem(classes=5)
    z = torch.cat([z[:, :2], z[:, :1] + 1, z[:, 2:]], dim=1)  # class 2 is predicted, and nobody has it
    y = torch.where(y >= 2, y + 1, y)
    b = class_offsets(z, y, ridge=ridge)
    assert b[2] == 0
    assert float(b.sum()) == pytest.approx(0, abs=1e-12)
    assert b.abs().max() < LIMIT


def test_offsets_stay_within_the_limit_and_are_the_best_there():
    """A class that nothing but its prior gives away has no finite optimum."""
    z = torch.zeros(100, 3, dtype=torch.float64)
    z[:, 0], y = 12.0, torch.tensor([0] * 40 + [1] * 30 + [2] * 30)
    b = class_offsets(z, y, ridge=0.0)
    assert b.abs().max() <= LIMIT + 1e-12
    assert float(b.sum()) == pytest.approx(0, abs=1e-9)
    grid = torch.linspace(-LIMIT, LIMIT, 41, dtype=torch.float64).tolist()
    best = float(balanced_cross_entropy(z, y, b))
    for first in grid:
        for second in grid:
            if abs(first + second) <= LIMIT:
                other = torch.tensor([first, second, -first - second], dtype=torch.float64)
                assert best <= float(balanced_cross_entropy(z, y, other)) + 1e-9


@pytest.mark.parametrize("classes", [2, 1000])
def test_extreme_logits_and_few_samples_stay_finite(classes):
    z = torch.zeros(4, classes)
    z[0, 0], z[1, 0] = 1e4, -1e4
    b = class_offsets(z, torch.tensor([0, 1, 0, 1]))
    assert b.isfinite().all()
    assert b.abs().max() <= LIMIT + 1e-12


@pytest.mark.parametrize("y", [[], [1, 1, 1]], ids=["no samples", "one class"])
def test_nothing_to_balance_gives_zeros(y):
    y = torch.tensor(y, dtype=torch.int64)
    assert torch.equal(class_offsets(torch.randn(len(y), 3), y), torch.zeros(3, dtype=torch.float64))


def test_ridge_pulls_towards_zero():
    z, y = problem()
    sizes = [float(class_offsets(z, y, ridge=ridge).norm()) for ridge in (0.0, 0.01, 1.0, 1e6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-4


def test_classes_may_be_renamed():
    z, y = problem()
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    renamed = class_offsets(z[:, order], torch.argsort(order)[y])
    torch.testing.assert_close(renamed, class_offsets(z, y)[order], rtol=0, atol=1e-9)


def test_messages():
    with pytest.raises(UsageError, match=r"ridge=-1: expected a number of 0 or more, such as 0\.01"):
        class_offsets(torch.zeros(2, 3), torch.tensor([0, 1]), ridge=-1)
    with pytest.raises(UsageError, match=r"labels \(3,\) do not fit logits \(2, 3\): expected \(K, C\) and \(K,\)"):
        class_offsets(torch.zeros(2, 3), torch.tensor([0, 1, 1]))


@pytest.mark.parametrize("seed", range(3))
def test_the_best_within_the_limit_as_a_general_solver_finds_it(seed):
    """Several classes at either limit."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(5).repeat_interleave(torch.tensor([40, 20, 13, 10, 8]))
    z = torch.randn(91, 5, generator=draw).double() + torch.tensor([2.0, 1.0, 0.0, -6.0, -6.0])
    z[torch.arange(91), y] += 1

    def objective(b):
        b = torch.as_tensor(b)
        return float(balanced_cross_entropy(z, y, b) + 0.005 * b.square().sum())

    found = class_offsets(z, y)
    other = minimize(
        objective, np.zeros(5), method="SLSQP", bounds=[(-LIMIT, LIMIT)] * 5, options={"ftol": 1e-14},
        constraints=[{"type": "eq", "fun": np.sum}],
    )  # fmt: skip
    assert (found.abs() > LIMIT - 1e-9).sum() >= 2
    assert objective(found) <= other.fun + 1e-9

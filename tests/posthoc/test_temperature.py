"""Temperature scaling against an independent minimiser, and where the minimum is no good."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from sfumato.errors import UsageError
from sfumato.evaluate import evaluate
from sfumato.posthoc.temperature import fit_temperature


def predictions(seed: int, n: int, classes: int, true_temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels drawn from softmax(z / T), so that T is the answer for many samples."""
    draw = np.random.default_rng(seed)
    z = draw.normal(size=(n, classes)) * 3
    p = np.exp(z / true_temperature)
    p /= p.sum(axis=1, keepdims=True)
    y = (draw.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return torch.tensor(z, dtype=torch.float32), torch.tensor(y)


def loss(z: torch.Tensor, y: torch.Tensor, temperature: float) -> float:
    return float(torch.nn.functional.cross_entropy(z.double() / temperature, y))


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 4.0])
def test_is_the_minimum_that_scipy_finds(classes, true_temperature):
    z, y = predictions(classes, 800, classes, true_temperature)
    reference = minimize_scalar(
        lambda log_t: loss(z, y, float(np.exp(log_t))),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    fitted = fit_temperature(z, y)
    assert np.log(fitted) == pytest.approx(reference.x, abs=1e-5)
    assert loss(z, y, fitted) <= reference.fun + 1e-12


def test_recovers_the_temperature_the_labels_were_drawn_with():
    z, y = predictions(1, 20_000, 5, 2.5)
    assert fit_temperature(z, y) == pytest.approx(2.5, rel=0.05)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 40])
def test_never_worsens_the_labels_it_was_fitted_on(n):
    for seed in range(30):
        z, y = predictions(seed, n, 4, 3.0)
        fitted = fit_temperature(z, y)
        assert 0.05 <= fitted <= 20
        assert loss(z, y, fitted) <= loss(z, y, 1.0) + 1e-12


def test_all_right_sharpens_with_the_number_of_labels_but_not_to_the_bound():
    z = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    few, many = (fit_temperature(z.repeat(n, 1), torch.zeros(n, dtype=torch.int64)) for n in (5, 5000))
    assert 0.05 < many < few < 1
    # with the supposed label, N + 1/3 of N + 1 are of the first class: that is the confidence of the minimum
    assert float((z / few).softmax(dim=1)[0, 0]) == pytest.approx((5 + 1 / 3) / 6, abs=1e-9)


def test_all_right_and_already_sure_is_left_alone():
    assert fit_temperature(torch.tensor([[30.0, 0.0], [0.0, 30.0]]), torch.tensor([0, 1])) == 1.0


def test_all_wrong_stops_at_the_soft_bound():
    assert fit_temperature(torch.tensor([[5.0, 0.0], [5.0, 0.0]]), torch.tensor([1, 1])) == pytest.approx(20.0)


@pytest.mark.parametrize(
    "z, y",
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
        (torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.full((4,), -1)),
        (torch.full((4, 3), 7.0), torch.tensor([0, 1, 2, 0])),
        (torch.ones(2, 1), torch.zeros(2, dtype=torch.int64)),
    ],
    ids=["no samples", "no labels", "equal logits", "one class"],
)
def test_nothing_to_fit_gives_one(z, y):
    assert fit_temperature(z, y) == 1.0


def test_ignores_unlabelled_entries_and_takes_pixels():
    z, y = predictions(3, 60, 4, 2.0)
    hidden = torch.cat([y, torch.full((10,), -1)])
    padded = torch.cat([z, torch.randn(10, 4, generator=torch.Generator().manual_seed(1)) * 50])
    assert fit_temperature(padded, hidden) == fit_temperature(z, y)
    pixels = z.reshape(3, 4, 5, 4).movedim(-1, 1)
    assert fit_temperature(pixels, y.reshape(3, 4, 5)) == pytest.approx(fit_temperature(z, y), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_extreme_logits_stay_finite_and_keep_the_answer(scale):
    z, y = predictions(5, 200, 6, 1.0)
    fitted = fit_temperature(z * scale, y)
    assert np.isfinite(fitted)
    assert torch.equal((z * scale).argmax(dim=1), (z.double() * scale / fitted).argmax(dim=1))
    names = [str(i) for i in range(6)]
    before, after = (evaluate(z * scale, y, classes=names, temperature=t) for t in (1.0, fitted))
    assert before["acc"] == after["acc"]
    assert after["nll"] <= before["nll"] + 1e-9


def test_says_what_does_not_fit():
    z = torch.zeros(3, 2)
    with pytest.raises(UsageError, match=r"labels of shape \(2,\) do not fit logits of shape \(3, 2\)"):
        fit_temperature(z, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UsageError, match="label 2 found where there are 2 classes"):
        fit_temperature(z, torch.tensor([0, 1, 2]))
    with pytest.raises(UsageError, match="the model they come from has diverged"):
        fit_temperature(z / 0, torch.tensor([0, 1, 1]))

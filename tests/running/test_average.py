import pytest
import torch

from sfumato.functional.probability import class_sums
from sfumato.running.average import RunningMean
from sfumato.running.gaussian import RunningGaussian, RunningMoments
from sfumato.running.window import WindowMean
from tests.running.statistics import batches


def feed(mean, *values):
    for value in values:
        mean.observe(torch.tensor(value) * 4, torch.tensor(4))
    return mean.value.item()


@pytest.mark.parametrize("init", ["first", "debiased"])
def test_the_first_observation_is_unbiased(init):
    assert feed(RunningMean(0.5, momentum=0.999, init=init), 3.0) == pytest.approx(3.0, rel=1e-4)
    assert RunningMean(0.5, init=init).value.item() == 0.5


def test_given_starts_where_it_is_told():
    assert feed(RunningMean(0.5, momentum=0.9, init="given"), 3.0) == pytest.approx(0.9 * 0.5 + 0.1 * 3.0)


def test_against_loops():
    values, m = [1.0, 4.0, -2.0, 0.5], 0.8
    first = values[0]
    for v in values[1:]:
        first = m * first + (1 - m) * v
    weights = [m ** (len(values) - 1 - k) for k in range(len(values))]
    debiased = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert feed(RunningMean(0.0, momentum=m, init="first"), *values) == pytest.approx(first)
    assert feed(RunningMean(0.0, momentum=m, init="debiased"), *values) == pytest.approx(debiased)


def test_sums_and_counts_weigh_unequal_batches_as_they_are():
    mean = RunningMean(0.0, momentum=0.0, init="given")
    mean.observe(torch.tensor(12.0), torch.tensor(3.0))
    assert mean.value.item() == 4.0


@pytest.mark.parametrize("init", ["first", "given", "debiased"])
def test_an_absent_class_keeps_its_value(init):
    mean = RunningMean(torch.tensor([0.5, 0.5]), momentum=0.9, init=init)
    mean.observe(torch.tensor([2.0, 0.0]), torch.tensor([2.0, 0.0]))
    assert mean.value[1].item() == 0.5
    before = mean.value[0].item()
    for _ in range(50):
        mean.observe(torch.tensor([0.0, 6.0]), torch.tensor([0.0, 2.0]))
    assert mean.value[0].item() == before


@pytest.mark.parametrize("init", ["first", "debiased"])
def test_a_class_that_comes_late_is_unbiased_too(init):
    mean = RunningMean(torch.tensor([0.5, 0.5]), momentum=0.9, init=init)
    for _ in range(5):
        mean.observe(torch.tensor([2.0, 0.0]), torch.tensor([2.0, 0.0]))
    mean.observe(torch.tensor([2.0, 6.0]), torch.tensor([2.0, 2.0]))
    assert mean.value.tolist() == pytest.approx([1.0, 3.0])


@pytest.mark.parametrize("init", ["first", "given", "debiased"])
def test_a_class_prior_sums_to_one(init):
    prior = RunningMean(torch.full((5,), 0.2), momentum=0.9, init=init)
    assert prior.value.tolist() == pytest.approx([0.2] * 5)
    for batch in batches(4):
        prior.observe(class_sums(batch.p, batch.valid), batch.valid.sum())
        assert prior.value.sum().item() == pytest.approx(1.0)


def test_long_runs_keep_their_precision():
    mean = RunningMean(0.0, momentum=0.999, init="debiased")
    for _ in range(5000):
        mean.observe(torch.tensor(0.7), torch.tensor(1.0))
    assert mean.value.item() == pytest.approx(0.7, abs=1e-5)


def test_moments_of_one_batch():
    x = torch.rand(1000, dtype=torch.float64)
    moments = RunningMoments(momentum=0.999).double()
    moments.observe(x, torch.ones_like(x))
    assert moments.mean.item() == pytest.approx(x.mean().item())
    assert moments.std.item() == pytest.approx(x.std(unbiased=False).item())


def test_a_constant_has_no_spread():
    moments = RunningMoments()
    moments.observe(torch.full((7,), 0.3), torch.ones(7))
    assert 0 <= moments.std.item() < 1e-7


def test_moments_are_those_of_averaged_squares():
    """m2 - m1^2, also where that difference would lose all digits of float32."""
    moments, first, second = RunningMoments(momentum=0.9), None, None
    for _ in range(30):
        x = 0.7 + 1e-4 * torch.rand(64, dtype=torch.float64)
        moments.observe(x.float(), torch.ones(64))
        mean, square = x.mean(), x.square().mean()
        first = mean if first is None else 0.9 * first + 0.1 * mean
        second = square if second is None else 0.9 * second + 0.1 * square
    assert moments.std.item() == pytest.approx((second - first**2).sqrt().item(), rel=1e-3)


@pytest.mark.parametrize("estimate", ["unbiased", "population"])
def test_gaussian_of_one_batch(estimate):
    x = torch.rand(50)
    gaussian = RunningGaussian(0.1, 1.0, momentum=0.9, estimate=estimate)
    gaussian.observe(x, torch.ones(50))
    spread = x.var(unbiased=estimate == "unbiased").item()
    assert gaussian.mean.item() == pytest.approx(0.09 + 0.1 * x.mean().item())
    assert gaussian.variance.item() == pytest.approx(0.9 + 0.1 * spread)


def test_one_sample_says_nothing_of_an_unbiased_variance():
    gaussian = RunningGaussian(0.1, 1.0, momentum=0.9, estimate="unbiased")
    gaussian.observe(torch.tensor([0.5]), torch.ones(1))
    assert gaussian.variance.item() == 1.0
    assert gaussian.mean.item() == pytest.approx(0.14)
    population = RunningGaussian(0.1, 1.0, momentum=0.9, estimate="population")
    population.observe(torch.tensor([0.5]), torch.ones(1))
    assert population.variance.item() == pytest.approx(0.9)


def test_window_against_a_loop():
    seen = [torch.rand(3) for _ in range(7)]
    filled, zeros = WindowMean(torch.full((3,), 1 / 3), length=4), WindowMean(torch.zeros(3), length=4, init="given")
    assert filled.value.tolist() == pytest.approx([1 / 3] * 3)
    for k, row in enumerate(seen):
        for window in (filled, zeros):
            window.observe(row * 2, torch.tensor(2))
        last = seen[max(0, k - 3) : k + 1]
        assert filled.value.tolist() == pytest.approx((sum(last) / len(last)).tolist())
        assert zeros.value.tolist() == pytest.approx((sum(last) / 4).tolist())

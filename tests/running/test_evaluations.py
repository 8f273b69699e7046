import pytest
import torch

from sfumato.errors import UsageError
from sfumato.running.evaluations import EvaluationMean


def fed(mean, values):
    for value in values:
        mean.observe(torch.tensor([value]))
    return float(mean.value)


def test_debiased_mean_forgets_its_start():
    """After one evaluation it is that evaluation, and constant values are their mean."""
    mean = EvaluationMean(torch.tensor([0.95]), decay=0.999)
    assert float(mean.value) == pytest.approx(0.95)
    assert fed(mean, [0.2]) == pytest.approx(0.2, abs=1e-5)
    assert fed(mean, [0.4]) == pytest.approx((0.999 * 0.2 + 0.4) / 1.999, abs=1e-4)
    assert fed(EvaluationMean(torch.tensor([0.95]), decay=0.9), [0.3] * 50) == pytest.approx(0.3, abs=1e-6)


def test_official_mean_keeps_most_of_its_start():
    """0.95 * 0.999^500 = 0.576, the value at which the authors' schedules end."""
    mean = EvaluationMean(torch.tensor([0.95]), decay=0.999, debiased=False)
    assert fed(mean, [0.0] * 500) == pytest.approx(0.576, abs=1e-3)


def test_default_decay_is_nine_tenths_and_grows_after_a_hundred_evaluations():
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(300, generator=draw).tolist()
    auto, fixed = EvaluationMean(torch.zeros(1)), EvaluationMean(torch.zeros(1), decay=0.9)
    assert fed(auto, values[:100]) == fed(fixed, values[:100])
    slow = fed(auto, values[100:])
    weights = torch.ones(300)
    for k in range(1, 301):
        d = max(0.9, 1 - 10 / k)
        weights[: k - 1] *= d
        weights[k - 1] = 1 - d
    assert slow == pytest.approx(float((weights * torch.tensor(values)).sum() / weights.sum()), abs=1e-5)
    assert slow != pytest.approx(fed(fixed, values[100:]), abs=1e-3)


@pytest.mark.parametrize("debiased", [True, False])
def test_resumed_in_the_middle(debiased):
    whole, first, rest = (EvaluationMean(torch.zeros(3), debiased=debiased) for _ in range(3))
    values = torch.rand(120, 3, generator=torch.Generator().manual_seed(1))
    for k, value in enumerate(values):
        whole.observe(value)
        if k < 60:
            first.observe(value)
    rest.load_state_dict(first.state_dict())
    for value in values[60:]:
        rest.observe(value)
    assert torch.equal(rest.value, whole.value)


def test_decay_is_the_weight_of_the_old_value():
    with pytest.raises(UsageError, match=r"decay=1\.0: expected at least 0 and below 1, such as 0\.9, or None"):
        EvaluationMean(torch.zeros(1), decay=1.0)

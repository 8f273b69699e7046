import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.precision import (
    Predictions,
    frequency_groups,
    inverse_frequency,
    precision_thresholds,
    rare_groups,
    selected_precision,
)
from sfumato.functional.simplex import simplex_thresholds


def made(samples=400, classes=6, *, groups=3, seed=0, skew=0.0, decimals=2):
    """Predictions that are the likelier right the surer they are; many confidences are equal."""
    draw = torch.Generator().manual_seed(seed)
    confidence = torch.rand(samples, generator=draw, dtype=torch.float64).round(decimals=decimals)
    predicted = torch.randint(classes, (samples,), generator=draw)
    right = torch.rand(samples, generator=draw) < 0.3 + 0.65 * confidence
    y = torch.where(right, predicted, (predicted + 1) % classes)
    weight = torch.exp(skew * torch.arange(classes, dtype=torch.float64))
    return Predictions(confidence, predicted, y, torch.arange(classes) % groups, weight)


def slow(seen, target, choice, fewest, share):
    """Every threshold of every group in a loop."""
    found = []
    for number in range(seen.groups):
        mine = [k for k in range(len(seen.y)) if seen.group[seen.predicted[k]] == number]
        tried = []
        for tau in sorted({0.0, *(float(seen.confidence[k]) for k in mine)}):
            kept = [k for k in mine if seen.confidence[k] >= tau]
            mass = sum(float(seen.weight[seen.y[k]]) for k in kept)
            hit = sum(float(seen.weight[seen.y[k]]) for k in kept if seen.predicted[k] == seen.y[k])
            tried.append((tau, hit / mass, len(kept)))
        tau, precision, count = tried[0]
        if precision < target:
            allowed = [one for one in tried if one[2] >= max(fewest, share * count) or one[0] == 0]
            reaching = [one for one in allowed if one[1] >= target]
            least = min(abs(one[1] - target) for one in allowed)
            nearest = [one for one in allowed if abs(one[1] - target) <= least + 1e-12]
            tau = (reaching if reaching and choice == "first_reaching" else nearest)[0][0]
        found.append(tau)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("choice", ["first_reaching", "argmin_gap"])
@pytest.mark.parametrize("skew", [0.0, 0.7], ids=["plain", "weighted"])
@pytest.mark.parametrize("seed", range(3))
def test_as_a_loop_over_all_thresholds(choice, skew, seed):
    seen = made(150, seed=seed, skew=skew)
    for target in (0.5, 0.75, 0.9, 0.999):
        got = precision_thresholds(seen, target, choice=choice)
        torch.testing.assert_close(got, slow(seen, target, choice, 5, 0.02), rtol=0, atol=1e-12)


def test_tiny_selections_do_not_decide():
    """Three lucky samples at the top are no estimate of a precision."""
    confidence = torch.cat([torch.tensor([0.99, 0.98, 0.97]), torch.linspace(0.9, 0.3, 100)]).double()
    y = torch.cat([torch.zeros(3), (torch.arange(100) % 2).float()]).long()
    seen = Predictions(confidence, torch.zeros(103, dtype=torch.int64), y, torch.zeros(2).long(), torch.ones(2))
    lucky = precision_thresholds(seen, 0.95, fewest=1, share=0.0)
    assert float(lucky) == pytest.approx(0.9)  # four samples, all right
    tau = precision_thresholds(seen, 0.95)
    _, count = selected_precision(seen, tau)
    assert count >= 5


def test_gap_to_the_target_on_500_synthetic_groups():
    """Wherever a threshold is needed and one sample more or less moves the precision by 0.02 at most."""
    gaps, stalled, searched = [], [], 0
    for seed in range(100):
        seen = made(2000, 5, groups=5, seed=seed, skew=0.1, decimals=6)
        whole, _ = selected_precision(seen, torch.zeros(5))
        tau, official = precision_thresholds(seen, 0.75), simplex_thresholds(seen, 0.75)
        reached, count = selected_precision(seen, tau)
        theirs, _ = selected_precision(seen, official, strict=True)
        searched += len(tau)
        counted = (whole < 0.75) & (count >= 75)
        assert (reached >= 0.75 - 1e-9)[counted].all()
        gaps.append((reached - 0.75).abs()[counted])
        stalled.append((theirs - 0.75).abs()[counted])
    gap, stall = torch.cat(gaps), torch.cat(stalled)
    assert searched == 500
    assert len(gap) > 300
    assert float(gap.max()) <= 0.02
    assert float(gap.mean()) < 0.01
    assert float(stall.mean()) > 10 * float(gap.mean())


@pytest.mark.parametrize("choice", ["first_reaching", "argmin_gap"])
def test_zero_where_there_is_nothing_to_search(choice):
    empty = made(0)
    assert torch.equal(precision_thresholds(empty, 0.75, choice=choice), torch.zeros(0 + 3, dtype=torch.float64))
    seen = made()
    seen = Predictions(seen.confidence, seen.predicted % 2, seen.predicted % 2, torch.arange(6) % 3, seen.weight)
    assert torch.equal(precision_thresholds(seen, 0.75, choice=choice), torch.zeros(3, dtype=torch.float64))


def test_everywhere_searches_where_all_reach_the_target():
    seen = made()
    sure = precision_thresholds(seen, 0.3, choice="argmin_gap", fewest=1, share=0.0)
    assert not sure.any()
    assert not precision_thresholds(seen, 0.3, fewest=1, share=0.0, everywhere=True).any()
    wide = Predictions(seen.confidence, seen.predicted, seen.predicted.clone(), seen.group, seen.weight)
    low = (seen.confidence > 0.5) & (torch.arange(len(seen.y)) % 3 == 0)  # the surer, the worse
    wide.y[low] = (wide.predicted[low] + 1) % 6
    nearest = precision_thresholds(wide, 0.7, choice="argmin_gap", everywhere=True)
    assert nearest.any()
    assert not precision_thresholds(wide, 0.7, choice="argmin_gap").any()


def test_order_of_samples_does_not_matter():
    seen, order = made(), torch.randperm(400, generator=torch.Generator().manual_seed(1))
    other = Predictions(seen.confidence[order], seen.predicted[order], seen.y[order], seen.group, seen.weight)
    assert torch.equal(precision_thresholds(seen, 0.8), precision_thresholds(other, 0.8))


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ([50, 20, 10], [0, 1, 2]),
        ([10, 50, 20], [2, 0, 1]),
        ([50, 3, 4, 5, 12, 0, 0, 1], [0, 2, 2, 2, 1, 2, 2, 2]),
        ([50, 10, 3], [0, 1, 1]),
        ([9] * 7, [0, 0, 1, 1, 2, 2, 2]),
        ([1, 2], [0, 0]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_groups(counts, groups):
    assert frequency_groups(torch.tensor(counts)).tolist() == groups


def test_given_number_of_groups():
    assert frequency_groups(torch.tensor([1, 9, 5, 7, 3]), groups=2).tolist() == [1, 0, 0, 0, 1]
    assert frequency_groups(torch.tensor([1, 9, 5, 7, 3]), groups=9).tolist() == [4, 0, 2, 1, 3]


def test_weights_make_classes_count_alike():
    y = torch.tensor([0] * 8 + [1] * 2)
    assert inverse_frequency(y, 3).tolist() == [1.0, 4.0, 1.0]


def test_rare_groups():
    """One by too few samples, one by too few predictions."""
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 4)
    predicted = torch.tensor([0] * 60 + [0] * 30 + [2] * 4)
    seen = Predictions(torch.ones(94), predicted, y, torch.arange(3), torch.ones(3))
    assert rare_groups(seen).tolist() == [False, True, True]
    assert rare_groups(seen, fewest=2).tolist() == [False, True, False]


def test_messages():
    with pytest.raises(UsageError, match=r"target=1\.5: expected a precision above 0 and up to 1, such as 0\.75"):
        precision_thresholds(made(), 1.5)
    with pytest.raises(UsageError, match=r"choice='first'.*first_reaching, argmin_gap"):
        precision_thresholds(made(), 0.5, choice="first")

import pytest
import torch

from sfumato.functional.precision import Predictions, precision_thresholds, rare_groups, selected_precision
from sfumato.functional.simplex import simplex_thresholds

both = pytest.mark.parametrize("name", ["seval_thresholds_00", "seval_thresholds_01"])


def predictions(want):
    confidence, predicted = torch.softmax(torch.from_numpy(want["logits"]).double(), dim=1).max(dim=1)
    classes, groups = len(want["p_data"]), int(want["th_groups"])
    group = torch.arange(classes) // -(-classes // groups)  # runs of classes, as the authors'
    return Predictions(
        confidence, predicted, torch.from_numpy(want["labels"]), group, 1 / torch.from_numpy(want["p_data"])
    )


@both
def test_exact(golden, name):
    want, seen = golden(name), predictions(golden(name))
    target = float(want["target_precision"])
    nothing, _ = selected_precision(seen, torch.zeros(seen.groups))
    torch.testing.assert_close(nothing, torch.from_numpy(want["group_precision_all"]), rtol=0, atol=1e-6)
    tau = precision_thresholds(seen, target, choice="argmin_gap", fewest=1, share=0.0, strict=True, everywhere=True)
    torch.testing.assert_close(tau, torch.from_numpy(want["exact_tau"]), rtol=0, atol=1e-6)
    reached, _ = selected_precision(seen, tau, strict=True)
    torch.testing.assert_close((reached - target).abs(), torch.from_numpy(want["exact_gap"]), rtol=0, atol=1e-6)


@both
def test_selecting_what_reaches_a_threshold_selects_the_same(golden, name):
    want, seen = golden(name), predictions(golden(name))
    target = float(want["target_precision"])
    tau = precision_thresholds(seen, target, choice="argmin_gap", fewest=1, share=0.0, everywhere=True)
    reached, _ = selected_precision(seen, tau)
    torch.testing.assert_close((reached - target).abs(), torch.from_numpy(want["exact_gap"]), rtol=0, atol=1e-6)


@both
@pytest.mark.parametrize("choice", ["first_reaching", "argmin_gap"])
def test_no_threshold_where_all_reach_the_target(golden, name, choice):
    want, seen = golden(name), predictions(golden(name))
    tau = precision_thresholds(seen, float(want["target_precision"]), choice=choice)
    enough = torch.from_numpy(want["group_precision_all"]) >= float(want["target_precision"])
    assert torch.equal(tau == 0, enough | rare_groups(seen))
    assert not want["official_rare"].size
    assert not rare_groups(seen).any()


@both
def test_official_search_stalls(golden, name):
    """Ours repeats it, to show what it does: far from the best gap, and never far from its start."""
    want, seen = golden(name), predictions(golden(name))
    target = float(want["target_precision"])
    tau = simplex_thresholds(seen, target)
    torch.testing.assert_close(
        tau[seen.group], torch.from_numpy(want["official_thresholds"][: len(seen.group)]), rtol=0, atol=1e-6
    )
    reached, _ = selected_precision(seen, tau, strict=True)
    torch.testing.assert_close((reached - target).abs(), torch.from_numpy(want["official_gap"]), rtol=0, atol=1e-4)
    searched = tau > 0
    assert searched.any()
    assert ((tau[searched] - 0.95).abs() <= 0.05).all()
    ours, _ = selected_precision(seen, precision_thresholds(seen, target))
    assert ((ours - target).abs()[searched] < (reached - target).abs()[searched]).all()

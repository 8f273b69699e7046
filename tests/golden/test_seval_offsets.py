import math

import pytest
import torch

from sfumato.functional.offsets import balanced_cross_entropy, class_offsets
from sfumato.functional.simplex import simplex_offsets
from sfumato.running.average import RunningMean

both = pytest.mark.parametrize("name", ["seval_offsets_00", "seval_offsets_01"])


def centered(log_pi):
    return log_pi - log_pi.mean()


@both
def test_exact(golden, name):
    want = golden(name)
    z, y = torch.from_numpy(want["logits"]), torch.from_numpy(want["labels"])
    found = class_offsets(z, y, ridge=0.0)
    torch.testing.assert_close(found, torch.from_numpy(want["exact_log_pi"]), rtol=0, atol=1e-6)
    assert float(balanced_cross_entropy(z, y, found)) <= want["exact_balanced_ce"] + 1e-9
    assert float(balanced_cross_entropy(z, y)) == pytest.approx(float(want["balanced_ce_at_one"]), abs=1e-6)


@both
def test_ridge(golden, name):
    want = golden(name)
    z, y, ridge = torch.from_numpy(want["logits"]), torch.from_numpy(want["labels"]), float(want["ridge"])
    found = class_offsets(z, y, ridge=ridge)
    torch.testing.assert_close(found, torch.from_numpy(want["ridge_log_pi"]), rtol=0, atol=1e-6)
    value = balanced_cross_entropy(z, y, found) + ridge / 2 * found.square().sum()
    assert float(value) <= want["ridge_objective"] + 1e-9


@both
def test_recall_per_class(golden, name):
    """Before, and after the offsets that the official search found, which are those of pi up to a factor."""
    want = golden(name)
    z, y = torch.from_numpy(want["logits"]), torch.from_numpy(want["labels"])
    pi = torch.from_numpy(want["official_pi"])
    for key, logits in (("acc_pre", z), ("acc_post", z - pi.log())):
        right = (logits.argmax(dim=1) == y).double()
        recall = torch.stack([right[y == c].mean() for c in range(z.shape[1])])
        torch.testing.assert_close(recall, torch.from_numpy(want[key]), rtol=0, atol=1e-5)


@both
def test_official_search(golden, name):
    want = golden(name)
    z, y, pi = (torch.from_numpy(want[key]) for key in ("logits", "labels", "official_pi"))
    groups = int(want["pi_groups"])
    found = simplex_offsets(z, y, groups=groups, bounds=tuple(want["bounds"]))
    reached = float(balanced_cross_entropy(z, y, found))
    assert reached == pytest.approx(float(want["balanced_ce_at_official_pi"]), abs=1e-6)
    assert reached / z.shape[1] == pytest.approx(float(want["official_objective_at_pi"]), abs=1e-6)
    if groups == z.shape[1]:
        torch.testing.assert_close(centered(found), centered(pi.log()), rtol=0, atol=2e-3)
        torch.testing.assert_close(
            centered(pi.log()), class_offsets(z, y, ridge=0.0), rtol=0, atol=2e-3
        )  # ours finds the same


@both
def test_arithmetic_average(golden, name):
    want = golden(name)
    pi = torch.from_numpy(want["official_pi"])
    mean = RunningMean(torch.ones_like(pi), momentum=float(want["ema_decay"]), init="given")
    for row in want["ema_pi_sequence"]:
        mean.blend(pi.float(), torch.tensor(True))
        torch.testing.assert_close(mean.value, torch.from_numpy(row), rtol=0, atol=1e-5)
    assert math.isfinite(float(mean.value.sum()))

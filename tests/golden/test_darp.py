"""DARP against the authors' functions, and against an exact solution."""

import numpy as np
import pytest
import torch

from sfumato.functional.darp import alternated, projected, pruned

CASES = ("darp_00", "darp_01")


@pytest.fixture(params=CASES)
def case(shared, request) -> dict:
    with np.load(shared / "golden" / f"{request.param}.npz") as stored:
        return {key: torch.from_numpy(np.asarray(stored[key])) for key in stored.files}


def test_pruning(case):
    p, budget = case["initial_prob"], case["target_counts"]
    kept = pruned(p, budget, keep=float(case["alpha"]))
    torch.testing.assert_close(kept, case["rescaled_prob"], rtol=0, atol=1e-6)
    scaled = p.double() * case["selected_top"] * case["class_scale"] + 1e-6
    torch.testing.assert_close(kept, scaled / scaled.sum(dim=1, keepdim=True), rtol=0, atol=1e-6)


def test_exact(case):
    m, miss = projected(case["initial_prob"], case["target_counts"], tolerance=1e-9)
    torch.testing.assert_close(m, case["exact_refined_plain"], rtol=0, atol=1e-6)
    assert float(miss) < 1e-9
    assert abs(m.sum(dim=1) - 1).max() <= max(float(case["exact_row_err"]), 1e-12)
    assert abs(m.sum(dim=0) - case["target_counts"]).max() < 1e-8


@pytest.mark.parametrize("which", ["plain", "full"])
def test_the_authors_rounds(case, which):
    a = case["initial_prob"] if which == "plain" else case["rescaled_prob"]
    m = alternated(a, case["target_counts"], rounds=int(case["newton_outer_iters"]))
    torch.testing.assert_close(m.float(), case[f"official_refined_{which}"], rtol=0, atol=5e-3)

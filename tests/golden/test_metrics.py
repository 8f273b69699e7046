"""The golden family "metrics": float64 formulas written independently of this package, and torchmetrics' own values.

All arrays of the three files are compared. A first test names them, so that a new one is noticed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.evaluate import agreement, confusion, evaluate, per_class
from sfumato.functional import calibration

CASES = ["metrics_00", "metrics_01", "metrics_02"]
TOLERANCE = 1e-6
EDGE_TOLERANCE = 2e-3  # torchmetrics bins in float32: a confidence on an edge may fall on its other side


@pytest.fixture(params=CASES)
def case(request, golden):
    arrays = golden(request.param)
    return arrays, torch.tensor(arrays["prob"]), torch.tensor(arrays["label"])


def test_every_array_of_the_family_is_known(golden):
    compared = {
        "prob", "label", "ece15_l1", "ece15_l2", "ece15_max", "ece15_splitone_l1", "ece15_splitone_l2",
        "ece15_splitone_max", "torchmetrics_l1", "torchmetrics_l2", "torchmetrics_max", "torchmetrics_bin_index",
        "ece10_l1", "adaptive_ece15", "classwise_ece15", "classwise_ece15_each", "nll", "brier", "f1_per_class",
        "f1_present", "macro_f1_all", "macro_f1_present", "accuracy", "balanced_accuracy",
    }  # fmt: skip
    assert [set(golden(name)) for name in CASES] == [compared] * 3


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_expected_calibration_error(case, norm):
    arrays, p, y = case
    assert float(calibration.ece(p, y, norm=norm)) == pytest.approx(arrays[f"ece15_{norm}"], abs=TOLERANCE)
    split = calibration.ece(p, y, norm=norm, split_one=True)
    assert float(split) == pytest.approx(arrays[f"ece15_splitone_{norm}"], abs=TOLERANCE)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_agrees_with_torchmetrics(case, norm):
    from torchmetrics.functional.classification import multiclass_calibration_error

    arrays, p, y = case
    library = float(multiclass_calibration_error(p, y, num_classes=p.shape[1], n_bins=15, norm=norm))
    assert library == pytest.approx(float(arrays[f"torchmetrics_{norm}"]), abs=TOLERANCE)
    ours = float(calibration.ece(p, y, norm=norm, split_one=True))
    assert ours == pytest.approx(library, abs=EDGE_TOLERANCE)


def test_bin_of_every_sample_is_that_of_torchmetrics(case):
    arrays, p, _ = case
    top = p.amax(dim=1)
    ours = calibration.bin_index(top, 15, split_one=True).numpy()
    on_edge = np.isclose(top.numpy() * 15, np.round(top.numpy() * 15), atol=1e-5)
    assert np.array_equal(ours[~on_edge], arrays["torchmetrics_bin_index"][~on_edge])
    assert np.abs(ours - arrays["torchmetrics_bin_index"]).max() <= 1


def test_ten_bins_adaptive_and_classwise(case):
    arrays, p, y = case
    assert float(calibration.ece(p, y, bins=10)) == pytest.approx(arrays["ece10_l1"], abs=TOLERANCE)
    assert float(calibration.adaptive_ece(p, y)) == pytest.approx(arrays["adaptive_ece15"], abs=TOLERANCE)
    assert float(calibration.classwise_ece(p, y)) == pytest.approx(arrays["classwise_ece15"], abs=TOLERANCE)
    each = calibration.classwise_ece_each(p, y).numpy()
    np.testing.assert_allclose(each, arrays["classwise_ece15_each"], atol=TOLERANCE)


def test_proper_scores(case):
    arrays, p, y = case
    assert float(calibration.nll(p, y)) == pytest.approx(arrays["nll"], abs=TOLERANCE)
    assert float(calibration.brier(p, y)) == pytest.approx(arrays["brier"], abs=TOLERANCE)


def test_agreement_of_predictions_and_labels(case):
    arrays, p, y = case
    counts = confusion(p, y, p.shape[1])
    scores = agreement(counts, [str(i) for i in range(p.shape[1])])
    f1 = per_class(counts)[2].numpy()
    assert np.array_equal(~np.isnan(f1), arrays["f1_present"])
    np.testing.assert_allclose(np.nan_to_num(f1), arrays["f1_per_class"], atol=TOLERANCE)
    assert np.nan_to_num(f1).mean() == pytest.approx(arrays["macro_f1_all"], abs=TOLERANCE)
    assert scores["f1_macro"] == pytest.approx(float(arrays["macro_f1_present"]), abs=TOLERANCE)
    assert scores["acc"] == pytest.approx(float(arrays["accuracy"]), abs=TOLERANCE)
    assert scores["balanced_acc"] == pytest.approx(float(arrays["balanced_accuracy"]), abs=TOLERANCE)


def test_evaluate_reports_the_same_from_logits(case):
    arrays, p, y = case
    scores = evaluate(p.double().log(), y, classes=[str(i) for i in range(p.shape[1])])
    expected = {
        "acc": "accuracy", "balanced_acc": "balanced_accuracy", "f1_macro": "macro_f1_present", "nll": "nll",
        "brier": "brier",
    }  # fmt: skip
    for name, array in expected.items():
        assert scores[name] == pytest.approx(float(arrays[array]), abs=TOLERANCE), name
    # softmax(log p) renormalises the float32 rows and so carries planted confidences over their edges
    renormalized = p.double().log().softmax(dim=1)
    assert scores["ece"] == float(calibration.ece(renormalized, y))
    assert scores["ece_classwise"] == float(calibration.classwise_ece(renormalized, y))
    assert scores["ece_adaptive"] == float(calibration.adaptive_ece(renormalized, y))

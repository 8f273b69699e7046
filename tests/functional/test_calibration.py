"""Calibration errors against loops in plain Python, and the laws they must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional import calibration

ERRORS = [
    calibration.ece,
    calibration.adaptive_ece,
    calibration.classwise_ece,
    calibration.nll,
    calibration.brier,
]


def sample(seed: int, n: int, classes: int, *space: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(n, classes, *space, generator=draw)).softmax(dim=1)
    return p, torch.randint(0, classes, (n, *space), generator=draw)


def loop_ece(confidences: list[float], hits: list[bool], bins: int) -> float:
    """The definition, entry by entry: sum over bins of |hits - confidences| / N."""
    gaps = [0.0] * bins
    for confidence, hit in zip(confidences, hits, strict=True):
        inside = [i for i in range(bins) if i / bins <= confidence < (i + 1) / bins] or [bins - 1]
        gaps[inside[0]] += hit - confidence
    return sum(abs(gap) for gap in gaps) / len(confidences)


@pytest.mark.parametrize("classes", [2, 5, 40])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_and_classwise_follow_the_definition(classes, bins):
    p, y = sample(classes, 120, classes)
    rows, labels = p.double().numpy(), y.numpy()
    expected = loop_ece(list(rows.max(axis=1)), list(rows.argmax(axis=1) == labels), bins)
    assert float(calibration.ece(p, y, bins=bins)) == pytest.approx(expected, abs=1e-12)
    each = [loop_ece(list(rows[:, c]), list(labels == c), bins) for c in range(classes)]
    np.testing.assert_allclose(calibration.classwise_ece_each(p, y, bins=bins).numpy(), each, atol=1e-12)
    assert float(calibration.classwise_ece(p, y, bins=bins)) == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize("n", [1, 14, 15, 16, 100])
def test_adaptive_groups_are_nearly_equal(n):
    p, y = sample(n, n, 4)
    top, guess = p.double().max(dim=1)
    order = np.argsort(top.numpy(), kind="stable")
    groups = [g for g in np.array_split(order, 15) if len(g)]
    hits = (guess == y).numpy()
    expected = sum(abs(hits[g].sum() - top.numpy()[g].sum()) for g in groups) / n
    assert float(calibration.adaptive_ece(p, y)) == pytest.approx(expected, abs=1e-12)


def test_edges_open_a_bin_and_one_closes_the_last():
    values = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.6, 0.7, 0.9, math.nextafter(0.3, 0), 1.0], dtype=torch.float64)
    assert calibration.bin_index(values, 10).tolist() == [0, 1, 2, 3, 6, 7, 9, 2, 9]
    assert calibration.bin_index(values, 10, split_one=True).tolist() == [0, 1, 2, 3, 6, 7, 9, 2, 10]
    assert calibration.bin_index(torch.tensor([-1e-7, 1 + 1e-7]), 15).tolist() == [0, 14]


@pytest.mark.parametrize("bins", [1, 3, 7, 15, 49])
def test_every_edge_belongs_to_the_bin_above_it(bins):
    edges = torch.arange(bins, dtype=torch.float64) / bins
    assert calibration.bin_index(edges, bins).tolist() == list(range(bins))


def test_scores_of_known_predictions():
    p, y = torch.tensor([[0.8, 0.2], [0.0, 1.0]], dtype=torch.float64), torch.tensor([0, 0])
    assert float(calibration.nll(p, y)) == pytest.approx((-math.log(0.8) - math.log(1e-12)) / 2)
    assert float(calibration.brier(p, y)) == pytest.approx((0.04 + 0.04 + 2) / 2)
    assert float(calibration.ece(p, y)) == pytest.approx((0.2 + 1) / 2)
    assert float(calibration.ece(p, y, norm="max")) == pytest.approx(1.0)
    assert float(calibration.ece(p, y, norm="l2")) == pytest.approx(math.sqrt((0.2**2 + 1) / 2))


@pytest.mark.parametrize("error", ERRORS)
def test_space_is_more_entries(error):
    p, y = sample(0, 3, 4, 5, 6)
    flat = error(p.movedim(1, -1).reshape(-1, 4), y.reshape(-1))
    assert float(error(p, y)) == pytest.approx(float(flat), abs=1e-14)


@pytest.mark.parametrize("error", ERRORS)
def test_ignored_entries_weigh_nothing_however_wild(error):
    p, y = sample(1, 4, 3, 8)
    valid = (torch.rand(4, 8, generator=torch.Generator().manual_seed(2)) > 0.4).float()
    expected = float(error(p.movedim(1, -1)[valid > 0], y[valid > 0]))
    wild_p = torch.where(valid.unsqueeze(1) > 0, p, torch.nan)
    wild_y = torch.where(valid > 0, y, 255)
    assert float(error(wild_p, wild_y, valid)) == pytest.approx(expected, abs=1e-14)
    negative = torch.where(valid > 0, y, -1)
    assert float(error(wild_p, negative)) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("error", ERRORS)
def test_nothing_to_count_is_nan_and_one_entry_is_finite(error):
    p, y = sample(3, 6, 5)
    assert math.isnan(float(error(p, y, torch.zeros(6))))
    assert math.isnan(float(error(p[:0], y[:0])))
    assert math.isfinite(float(error(p[:1], y[:1])))


@pytest.mark.parametrize("error", ERRORS)
def test_samples_may_be_permuted_and_classes_renamed(error):
    p, y = sample(4, 90, 6)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(5))
    names = torch.randperm(6, generator=torch.Generator().manual_seed(6))
    value = float(error(p, y))
    assert float(error(p[order], y[order])) == pytest.approx(value, abs=1e-12)
    assert float(error(p[:, names.argsort()], names[y])) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("classes", [1, 2, 1000])
def test_any_number_of_classes_and_absent_ones(error, classes):
    p, _ = sample(7, 30, classes)
    value = float(error(p, torch.zeros(30, dtype=torch.int64)))
    assert 0 <= value < 30


@pytest.mark.parametrize("error", ERRORS)
def test_half_precision_is_close_and_nan_shows(error):
    p, y = sample(8, 400, 4)
    coarse = p.bfloat16()
    assert float(error(coarse, y)) == float(error(coarse.float(), y))
    assert math.isnan(float(error(torch.full_like(p, torch.nan), y)))


def test_blocks_do_not_change_the_sums(monkeypatch):
    p, y = sample(9, 100, 8)
    whole = calibration.class_bin_sums(p, y), calibration.brier(p, y)
    monkeypatch.setattr(calibration, "_BLOCK", 56)
    parts = calibration.class_bin_sums(p, y), calibration.brier(p, y)
    torch.testing.assert_close(parts[0].confidence, whole[0].confidence, rtol=0, atol=1e-12)
    assert torch.equal(parts[0].count, whole[0].count)
    assert torch.equal(parts[0].correct, whole[0].correct)
    assert torch.equal(parts[1], whole[1])


def test_reliability_table_adds_up_to_the_error():
    p, y = sample(10, 500, 3)
    table = calibration.reliability(p, y, bins=12)
    assert torch.isnan(table.accuracy).tolist() == (table.count == 0).tolist()
    assert int(table.count.sum()) == 500
    assert float(table.lower[0]) == 0
    assert float(table.upper[-1]) == 1
    filled = table.count > 0
    assert ((table.confidence >= table.lower) & (table.confidence <= table.upper))[filled].all()
    gaps = ((table.accuracy - table.confidence).abs() * table.count / 500).nansum()
    assert float(gaps) == pytest.approx(float(calibration.ece(p, y, bins=12)), abs=1e-12)


def test_says_what_was_expected():
    p, y = sample(11, 6, 3)
    with pytest.raises(UsageError, match=r"labels of shape \(5,\) do not fit probabilities of shape \(6, 3\)"):
        calibration.ece(p, y[:5])
    with pytest.raises(UsageError, match=r"valid of shape \(6, 1\) do not fit"):
        calibration.nll(p, y, torch.ones(6, 1))
    with pytest.raises(UsageError, match="label 3 found where there are 3 classes, 0 to 2"):
        calibration.brier(p, y.clamp_min(3))
    with pytest.raises(UsageError, match="pass logits through softmax over axis 1"):
        calibration.ece(p * 9 - 4, y)
    with pytest.raises(UsageError, match="norm='l3': expected 'l1', 'l2' or 'max'"):
        calibration.ece(p, y, norm="l3")
    for error in (calibration.ece, calibration.adaptive_ece, calibration.classwise_ece):
        with pytest.raises(UsageError, match="bins=0: expected at least 1"):
            error(p, y, bins=0)

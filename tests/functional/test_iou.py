"""Intersections and unions are those of the sets of pixels; absent classes count as asked."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.confusion import confusion, confusion_each
from sfumato.functional.iou import intersection_union, iou, mean_iou, mean_ratio


def sample(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Class 3 is only predicted, class 4 neither predicted nor labeled."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (4, 6, 7), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.1] = 255
    return torch.randint(0, 4, (4, 6, 7), generator=draw), labels


def test_are_those_of_the_sets_of_pixels():
    prediction, labels = sample()
    intersection, union = intersection_union(confusion(prediction, labels, 5))
    known = labels != 255
    for c in range(5):
        is_it, said_it = (labels == c) & known, (prediction == c) & known
        assert int(intersection[c]) == int((is_it & said_it).sum())
        assert int(union[c]) == int((is_it | said_it).sum())


def test_agrees_with_torchmetrics():
    from torchmetrics.functional.classification import multiclass_jaccard_index

    prediction, labels = sample(1)
    theirs = multiclass_jaccard_index(prediction, labels, 5, ignore_index=255, average="none")
    torch.testing.assert_close(iou(confusion(prediction, labels, 5), "zero").float(), theirs)


def test_absent_classes():
    counts = confusion(*sample(), 5)
    each, zero = iou(counts), iou(counts, "zero")
    assert each[3] == 0  # predicted and never labeled: a mistake, not an absence
    assert math.isnan(each[4])
    assert zero[4] == 0
    torch.testing.assert_close(zero[:4], each[:4], rtol=1e-9, atol=0)
    assert float(mean_iou(counts)) == pytest.approx(float(each[:4].mean()))
    assert float(mean_iou(counts, "zero")) == pytest.approx(float(each[:4].sum() / 5))


def test_any_leading_axes():
    each = confusion_each(*sample(), 5)
    torch.testing.assert_close(iou(each), torch.stack([iou(one) for one in each]), equal_nan=True)
    torch.testing.assert_close(mean_iou(each), torch.stack([mean_iou(one) for one in each]))
    torch.testing.assert_close(mean_iou(each), mean_ratio(*intersection_union(each)))


@pytest.mark.parametrize("absent", ["nan", "zero"])
def test_nothing_counted_is_nan(absent):
    assert math.isnan(float(mean_iou(torch.zeros(3, 3, dtype=torch.int64), absent)))


def test_absent_has_two_readings():
    with pytest.raises(UsageError, match=r"iou\(absent='skip'\): expected one of nan, zero"):
        iou(torch.eye(2), "skip")

"""The golden family "miou": the accumulation of the published evaluation code. Exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.evaluate_dense import DenseScores
from sfumato.functional.confusion import confusion, confusion_each
from sfumato.functional.iou import intersection_union, iou, mean_iou


@pytest.fixture
def case(golden):
    arrays = golden("miou_00")
    return arrays, torch.from_numpy(arrays["prediction"]).long(), torch.from_numpy(arrays["target"])


def test_every_array_of_the_family_is_known(case):
    assert set(case[0]) == {
        "prediction", "target", "ignore_index", "num_classes", "intersection", "union", "iou", "miou_all_classes",
        "miou_present", "confusion", "pixel_accuracy",
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_counts(case, dtype):
    arrays, prediction, target = case
    assert (int(arrays["ignore_index"]), int(arrays["num_classes"])) == (255, 8)
    counts = confusion(prediction, target.to(dtype), 8)
    assert np.array_equal(counts.numpy(), arrays["confusion"])
    assert np.array_equal(confusion_each(prediction, target.to(dtype), 8).sum(dim=0).numpy(), arrays["confusion"])
    for ours, theirs in zip(intersection_union(counts), ("intersection", "union"), strict=True):
        assert np.array_equal(ours.numpy(), arrays[theirs])


def test_ratios(case):
    arrays, prediction, target = case
    counts = confusion(prediction, target, 8)
    assert np.array_equal(iou(counts, "zero").numpy(), arrays["iou"])
    assert float(mean_iou(counts, "zero")) == float(arrays["miou_all_classes"])
    assert float(mean_iou(counts)) == pytest.approx(float(arrays["miou_present"]), abs=1e-12)


def test_scores_image_by_image(case):
    arrays, prediction, target = case
    names = [str(c) for c in range(8)]
    scores = DenseScores(names)
    for guess, labels in zip(prediction, target, strict=True):
        scores.observe(torch.nn.functional.one_hot(guess, 8).movedim(-1, 0)[None].float(), labels[None])
    found = scores.result(absent="zero")
    assert found["miou"] == float(arrays["miou_all_classes"])
    assert found["acc"] == float(arrays["pixel_accuracy"])
    assert [found[f"iou/{name}"] for name in names] == arrays["iou"].tolist()
    assert scores.result()["miou"] == pytest.approx(float(arrays["miou_present"]), abs=1e-12)

"""Collapse is named when it is there, and not when a network is merely weak, unsure or trained on a long tail."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.collapse import REMEDY, diagnose, greedy_limit, starved
from sfumato.errors import UsageError

DIGITS = [str(i) for i in range(10)]
EVEN = torch.ones(10)


def held_out(n: int, *, sure: float, right: float, classes: int = 10, level: float = 0.97):
    """n predictions: a share `sure` has confidence `level`, the rest 0.5; a share `right` of either is right."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    guess = torch.where(torch.rand(n, generator=draw) < right, labels, (labels + 1) % classes)
    top = torch.where(torch.rand(n, generator=draw) < sure, level, 0.5).unsqueeze(1)
    rest = (1 - top) / (classes - 1)
    hot = torch.nn.functional.one_hot(guess, classes)
    return (hot * top + (1 - hot) * rest).log(), labels


def test_a_sound_network_is_left_alone():
    assert diagnose(*held_out(1000, sure=0.8, right=0.93), EVEN, DIGITS) is None


def test_confident_and_wrong_with_its_reason():
    histogram = torch.tensor([5.0, 0.2, 5, 45, 5, 5, 5, 1, 5, 5])
    logits, labels = held_out(1000, sure=0.6, right=0.4)
    found = diagnose(logits, labels, histogram, DIGITS)
    assert found is not None
    assert (found.crowded, found.starving) == (("3",), ("1", "7"))
    assert found.sure_share == pytest.approx(0.6, abs=0.05)
    assert found.sure_accuracy == pytest.approx(0.4, abs=0.05)
    assert found.sure_confidence == pytest.approx(0.97)
    assert found.reason == (
        f"The network is confident and wrong: {100 * found.sure_share:.0f} % of 1,000 held-out predictions claim a "
        f"probability of 90 % or more (97 % on average), but only {100 * found.sure_accuracy:.0f} % of these agree "
        "with the held-out labels. "
        "The pseudo-labels crowd into '3' (55 % of them, 10 % of the held-out labels). "
        "They starve '1' (under 1 % of them, 10 % of the held-out labels), "
        "'7' (1 % of them, 10 % of the held-out labels). " + REMEDY
    )
    for advice in ("more labels", "smaller lambda_u", "one_sided_bell", "higher threshold", "self-adaptive"):
        assert advice in found.reason


def test_without_held_out_labels_the_training_labels_stand_in():
    none, labels = torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64)
    greedy, trained = torch.tensor([91.0, 1, 1, 1, 1, 1, 1, 1, 1, 1]), torch.full((10,), 4)
    found = diagnose(none, labels, greedy, DIGITS, trained=trained)
    assert found is not None
    assert found.reason.startswith("The pseudo-labels crowd into '0' (91 % of them, 10 % of the training labels).")
    assert diagnose(none, labels, EVEN, DIGITS, trained=trained) is None
    assert diagnose(none, labels, greedy, DIGITS) is None


def test_without_a_histogram_the_predictions_name_the_classes():
    logits, labels = held_out(1000, sure=1.0, right=0.1)
    logits[:, 4] += 20
    for histogram in (None, torch.zeros(10)):
        found = diagnose(logits, labels, histogram, DIGITS)
        assert found is not None
        assert found.crowded == ("4",)
        assert (
            "The predictions crowd into '4' (100 % of them, 10 % of the held-out labels). They starve" in found.reason
        )
        assert "and 6 more" in found.reason


@pytest.mark.parametrize(
    "options",
    [
        {"sure": 0.28, "right": 0.3},  # wrong but unsure: it can still learn
        {"sure": 0.9, "right": 0.75},  # overconfident as usual
        {"sure": 0.9, "right": 0.3, "level": 0.85},  # nothing passes as sure
    ],
)
def test_weak_or_unsure_networks_have_not_collapsed(options):
    assert diagnose(*held_out(1000, **options), EVEN, DIGITS) is None


def test_a_handful_of_sure_predictions_proves_nothing():
    assert diagnose(*held_out(9, sure=1.0, right=0.0), EVEN, DIGITS) is None
    assert diagnose(*held_out(10, sure=1.0, right=0.0), EVEN, DIGITS) is not None


def test_greedy_class_alone_is_a_collapse():
    sound = held_out(1000, sure=0.2, right=0.6)
    histogram = torch.full((10,), 4.5)
    histogram[8] = 59.5
    found = diagnose(*sound, histogram, DIGITS)
    assert found is not None
    assert found.reason.startswith("The pseudo-labels crowd into '8' (60 % of them, 10 % of the held-out labels).")
    assert "confident and wrong" not in found.reason
    assert diagnose(*sound, histogram, DIGITS, coverage=0.009) is None
    histogram[8] = 40
    assert diagnose(*sound, histogram, DIGITS) is None


def test_scale_of_the_histogram_does_not_matter():
    sound, histogram = held_out(1000, sure=0.2, right=0.6), torch.tensor([82, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    reasons = {
        diagnose(*sound, counts, DIGITS).reason for counts in (histogram, histogram * 1000, histogram / histogram.sum())
    }
    assert len(reasons) == 1


def test_large_classes_may_have_many_pseudo_labels():
    limit = greedy_limit(torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)).tolist()
    assert limit == pytest.approx([0.97, 0.6, 0.5, 0.5])
    none, trained = (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)), torch.tensor([50, 50])
    assert diagnose(*none, torch.tensor([90.0, 10.0]), ["no", "yes"], trained=trained) is None
    assert diagnose(*none, torch.tensor([96.0, 4.0]), ["no", "yes"], trained=trained) is not None


def test_a_map_of_two_classes_may_be_surest_of_its_ground():
    """Of 85 % ground, all that passes a high threshold: greedy only if the network predicts hardly anything else."""
    draw = torch.Generator().manual_seed(0)
    labels = (torch.rand(4, 50, 50, generator=draw) < 0.15).long()
    histogram = torch.tensor([99.5, 0.5])
    sound = 4 * torch.nn.functional.one_hot(labels, 2).movedim(-1, 1).float()
    unsure = torch.where(labels[:, None] == 0, sound, sound / 10)  # right, but never sure of the smaller class
    assert diagnose(unsure, labels, histogram, ["ground", "house"]) is None
    assert diagnose(sound, labels, histogram, ["ground", "house"]) is None
    found = diagnose(
        torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(4, 2, 50, 50), labels, histogram, ["ground", "house"]
    )
    assert found is not None
    assert "starve 'house' (under 1 % of them, 15 % of the held-out labels)" in found.reason


def test_unlabelled_and_missing_entries():
    logits, labels = held_out(1000, sure=0.6, right=0.4)
    assert diagnose(logits, torch.full_like(labels, -1), EVEN, DIGITS) is None
    assert diagnose(logits[:0], labels[:0], EVEN, DIGITS) is None
    padded = torch.cat([logits, 100 * torch.eye(10)]), torch.cat([labels, torch.full((10,), -1)])
    assert diagnose(*padded, EVEN, DIGITS) == diagnose(logits, labels, EVEN, DIGITS)
    assert diagnose(torch.full_like(logits, torch.nan), labels, EVEN, DIGITS) is None


def test_no_sure_prediction_leaves_their_accuracy_undefined():
    histogram = torch.zeros(10)
    histogram[2] = 1
    found = diagnose(*held_out(100, sure=0.0, right=0.5), histogram, DIGITS)
    assert found is not None
    assert math.isnan(found.sure_accuracy)


def test_pixels_and_half_precision():
    logits, labels = held_out(1000, sure=0.6, right=0.4)
    pixels = logits.reshape(10, 10, 10, 10).movedim(-1, 1)
    assert diagnose(pixels, labels.reshape(10, 10, 10), EVEN, DIGITS) == diagnose(logits, labels, EVEN, DIGITS)
    assert diagnose(logits.bfloat16(), labels, EVEN.bfloat16(), DIGITS) is not None


def test_says_what_does_not_fit():
    logits, labels = held_out(100, sure=0.5, right=0.5)
    with pytest.raises(UsageError, match=r"logits of shape \(100, 10\) and a histogram of 9 do not fit 10 classes"):
        diagnose(logits, labels, torch.ones(9), DIGITS)
    with pytest.raises(UsageError, match=r"logits of shape \(100, 10\) do not fit 3 classes"):
        diagnose(logits, labels, None, DIGITS[:3])


@pytest.mark.parametrize(
    "coverage, fraction, warns",
    [(0.0, 0.25, True), (0.0099, 1.0, True), (0.01, 0.5, False), (0.0, 0.24, False), (math.nan, 0.5, False)],
)
def test_starved_after_a_quarter_of_training(coverage, fraction, warns):
    text = starved(coverage, fraction)
    assert (text is not None) == warns
    if text is not None:
        assert text == starved(0.0, 0.3)  # the same every time, so that it can be shown once
        assert text.startswith("Fewer than 1 % of the unlabelled data have a pseudo-label after 25 % of training")
        assert "threshold is too high" in text
        assert "training is too short" in text

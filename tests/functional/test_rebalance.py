import statistics

import pytest
import torch

from sfumato.functional.rebalance import literal_class_weights, safe_class_weights


def counts_of(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def safe_by_a_loop(counts):
    present = [c for c in counts if c > 0]
    middle = statistics.median(present)
    weights = [min(10.0, max(0.1, middle / c)) if c > 0 else 1.0 for c in counts]
    mean = sum(w * c for w, c in zip(weights, counts, strict=True)) / sum(counts)
    return [w / mean for w in weights]


@pytest.mark.parametrize("classes", [2, 7, 12])
@pytest.mark.parametrize("absent", [0, 1, 5])
def test_against_a_loop(classes, absent):
    draw = torch.Generator().manual_seed(classes * 10 + absent)
    counts = torch.randint(1, 5000, (classes,), generator=draw).double()
    counts[: min(absent, classes - 1)] = 0
    counts = counts[torch.randperm(classes, generator=draw)]
    assert safe_class_weights(counts).tolist() == pytest.approx(safe_by_a_loop(counts.tolist()), rel=1e-12)
    lower = sorted(counts.tolist())[(classes - 1) // 2]
    assert literal_class_weights(counts).tolist() == pytest.approx([lower / (c + 1e-6) for c in counts.tolist()])


def test_the_literal_weight_is_zero_when_half_of_the_classes_are_absent():
    assert literal_class_weights(counts_of(0, 0, 0, 50, 8000, 2)).tolist() == [0.0] * 6
    assert literal_class_weights(counts_of(0, 0, 3, 50, 8000, 2))[0] == pytest.approx(2e6)
    safe = safe_class_weights(counts_of(0, 0, 0, 50, 8000, 2))
    assert (safe > 0).all()


def test_the_mean_weight_of_what_was_counted_is_one():
    counts = counts_of(200_000, 900, 8000, 0, 7)
    safe = safe_class_weights(counts)
    assert float((safe * counts).sum() / counts.sum()) == pytest.approx(1)
    assert float(safe.max() / safe.min()) == pytest.approx(100)  # from 0.1 to 10
    torch.testing.assert_close(safe_class_weights(counts / counts.sum()), safe)  # shares do as well
    assert safe_class_weights(counts_of(5, 5, 5)).tolist() == [1.0, 1.0, 1.0]


def test_nothing_counted_weighs_all_alike():
    assert safe_class_weights(torch.zeros(4)).tolist() == [1.0] * 4
    assert literal_class_weights(torch.zeros(4)).tolist() == [0.0] * 4

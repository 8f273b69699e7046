import statistics

import pytest
import torch

from sfumato.functional.rebalance import (
    effective_number_weights,
    expected_weight,
    literal_class_weights,
    safe_class_weights,
)
from sfumato.types import Sparse


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


def effective_by_a_loop(counts):
    counts = [max(1.0, c) for c in counts]
    size = sum(counts) / len(counts)
    beta = (size - 1) / size
    raw = [(1 - beta) / (1 - beta**c) for c in counts]
    return [len(raw) * w / sum(raw) for w in raw]


@pytest.mark.parametrize("counts", [(1500, 899, 539, 323, 193, 116, 69, 41, 25, 15), (3, 1), (40, 0, 7)])
def test_effective_numbers_against_a_loop(counts):
    assert effective_number_weights(counts_of(*counts)).tolist() == pytest.approx(effective_by_a_loop(counts), rel=1e-6)


def test_effective_numbers_of_a_long_tail():
    weights = effective_number_weights(counts_of(1500, 899, 539, 323, 193, 116, 69, 41, 25, 15))
    assert float(weights[0]) == pytest.approx(0.15, abs=0.005)
    assert float(weights[-1]) == pytest.approx(3.74, abs=0.01)
    assert float(weights.mean()) == pytest.approx(1)


def test_effective_numbers_need_no_more_than_float32_for_pixels():
    counts = counts_of(3e8, 5e7, 4e4, 0)
    torch.testing.assert_close(effective_number_weights(counts.float()).double(), effective_number_weights(counts))
    assert effective_number_weights(counts_of(1, 1, 1)).tolist() == pytest.approx([1, 1, 1])
    assert effective_number_weights(torch.zeros(3)).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("space", [(), (2, 3)])
def test_the_weight_of_a_target_in_every_form(space):
    draw = torch.Generator().manual_seed(0)
    weights = torch.tensor([0.1, 1.0, 3.0])
    labels = torch.randint(3, (4, *space), generator=draw)
    hot = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    few = Sparse(labels.unsqueeze(1), torch.ones(4, 1, *space))
    for target in (labels, hot, few):
        torch.testing.assert_close(expected_weight(weights, target), weights[labels])


def test_a_soft_target_has_the_mean_weight_and_not_that_of_its_first_class():
    weights, p = torch.tensor([0.1, 1.0, 3.0]), torch.tensor([[0.5, 0.1, 0.4]])
    assert expected_weight(weights, p).item() == pytest.approx(0.05 + 0.1 + 1.2)
    few = Sparse(torch.tensor([[0, 2]]), torch.tensor([[0.6, 0.4]]))
    assert expected_weight(weights, few).item() == pytest.approx(0.06 + 1.2)

"""Confident learning against a loop over samples, and the worked example of its paper's figure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato.functional.confident_learning import confident_class, confident_joint, self_confidence


def by_loop(p: Tensor, y: Tensor) -> Tensor:
    """The confident joint as its definition reads."""
    classes = p.shape[1]
    thresholds = [p[y == c, c].mean().item() if (y == c).any() else float("inf") for c in range(classes)]
    joint = torch.zeros(classes, classes, dtype=torch.int64)
    for probabilities, label in zip(p, y.tolist(), strict=True):
        reached = [c for c in range(classes) if probabilities[c] >= thresholds[c]]
        if reached:
            joint[label, max(reached, key=lambda c: probabilities[c].item())] += 1
    return joint


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_against_a_loop(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    p = torch.softmax(3 * torch.randn(200, classes, generator=generator, dtype=torch.float64), dim=1)
    y = torch.randint(0, classes, (200,), generator=generator)
    y[y == 1] = 0  # a class without labels
    assert torch.equal(confident_joint(p, y), by_loop(p, y))
    assert self_confidence(p, y)[1] == torch.inf
    assert (confident_class(p, y) != 1).all()


def test_by_hand() -> None:
    p = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.45, 0.55]])
    y = torch.tensor([0, 0, 0, 1, 1])
    assert self_confidence(p, y).tolist() == pytest.approx([0.6, 0.575])
    assert confident_class(p, y).tolist() == [0, 0, 1, 1, -1]  # the last reaches neither 0.6 nor 0.575
    assert confident_joint(p, y).tolist() == [[2, 1], [0, 1]]


def test_classes_relabeled_and_samples_permuted() -> None:
    generator = torch.Generator().manual_seed(0)
    p, y = torch.rand(50, 4, generator=generator), torch.randint(0, 4, (50,), generator=generator)
    p /= p.sum(dim=1, keepdim=True)
    names, order = torch.tensor([2, 0, 3, 1]), torch.randperm(50, generator=generator)
    found = confident_class(p[:, names][order], names.argsort()[y][order])
    expected = confident_class(p, y)[order]
    assert torch.equal(torch.where(found >= 0, names[found], -1), expected)


def test_half_precision_counts_in_full() -> None:
    p, y = torch.full((3000, 2), 0.5, dtype=torch.bfloat16), torch.zeros(3000, dtype=torch.int64)
    assert self_confidence(p, y).tolist() == [0.5, torch.inf]

"""Resemblance and blend, where there is nothing to go by too."""

import pytest
import torch

from sfumato.functional.semantic import blend, heed, resemblance


def test_cosines_over_the_temperature():
    features, prototypes = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    want = torch.tensor([[0.0, 1.0], [0.5**0.5, 0.5**0.5]]) / 0.1
    torch.testing.assert_close(resemblance(features, prototypes, 0.1), want)


def test_a_class_not_met_yet_is_neutral():
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = resemblance(features, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert torch.equal(logits[:, 1], torch.zeros(4))
    logits.sum().backward()
    assert features.grad.isfinite().all()
    assert resemblance(torch.zeros(2, 3), torch.zeros(2, 3)).isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 1.5, 4.0])
def test_frequent_classes_are_decided_by_resemblance(temperature):
    share = heed(torch.tensor([100.0, 10.0, 1.0, 0.0]), temperature)
    torch.testing.assert_close(share, torch.tensor([1.0, 0.1, 0.01, 0.0]) ** (1 / temperature))


def test_without_counts_nothing_is_heeded():
    """The reference divides 0 by 0."""
    share = heed(torch.zeros(3))
    assert torch.equal(share, torch.zeros(3))
    p = torch.softmax(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    assert torch.equal(blend(p, torch.full_like(p, 1 / 3), share), p)


def test_each_sample_is_blended_by_the_share_of_its_own_class():
    p = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    similar = torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    want = torch.tensor([[0.1, 0.9], [0.2, 0.8]])
    torch.testing.assert_close(blend(p, similar, torch.tensor([1.0, 0.0])), want)

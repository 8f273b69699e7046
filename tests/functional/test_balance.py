"""Chances by how rare a class is."""

import torch

from sfumato.functional.balance import keep_chance, shortfall

COUNTS = torch.tensor([100.0, 20.0, 5.0])


def test_kept_samples_are_equally_many_of_each_class():
    torch.testing.assert_close(keep_chance(COUNTS) * COUNTS, torch.full((3,), 5.0))


def test_the_largest_class_is_never_changed():
    torch.testing.assert_close(shortfall(COUNTS), torch.tensor([0.0, 0.8, 0.95]))


def test_a_class_without_labels_is_as_the_rarest():
    counts = torch.tensor([100.0, 0.0, 5.0])
    torch.testing.assert_close(keep_chance(counts), torch.tensor([0.05, 1.0, 1.0]))
    torch.testing.assert_close(shortfall(counts), torch.tensor([0.0, 0.95, 0.95]))


def test_without_labels_all_classes_are_alike():
    assert torch.equal(keep_chance(torch.zeros(4)), torch.ones(4))
    assert torch.equal(shortfall(torch.zeros(4)), torch.zeros(4))

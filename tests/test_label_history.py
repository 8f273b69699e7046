"""What the network thought of its labels over training."""

from __future__ import annotations

import torch

from sfumato.functional.margins import margin_of
from sfumato.label_history import LabelHistory, doubted_pairs, suspects

LABELS = torch.tensor([0, 1, 2, 0])
LOGITS = [torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


def history(*logits: torch.Tensor) -> LabelHistory:
    made = LabelHistory(LABELS, 3)
    for one in logits:
        made.observe(one)
    return made


def test_means_over_the_evaluations() -> None:
    made = history(*LOGITS)
    torch.testing.assert_close(made.p, torch.stack([torch.softmax(z, 1) for z in LOGITS]).mean(0))
    torch.testing.assert_close(made.margin, torch.stack([margin_of(z, LABELS) for z in LOGITS]).mean(0))
    assert int(made.seen) == 3


def test_it_goes_on_where_it_was_saved() -> None:
    resumed = LabelHistory(torch.zeros(4, dtype=torch.int64), 3)
    resumed.load_state_dict(history(*LOGITS[:2]).state_dict())
    resumed.observe(LOGITS[2])
    for name, value in history(*LOGITS).state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_suspects_are_those_confident_learning_doubts_the_lowest_margin_first() -> None:
    logits = torch.tensor([[4.0, 0, 0], [3, 0, 0], [0, 0, 4], [0, 0, 9]])  # the second and the last are doubted
    found = suspects(history(logits, logits))
    assert found.places.tolist() == [3, 1]
    assert found.suggested.tolist() == [2, 0]
    assert found.margin.tolist() == [-9, -3]
    assert found.confidence[0] > 0.99
    assert len(suspects(history(torch.eye(3)[LABELS]))) == 0


def test_pairs_are_the_suspects_counted_by_label_and_class_the_most_first() -> None:
    made = LabelHistory(torch.tensor([0, 0, 1, 1, 1, 1, 2]), 3)
    made.observe(torch.eye(3)[[0, 2, 1, 0, 0, 1, 2]] * 4)
    assert doubted_pairs(made) == [(1, 0, 2), (0, 2, 1)]
    assert sum(count for _, _, count in doubted_pairs(made)) == len(suspects(made))
    assert doubted_pairs(history(torch.eye(3)[LABELS])) == []

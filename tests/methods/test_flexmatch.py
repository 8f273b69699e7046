from __future__ import annotations

import torch

from sfumato.methods import Facts, build
from tests.given import step


def logits(*rows):
    return torch.tensor(rows).log()


def test_counts_come_after_use():
    """The batch that makes a class well learnt is itself still judged by what was learnt before."""
    method = build("flexmatch", Facts(2, 4), {"threshold": 0.9})
    sure, doubtful = logits([0.99, 0.01]), logits([0.6, 0.4])
    first = step(method, torch.cat([sure, sure, sure, doubtful]), torch.zeros(4, 2))
    assert first.pseudo.weight.tolist() == [1, 1, 1, 1]  # nothing counted yet: every sample passes
    assert method.weigh.memory.counts.tolist() == [3, 0, 1]
    second = step(method, torch.cat([doubtful, sure]), torch.zeros(2, 2), index=torch.tensor([3, 0]))
    assert second.pseudo.weight.tolist() == [0, 1]


def test_a_class_never_learnt_has_threshold_zero():
    method = build("flexmatch", Facts(2, 2), {"threshold": 0.9})
    step(method, logits([0.99, 0.01], [0.99, 0.01]), torch.zeros(2, 2))
    result = step(method, logits([0.55, 0.45], [0.45, 0.55]), torch.zeros(2, 2))
    assert result.pseudo.weight.tolist() == [0, 1]


def test_samples_not_yet_confident_compete_unless_told_otherwise():
    """One of ten samples is learnt: its class then stands at 1 / 9, or at 1 without the warm-up."""
    for count_unused, expected in ((True, 1 / 9), (False, 1.0)):
        method = build("flexmatch", Facts(2, 10), {"threshold": 0.9, "count_unused": count_unused})
        step(method, logits([0.99, 0.01]), torch.zeros(1, 2))
        step(method, logits([0.6, 0.4]), torch.zeros(1, 2))
        torch.testing.assert_close(method.weigh.status, torch.tensor([expected, 0.0]))


def test_the_count_is_of_the_fixed_threshold_and_not_of_the_class_threshold():
    method = build("flexmatch", Facts(2, 4), {"threshold": 0.9})
    step(method, logits([0.6, 0.4]), torch.zeros(1, 2))
    assert method.weigh.memory.counts.tolist() == [0, 0, 4]


def test_a_sample_that_changes_its_mind_changes_its_vote():
    method = build("flexmatch", Facts(2, 3), {"threshold": 0.9})
    step(method, logits([0.99, 0.01]), torch.zeros(1, 2), index=torch.tensor([2]))
    step(method, logits([0.01, 0.99]), torch.zeros(1, 2), index=torch.tensor([2]))
    assert method.weigh.memory.counts.tolist() == [0, 1, 2]


def test_ignored_samples_are_not_counted():
    method = build("flexmatch", Facts(2, 4), {"threshold": 0.9})
    step(method, logits([0.99, 0.01], [0.99, 0.01]), torch.zeros(2, 2), valid=torch.tensor([1.0, 0.0]))
    assert method.weigh.memory.counts.tolist() == [1, 0, 3]

"""DASO against the authors' queue and blend."""

import numpy as np
import pytest
import torch

from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import class_counts, one_hot, probability
from sfumato.functional.semantic import blend, heed, resemblance
from sfumato.running.block_counts import BlockCounts
from sfumato.running.class_memory import ClassMemory

CASES = ("daso_00", "daso_01")


@pytest.fixture(params=CASES)
def case(shared, request) -> dict:
    with np.load(shared / "golden" / f"{request.param}.npz") as stored:
        return {key: torch.from_numpy(np.asarray(stored[key])) for key in stored.files}


def last(members: torch.Tensor, size: int) -> torch.Tensor:
    """Only the last `size` members of each class: a queue in the order of rows keeps no others."""
    behind = members.flip(0).cumsum(dim=0).flip(0)
    return members & (behind <= size)


def test_prototypes_similarities_and_their_loss(case):
    classes, size = case["prob"].shape[2], int(case["queue_length"])
    memory = ClassMemory(classes, size=size, dim=case["feat_lb"].shape[2], raw=True)
    for step, (features, y) in enumerate(zip(case["feat_lb"], case["y_lb"], strict=True)):
        members = last(one_hot(y, classes).bool(), size)
        memory.observe(features, members, torch.arange(len(y)) / len(y))
        torch.testing.assert_close(memory.means, case["prototypes"][step], rtol=0, atol=1e-5)
        weak, strong = (
            resemblance(case[key][step], memory.means, float(case["T_proto"])) for key in ("feat_weak", "feat_strong")
        )
        similar = probability(weak)
        torch.testing.assert_close(similar, case["prob_sim"][step], rtol=0, atol=1e-5)
        loss = cross_entropy(strong, similar).mean()
        torch.testing.assert_close(loss.double(), case["assign_loss"][step], rtol=0, atol=1e-5)


def test_blend(case):
    classes = case["prob"].shape[2]
    counts = BlockCounts(classes, length=int(case["dist_update_every"]))
    for step, (p, similar) in enumerate(zip(case["prob"], case["prob_sim"], strict=True)):
        counts.begin(step)
        share = heed(counts.value, float(case["T_dist"]))
        if not case["with_dist_aware"]:
            share = torch.full((classes,), float(case["interp_alpha"]))
        blended = p if step < int(case["num_pretrain_iter"]) else blend(p, similar, share)
        torch.testing.assert_close(blended, case["blended"][step], rtol=0, atol=1e-5)
        hard = blended.argmax(dim=1)
        assert torch.equal(hard, case["hard"][step])
        counts.observe(class_counts(hard, classes, torch.ones(len(hard))))
        in_use = case["pl_dist"][step]
        whole = (step + 1) % counts.length == 0  # the reference moves on at the end of a step, not before the next
        torch.testing.assert_close(counts.pending if whole else counts.complete, in_use, rtol=0, atol=1e-5)

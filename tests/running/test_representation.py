"""The head of a contrast and its average."""

from __future__ import annotations

import copy
import io

import torch

from sfumato.running.representation import Representation
from sfumato.teacher import Ema


def made(dim=6):
    torch.manual_seed(0)
    return Representation(4, dim)


def test_each_row_is_by_itself():
    head = made()
    x = torch.randn(5, 4)
    whole = head(x)
    assert whole.shape == (5, 6)
    for row, want in zip(x, whole, strict=True):
        torch.testing.assert_close(head(row[None])[0], want)
    torch.testing.assert_close(head.average(x), whole)  # until the first step
    assert whole.requires_grad
    assert not head.average(x).requires_grad


def test_the_average_moves_as_the_teacher_does():
    """The loop updates the teacher after a step, the head's average moves before the next one: the same weights."""
    head = made()
    student = copy.deepcopy(head.head)
    teacher = Ema(student, momentum=0.7, ramp=True)
    draw = torch.Generator().manual_seed(1)
    for step in range(6):
        for _ in range(2):  # two micro-batches
            head.follow(step, teacher.momentum_at(max(0, step - 1)))
        for got, want in zip(head.averaged.parameters(), teacher.module.parameters(), strict=True):
            torch.testing.assert_close(got, want)
        with torch.no_grad():
            for mine, theirs in zip(head.head.parameters(), student.parameters(), strict=True):
                mine += torch.randn(mine.shape, generator=draw)
                theirs.copy_(mine)
        teacher.update(student, step)
    assert not torch.equal(head.averaged[0].weight, head.head[0].weight)


def test_the_average_is_saved_and_not_trained():
    head = made()
    assert {name.split(".")[0] for name, one in head.named_parameters() if one.requires_grad} == {"head"}
    with torch.no_grad():
        head.head[0].weight += 1
    head.follow(3, 0.5)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    torch.manual_seed(7)
    resumed = Representation(4, 6)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    resumed.follow(3, 0.5)  # the second micro-batch of the step
    x = torch.randn(3, 4)
    assert torch.equal(resumed.average(x), head.average(x))
    assert resumed.step == 3


def test_half_features_are_not_rounded_further():
    head, x = made(), torch.randn(3, 4).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(x), head(x.float()))
        assert head(x).dtype == head.average(x).dtype == torch.float32

"""The memory of classes against lists, and over ranks."""

from __future__ import annotations

import io

import pytest
import torch

from sfumato import distributed
from sfumato.running.class_memory import ClassMemory

C, SIZE, D = 4, 5, 3


def rows_of(step, *, count=12):
    """Features, the classes they are written for, and keys. Class 0 is never written, class 3 always."""
    draw = torch.Generator().manual_seed(step)
    features = torch.randn((count, D), generator=draw)
    members = torch.rand((count, C), generator=draw) < torch.tensor([0.0, 0.1, 0.4, 1.0])
    return features, members, torch.rand(count, generator=draw)


def by_lists(steps):
    """Of each class a list of slots, written round and round."""
    slots, written = [[None] * SIZE for _ in range(C)], [0] * C
    for step in range(steps):
        features, members, keys = rows_of(step)
        for c in range(C):
            order = sorted((m for m in range(len(keys)) if members[m, c]), key=lambda m: keys[m])
            for m in order[:SIZE]:
                slots[c][written[c] % SIZE] = features[m] / features[m].norm()
                written[c] += 1
    return slots, written


def after(steps, *, start=0, memory=None):
    memory = memory or ClassMemory(C, size=SIZE, dim=D)
    world, rank = distributed.world_size(), distributed.rank()
    for step in range(start, steps):
        memory.observe(*(x.chunk(world)[rank] for x in rows_of(step)))
    return memory


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_it_is_lists_written_round_and_round(steps):
    slots, written = by_lists(steps)
    memory = after(steps)
    assert memory.written.tolist() == written
    assert memory.filled.tolist() == [min(w, SIZE) for w in written]
    for c in range(C):
        for place, entry in enumerate(slots[c]):
            torch.testing.assert_close(memory.entries[c, place], torch.zeros(D) if entry is None else entry)
    assert written[3] == steps * SIZE > written[1]


def state_after(steps):
    return dict(after(steps).state_dict())


def test_two_ranks_write_what_one_does(two_ranks):
    alone = state_after(6)
    for rank in two_ranks.call(state_after, 6):
        assert rank.keys() == alone.keys() == {"entries", "written"}
        torch.testing.assert_close(rank, alone, rtol=0, atol=1e-6)


def test_the_order_of_rows_does_not_matter():
    one, other = (ClassMemory(C, size=SIZE, dim=D) for _ in range(2))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    one.observe(*rows_of(0))
    other.observe(*(x[order] for x in rows_of(0)))
    assert torch.equal(one.entries, other.entries)


def test_it_is_saved_mid_stream():
    file = io.BytesIO()
    torch.save(after(3).state_dict(), file)
    file.seek(0)
    resumed = ClassMemory(C, size=SIZE, dim=D)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    whole = after(7)
    torch.testing.assert_close(
        dict(after(7, start=3, memory=resumed).state_dict()), dict(whole.state_dict()), rtol=0, atol=0
    )


def partly_filled(size=SIZE):
    """Three entries of the classes 2 and 3, none of the others."""
    memory, (features, _, keys) = ClassMemory(C, size=size, dim=D), rows_of(0)
    memory.observe(features[:3], torch.tensor([False, False, True, True]).expand(3, -1), keys[:3])
    assert memory.filled.tolist() == [0, 0, 3, 3]
    return memory


@pytest.mark.parametrize("size", [SIZE, 1000])  # a thousand entries are collected and not multiplied
@pytest.mark.parametrize("grouped", [True, False])
def test_cosines_are_with_entries_of_the_class_that_are_there(size, grouped):
    memory, draw = partly_filled(size), torch.Generator().manual_seed(4)
    label = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]) if grouped else torch.tensor([3, 0, 2])
    anchors = torch.nn.functional.normalize(torch.randn((len(label), D), generator=draw), dim=1).requires_grad_()
    uniform = torch.tensor([0.0, 0.3, 0.34, 0.66, 0.67, 1 - 2.0**-24]).expand(len(label), -1)
    got = memory.cosines(anchors, label, uniform, grouped=grouped)
    want = torch.stack([memory.entries[c, [0, 0, 1, 1, 2, 2]] @ a for c, a in zip(label, anchors, strict=True)])
    torch.testing.assert_close(got, want)
    assert not got[label < 2].any()
    assert got[label >= 2].all()
    torch.testing.assert_close(
        torch.autograd.grad(got.square().sum(), anchors), torch.autograd.grad(want.square().sum(), anchors)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(memory.cosines(anchors, label, uniform, grouped=grouped), got)


def test_raw_entries_are_as_they_were_and_have_a_mean():
    memory, (features, members, keys) = ClassMemory(C, size=SIZE, dim=D, raw=True), rows_of(0)
    memory.observe(features, members, keys)
    for c in range(C):
        own = sorted((m for m in range(len(keys)) if members[m, c]), key=lambda m: keys[m])[:SIZE]
        want = features[own].mean(dim=0) if own else torch.zeros(D)
        torch.testing.assert_close(memory.means[c], want)


def test_classes_are_drawn_alike_often_whatever_they_hold():
    memory = after(2)  # class 0 has nothing
    uniform = torch.rand((6000, 2), generator=torch.Generator().manual_seed(0))
    entries, label, there = memory.drawn(uniform)
    counts = torch.bincount(label, minlength=C)
    held = int((memory.filled > 0).sum())
    assert there.all()
    assert counts[0] == 0
    torch.testing.assert_close(counts[memory.filled > 0] / 6000, torch.full((held,), 1 / held), rtol=0, atol=0.03)
    for entry, c in zip(entries[:50], label[:50], strict=True):
        assert (memory.entries[c] == entry).all(dim=1).any()
    torch.testing.assert_close(entries.norm(dim=1), torch.ones(6000))  # none of the slots that are empty


def test_nothing_can_be_drawn_from_an_empty_memory():
    entries, _, there = ClassMemory(C, size=SIZE, dim=D).drawn(torch.rand(4, 2))
    assert not there.any()
    assert entries.shape == (4, D)

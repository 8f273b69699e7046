from collections import Counter

import pytest
import torch

from sfumato.running.status import LearningStatus, PixelStatus

CLASSES, SAMPLES = 4, 30


def recount(table, *, count_unused):
    """The plain way: count everything again."""
    counts = Counter(table)
    largest = max(counts[c] for c in (range(-1, CLASSES) if count_unused else range(CLASSES)))
    return [counts[c] / max(1, largest) for c in range(CLASSES)]


@pytest.mark.parametrize("count_unused", [True, False])
def test_against_a_recount(count_unused):
    """Batches hold the same sample several times: the last confident occurrence counts."""
    draw = torch.Generator().manual_seed(0)
    status, table, repeated = LearningStatus(CLASSES, SAMPLES), [-1] * SAMPLES, 0
    for _ in range(40):
        index = torch.randint(SAMPLES, (12,), generator=draw)
        label = torch.randint(CLASSES, (12,), generator=draw)
        confident = torch.rand(12, generator=draw) < 0.4
        repeated += len(index) - len(index.unique())
        status.observe(index, label, confident)
        for i, c, sure in zip(index.tolist(), label.tolist(), confident.tolist(), strict=True):
            if sure:
                table[i] = c
        stored = [-1 if c == CLASSES else c for c in status.label[:SAMPLES].tolist()]
        assert stored == table
        assert status.counts.tolist() == [*(table.count(c) for c in range(CLASSES)), table.count(-1)]
        assert status.value(count_unused=count_unused).tolist() == pytest.approx(
            recount(table, count_unused=count_unused)
        )
    assert repeated > 50


def test_a_doubtful_repeat_does_not_hide_a_confident_one():
    status = LearningStatus(CLASSES, SAMPLES)
    status.observe(torch.tensor([7, 7, 7]), torch.tensor([1, 2, 3]), torch.tensor([True, True, False]))
    assert status.label[7].item() == 2
    assert status.counts.tolist() == [0, 0, 1, 0, SAMPLES - 1]


def test_nothing_confident_yet():
    status = LearningStatus(CLASSES, SAMPLES)
    status.observe(torch.tensor([1]), torch.tensor([0]), torch.tensor([False]))
    for count_unused in (True, False):
        assert status.value(count_unused=count_unused).tolist() == [0.0] * CLASSES


def test_all_samples_in_one_class():
    status = LearningStatus(CLASSES, 3)
    status.observe(torch.arange(3), torch.full((3,), 2), torch.ones(3, dtype=torch.bool))
    assert status.value(count_unused=True).tolist() == [0, 0, 1, 0]


def test_many_samples_are_counted_exactly():
    """Past 2^24 a float32 count would stand still."""
    status = LearningStatus(2, 1)
    status.counts.copy_(torch.tensor([2**24 + 1, 2**24 + 3, 0]))
    status.observe(torch.tensor([0]), torch.tensor([1]), torch.tensor([True]))
    assert status.counts.tolist() == [2**24 + 1, 2**24 + 4, -1]


def test_pixels_of_an_image_share_its_vote():
    status = PixelStatus(CLASSES, 5)
    label = torch.tensor([[[0, 0], [1, 3]], [[2, 2], [2, 2]]])
    confident = torch.tensor([[[True, True], [True, False]], [[False, False], [False, False]]])
    status.observe(torch.tensor([4, 1]), label, confident)
    assert status.share[4].tolist() == [0.5, 0.25, 0, 0, 0.25]
    assert status.share[1].tolist() == [0, 0, 0, 0, 1]  # no confident pixel: as before
    assert status.value(count_unused=False).tolist() == pytest.approx([1, 0.5, 0, 0])
    assert status.value(count_unused=True).tolist() == pytest.approx([0.5 / 4.25, 0.25 / 4.25, 0, 0])
    status.observe(torch.tensor([4]), torch.full((1, 2, 2), 3), torch.ones(1, 2, 2, dtype=torch.bool))
    assert status.share[4].tolist() == [0, 0, 0, 1, 0]


def test_one_pixel_is_an_image():
    draw = torch.Generator().manual_seed(0)
    images, pixels = LearningStatus(CLASSES, SAMPLES), PixelStatus(CLASSES, SAMPLES)
    for _ in range(20):
        index, label = torch.randint(SAMPLES, (9,), generator=draw), torch.randint(CLASSES, (9,), generator=draw)
        confident = torch.rand(9, generator=draw) < 0.5
        images.observe(index, label, confident)
        pixels.observe(index, label[:, None, None], confident[:, None, None])
    for count_unused in (True, False):
        torch.testing.assert_close(images.value(count_unused=count_unused), pixels.value(count_unused=count_unused))

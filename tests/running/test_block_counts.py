"""What is counted in one block of steps is read in the next."""

import torch

from sfumato.running.block_counts import BlockCounts


def test_a_block_is_read_once_it_is_whole():
    counts = BlockCounts(2, length=3)
    read = []
    for step in range(8):
        for _ in range(2):  # two micro-batches
            counts.begin(step)
            counts.observe(torch.tensor([step, 1.0]))
        read.append(counts.value.tolist())
    assert read == [[0, 2], [2, 4], [6, 6]] + [[6, 6]] * 3 + [[24, 6]] * 2  # at first what was counted so far


def test_a_block_in_which_nothing_was_counted_is_passed_over():
    counts = BlockCounts(2, length=2)
    counts.begin(0)
    counts.observe(torch.tensor([1.0, 2.0]))
    counts.begin(7)  # unlabeled images were not seen meanwhile
    assert counts.value.tolist() == [1, 2]
    counts.begin(9)
    assert counts.value.tolist() == [1, 2]

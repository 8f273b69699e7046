import torch

from sfumato.running.queue import SampleQueue


def rows(first, count):
    """Features that are told apart by their number, and keys in this order."""
    numbers = torch.arange(first, first + count).float()
    return numbers.unsqueeze(1), numbers.unsqueeze(1).expand(-1, 2), torch.ones(count), numbers / 100


def test_it_wraps_without_losing_a_row():
    """The peer drops what does not fit before the end."""
    queue = SampleQueue(2, size=5, dim=1)
    queue.observe(*rows(1, 3))
    assert queue.features.flatten().tolist() == [1, 2, 3, 0, 0]
    assert queue.filled.tolist() == [True, True, True, False, False]
    queue.observe(*rows(4, 4))
    assert queue.features.flatten().tolist() == [6, 7, 3, 4, 5]
    assert queue.probs[:, 1].tolist() == [6, 7, 3, 4, 5]
    assert queue.filled.all()
    assert queue.written == 7


def test_a_batch_larger_than_the_queue_leaves_the_last_keys_out():
    queue = SampleQueue(2, size=3, dim=1)
    features, probs, valid, keys = rows(1, 7)
    order = torch.tensor([6, 2, 4, 0, 5, 1, 3])
    queue.observe(features[order], probs[order], valid, keys[order])
    assert queue.features.flatten().tolist() == [1, 2, 3]
    assert queue.written == 3


def test_samples_that_are_not_valid_take_no_place():
    queue = SampleQueue(2, size=4, dim=1)
    features, probs, _, keys = rows(1, 4)
    queue.observe(features, probs, torch.tensor([0.0, 1, 0, 1]), keys)
    assert queue.features.flatten().tolist() == [2, 4, 0, 0]
    assert queue.written == 2

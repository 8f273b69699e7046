"""The counts are those of a loop over pixels, whatever the number of classes, samples, lanes and blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional import confusion as module
from sfumato.functional.confusion import confusion, confusion_each, ignored


def sample(n: int, classes: int, space: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n, *space), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.2] = 255 if classes <= 255 else -1
    return torch.randint(0, classes, (n, *space), generator=draw), labels


def by_hand(prediction: torch.Tensor, labels: torch.Tensor, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), dtype=np.int64)
    for guess, label in zip(prediction.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if label >= 0 and not (label == 255 and classes <= 255):
            counts[label, guess] += 1
    return counts


# 16 bits and four lanes, two lanes, one lane, 32 bits; one class; more classes than a byte holds
CASES = [(3, 4, (9, 7)), (2, 80, (30, 40)), (1, 150, (40, 41)), (9, 150, (6, 5)), (2, 1, (5, 5)), (2, 300, (20, 20))]


@pytest.mark.parametrize("n, classes, space", CASES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_equals_a_loop_over_pixels(n, classes, space, dtype):
    if dtype == torch.uint8 and classes > 255:
        pytest.skip("labels beyond a byte")
    prediction, labels = sample(n, classes, space)
    each = confusion_each(prediction, labels.to(dtype), classes)
    assert (each.dtype, each.shape) == (torch.int64, (n, classes, classes))
    for i in range(n):
        assert np.array_equal(each[i].numpy(), by_hand(prediction[i], labels[i], classes))
    assert torch.equal(confusion(prediction, labels.to(dtype), classes), each.sum(dim=0))


@pytest.mark.parametrize("block", [1, 5, 64])
def test_blocks_change_nothing(monkeypatch, block):
    prediction, labels = sample(3, 5, (7, 9))
    whole = confusion_each(prediction, labels, 5)
    monkeypatch.setattr(module, "_BLOCK", block)
    assert torch.equal(confusion_each(prediction, labels, 5), whole)


def test_void_and_negative_labels_are_in_no_count():
    labels = torch.tensor([[0, 1, 255, -1, -7, 1]])
    counts = confusion(torch.tensor([[0, 1, 0, 1, 1, 0]]), labels, 2)
    assert counts.tolist() == [[1, 0], [1, 1]]
    assert ignored(labels, 2).tolist() == [[False, False, True, True, True, False]]


def test_255_is_a_class_where_there_are_more():
    assert confusion(torch.tensor([255]), torch.tensor([255]), 256)[255, 255] == 1
    assert not bool(ignored(torch.tensor([255]), 256))


def test_images_without_pixels_and_no_image():
    empty = torch.zeros((2, 0, 4), dtype=torch.int64)
    assert confusion_each(empty, empty, 3).tolist() == torch.zeros(2, 3, 3).tolist()
    assert confusion_each(empty[:0], empty[:0], 3).shape == (0, 3, 3)
    assert int(confusion_each(torch.zeros(2, 3, 3).long(), torch.full((2, 3, 3), 255), 3).sum()) == 0


def test_inputs_are_left_alone():
    for dtype in (torch.uint8, torch.int16, torch.int32):
        prediction, labels = sample(2, 3, (4, 4))
        given = prediction.to(dtype), labels.to(dtype)
        before = [tensor.clone() for tensor in given]
        confusion_each(*given, 3)
        assert all(torch.equal(*pair) for pair in zip(given, before, strict=True))


@pytest.mark.parametrize("dtype, label", [(torch.uint8, 3), (torch.uint8, 254), (torch.int64, 3), (torch.int64, 256)])
def test_a_label_that_is_no_class_is_named(dtype, label):
    labels = torch.tensor([[0, label, 255]]).to(dtype)
    message = (
        rf"label {label} found where there are 3 classes, 0 to 2: mark what is to be ignored with 255 or a negative"
    )
    with pytest.raises(UsageError, match=message):
        confusion(torch.zeros((1, 3), dtype=torch.int64), labels, 3)


def test_shapes_have_to_agree():
    with pytest.raises(UsageError, match=r"labels of shape \(2, 5\) do not fit predictions of shape \(2, 4\)"):
        confusion(torch.zeros((2, 4)).long(), torch.zeros((2, 5)).long(), 3)
    with pytest.raises(UsageError, match=r"labels of shape \(4,\) do not fit predictions of shape \(2, 2\)"):
        confusion_each(torch.zeros((2, 2)).long(), torch.zeros(4).long(), 3)

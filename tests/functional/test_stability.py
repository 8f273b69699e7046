"""How stable predictions were, against loops over images, pixels and classes."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.stability import most_stable, stability


def slow(predictions: torch.Tensor, num_classes: int) -> list[float]:
    """The mean over the earlier copies of the mean over the classes that one of the two holds."""
    *earlier, last = predictions.tolist()
    found = []
    for place, right in enumerate(last):
        scores = []
        for copy in earlier:
            rows = zip(copy[place], right, strict=True)
            pairs = [pair for row, its_row in rows for pair in zip(row, its_row, strict=True)]
            ious = []
            for c in range(num_classes):
                either = sum(a == c or b == c for a, b in pairs)
                if either:
                    ious.append(sum(a == b == c for a, b in pairs) / either)
            scores.append(sum(ious) / len(ious))
        found.append(sum(scores) / len(scores))
    return found


@pytest.mark.parametrize("copies", [2, 3, 4])
def test_of_maps_it_is_the_mean_miou_with_the_last_copy(copies):
    draw = torch.Generator().manual_seed(copies)
    predictions = torch.randint(0, 4, (copies, 6, 5, 7), generator=draw, dtype=torch.uint8)
    predictions[:, 1] = predictions[-1, 1]  # the copies agree
    predictions[:, 2] = 3  # on a single class
    found = stability(predictions, 5)
    torch.testing.assert_close(found, torch.tensor(slow(predictions, 5), dtype=torch.float64))
    assert found[1] == found[2] == 1
    assert 0 < found[0] < 1


def test_of_one_label_an_image_it_is_the_share_of_copies_that_agree():
    predictions = torch.tensor([[0, 1, 2, 3], [0, 4, 1, 2], [0, 1, 1, 4]])
    assert stability(predictions, 1000).tolist() == [1.0, 0.5, 0.5, 0.0]
    wide = predictions[..., None, None]
    assert stability(wide, 5).tolist() == [1.0, 0.5, 0.5, 0.0]  # one pixel is one sample


def test_one_copy_has_nothing_to_agree_with():
    with pytest.raises(UsageError, match="predictions of 1 copies of the network; expected 2 or more"):
        stability(torch.zeros(1, 3), 2)


def test_the_most_stable_half_is_taken_and_of_equal_ones_the_earlier():
    values = torch.tensor([0.2, 0.9, 0.5, 0.5, 0.5, 0.1, 0.5])
    assert most_stable(values, 0.5).tolist() == [1, 2, 3]
    assert most_stable(values, 0.3).tolist() == [1, 2]
    assert most_stable(torch.ones(9), 0.5).tolist() == [0, 1, 2, 3]
    assert most_stable(torch.ones(1000), 0.5).tolist() == list(range(500))


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (3, 0.01), (10, 0.7), (100, 0.29), (0, 0.5)])
def test_how_many(count, share):
    expected = min(count, max(1, math.floor(round(count * share, 9))))
    assert len(most_stable(torch.rand(count), share)) == expected

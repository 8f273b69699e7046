"""The bands are those of eroded class masks, the IoU is that of the bands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from sfumato.functional.boundary import band, band_width, boundary_confusion
from sfumato.functional.iou import intersection_union, ratio


def blobs(n: int, height: int, width: int, classes: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, classes, height // 4 + 1, width // 4 + 1, generator=draw)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").argmax(dim=1)


def eroded_away(mask: np.ndarray, width: int) -> np.ndarray:
    """What `width` erosions by 3 x 3 take from a mask, with nothing of it beyond the image's edge."""
    return mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)


def ious(prediction: torch.Tensor, labels: torch.Tensor, classes: int, share: float = 0.02) -> list[float]:
    counts = boundary_confusion(prediction, labels, classes, share)
    intersection, union = intersection_union(counts)
    return ratio(intersection[:-1], union[:-1]).tolist()


@pytest.mark.parametrize("height, width, pixels", [(120, 160, 4), (10, 10, 1), (1024, 2048, 46), (3, 3, 1)])
def test_width_is_two_percent_of_the_diagonal(height, width, pixels):
    assert band_width(height, width) == pixels


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_band_is_what_an_erosion_of_each_class_takes_away(width, dtype):
    labels = blobs(2, 33, 47, 4)
    found = band(labels.to(dtype), width).numpy()
    for one, near in zip(labels.numpy(), found, strict=True):
        for c in range(4):
            assert np.array_equal(near & (one == c), eroded_away(one == c, width))


def test_an_image_narrower_than_two_bands_is_all_boundary():
    assert bool(band(torch.zeros(1, 4, 30, dtype=torch.int64), 2).all())


def test_iou_of_every_class_is_that_of_its_eroded_masks():
    labels, prediction = blobs(3, 60, 80, 5), blobs(3, 60, 80, 5, seed=1)
    prediction[:, :30] = labels[:, :30]
    hits, either = np.zeros(5), np.zeros(5)
    for y, g in zip(labels.numpy(), prediction.numpy(), strict=True):
        for c in range(5):
            ours, theirs = eroded_away(g == c, 2), eroded_away(y == c, 2)
            hits[c] += (ours & theirs).sum()
            either[c] += (ours | theirs).sum()
    assert ious(prediction, labels, 5) == pytest.approx((hits / either).tolist())


def test_a_shifted_square_by_hand():
    """A square of 20 pixels in 100 x 100, moved by one: bands of 3 pixels share two of three rows on two sides."""
    labels = torch.zeros(1, 100, 100, dtype=torch.int64)
    labels[:, 40:60, 40:60] = 1
    moved = labels.roll(1, dims=2)
    ring = 20 * 20 - 14 * 14
    shared = 2 * 3 * 19 + 2 * 2 * 14  # upper and lower bars overlap in 19 columns, the sides in 2 of 3
    assert ious(labels, labels, 2) == [1.0, 1.0]
    assert ious(moved, labels, 2)[1] == pytest.approx(shared / (2 * ring - shared))


def test_large_regions_do_not_hide_a_bad_contour():
    labels = torch.zeros(1, 200, 200, dtype=torch.int64)
    labels[:, 50:150, 50:150] = 1
    smaller = torch.zeros_like(labels)
    smaller[:, 56:144, 56:144] = 1
    plain = 88**2 / 100**2
    assert ious(smaller, labels, 2)[1] < 0.1 < 0.7 < plain


def test_void_makes_no_contour_and_is_not_counted():
    labels = torch.zeros(1, 100, 100, dtype=torch.int64)
    labels[:, :, 50:] = 255
    wild = torch.zeros_like(labels)
    wild[:, :, 60:] = 1
    assert ious(wild, labels, 2)[0] == 1.0
    near = band(labels.to(torch.uint8), 3, labels == 255)
    assert not bool(near[0, 10:90, 10:49].any())
    # another class beyond two columns of void: the band reaches out of these by one column
    labels[:, :, 52:] = 1
    near = band(labels.to(torch.uint8), 3, labels == 255)
    assert near[0, 50, [48, 49, 52, 53]].tolist() == [False, True, True, False]


@pytest.mark.parametrize("void", [255, -1])
@pytest.mark.parametrize("classes", [1, 2, 255, 300])
def test_any_number_of_classes_and_all_void(classes, void):
    if classes > 255 and void == 255:
        pytest.skip("255 is a class")
    labels = torch.full((2, 9, 9), void)
    counts = boundary_confusion(torch.zeros_like(labels), labels, classes)
    assert (counts.shape, int(counts.sum())) == ((classes + 1, classes + 1), 0)
    labels[:, 3:6] = classes - 1
    assert ious(labels.clamp(0, classes - 1), labels, classes)[-1] <= 1.0
    counts = boundary_confusion(torch.full_like(labels, classes - 1), labels, classes)
    assert int(counts.sum()) == 2 * 27

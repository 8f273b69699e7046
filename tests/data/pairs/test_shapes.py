"""The built-in set: what it holds, and that color alone does not give the classes away."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.data.pairs import SHAPES_RARE, PairTable, load_pairs
from sfumato.data.pairs.sources import shapes
from sfumato.types import VOID


@pytest.fixture(scope="module")
def table() -> PairTable:
    return load_pairs("shapes")


@pytest.fixture(scope="module")
def pixels(table: PairTable) -> tuple[np.ndarray, np.ndarray]:
    """(N, 64, 64, 3) and (N, 64, 64)."""
    images = np.stack([table.images.image(row).permute(1, 2, 0).numpy() for row in range(len(table))])
    return images, np.stack([table.images.mask(row).numpy() for row in range(len(table))])


def test_what_is_there(table: PairTable) -> None:
    assert table.classes == ["ground", "disc", "square", "triangle", "ring", "cross"]
    assert table.known.all()
    assert table.images.sizes([0, 599]).tolist() == [[64, 64]] * 2
    assert {part: int((table.split == part).sum()) for part in ("train", "val", "test")} == shapes.SPLIT
    shares = table.counts.sum(axis=0) / table.counts.sum()
    assert 0.75 < shares[0] < 0.85
    assert all(0.03 < share < 0.07 for share in shares[1:4])
    assert all(0.003 < shares[label] < 0.01 for label in SHAPES_RARE)
    for part in shapes.SPLIT:
        assert ((table.counts[table.split == part] > 0).sum(axis=0)[:6] >= 8).all()


def test_it_is_the_same_each_time(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    shapes._generated.cache_clear()
    images, masks = shapes._generated()
    assert np.array_equal(images, pixels[0])
    assert np.array_equal(masks, pixels[1])


def test_all_images_differ(table: PairTable) -> None:
    assert len(set(table.images.image_digests(np.arange(len(table))))) == len(table)


def test_shapes_are_surrounded_by_one_pixel_of_void(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    masks = pixels[1].astype(int)
    for first, second in ((masks[:, 1:], masks[:, :-1]), (masks[:, :, 1:], masks[:, :, :-1])):
        touching = (first != second) & (first != VOID) & (second != VOID)
        assert not touching.any()
    void = masks == VOID
    around = void[:, :-2, 1:-1] & void[:, 2:, 1:-1] & void[:, 1:-1, :-2] & void[:, 1:-1, 2:]
    assert around[void[:, 1:-1, 1:-1]].mean() < 0.001  # a line, not an area


def test_color_alone_does_not_decide_the_class(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    """The best guess by color, learned from every training mask, is far from the truth on the test split."""
    images, masks = pixels
    bins = (images // 16).astype(int) @ np.array([256, 16, 1])
    seen = np.zeros((4096, 6))
    train, test = slice(0, 400), slice(480, 600)
    real = masks[train] != VOID
    np.add.at(seen, (bins[train][real], masks[train][real]), 1)
    guess = seen.argmax(axis=1)[bins[test]]
    valid = masks[test] != VOID
    iou = [
        ((guess == c) & (masks[test] == c) & valid).sum() / (((guess == c) | (masks[test] == c)) & valid).sum()
        for c in range(6)
    ]
    assert np.mean(iou) < 0.6
    assert max(iou[1:]) < 0.6

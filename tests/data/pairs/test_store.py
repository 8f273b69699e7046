"""Decoding, resizing and cutting: what a crop shows, and that it is the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data.pairs import PairTable, load_pairs, pairs_from_arrays
from sfumato.errors import DataError
from sfumato.types import VOID, Windows
from tests.data.pairs.fakes import mask_of, write_plain
from tests.data.pictures import picture, write

WIDTH, HEIGHT = 40, 30


def windows_of(*rows: tuple[tuple[float, float, float, float], tuple[int, int], bool]) -> Windows:
    return Windows(
        np.array([box for box, _, _ in rows], dtype=np.float64),
        np.array([shape for _, shape, _ in rows], dtype=np.int64),
        np.array([flip for _, _, flip in rows], dtype=bool),
    )


def scene() -> PairTable:
    """A smooth image and one of noise, with masks of blocks; a third has no mask."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([6 * x, 8 * y, 3 * (x + y)], axis=-1).astype(np.uint8)
    noise = np.asarray(picture(1, (WIDTH, HEIGHT)))
    blocks = (x // 10 + y // 10).astype(np.uint8) % 3
    blocks[:2] = VOID
    return pairs_from_arrays([smooth, noise, noise[::-1]], [blocks, blocks.T[:30, :].repeat(2, 1)[:, :40], None])


def test_a_whole_window_is_the_image_itself() -> None:
    table = scene()
    box = (0.0, 0.0, float(WIDTH), float(HEIGHT))
    crops = table.images.crops([1, 0], windows_of(*[(box, (WIDTH, HEIGHT), False)] * 2), (HEIGHT, WIDTH), masks=True)
    assert crops.images.dtype == crops.inside.dtype == torch.uint8
    for place, row in enumerate([1, 0]):
        assert torch.equal(crops.images[place], table.images.image(row))
        assert crops.masks is not None
        assert torch.equal(crops.masks[place], table.images.mask(row))
    assert crops.inside.all()


def test_a_window_of_whole_pixels_is_cut_out() -> None:
    table = scene()
    crops = table.images.crops([1], windows_of(((5, 7, 25, 17), (20, 10), False)), (10, 20), masks=True)
    assert crops.masks is not None
    assert torch.equal(crops.images[0], table.images.image(1)[:, 7:17, 5:25])
    assert torch.equal(crops.masks[0], table.images.mask(1)[7:17, 5:25])


@pytest.mark.parametrize("scale", [0.5, 0.8, 2.0])
def test_crop_then_resize_is_resize_then_crop(scale: float) -> None:
    """On a smooth image, where rounding is the only difference; masks differ at no pixel."""
    table = scene()
    size = (round(WIDTH * scale), round(HEIGHT * scale))
    image = Image.fromarray(table.images.image(0).permute(1, 2, 0).numpy())
    mask = Image.fromarray(table.images.mask(0).numpy())
    left, top, width, height = 3, 4, 10, 8
    whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR)).astype(int)
    labels = np.asarray(mask.resize(size, Image.Resampling.NEAREST))
    box = (left / scale, top / scale, (left + width) / scale, (top + height) / scale)
    crops = table.images.crops([0], windows_of((box, (width, height), False)), (height, width), masks=True)
    assert crops.masks is not None
    found = crops.images[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - whole[top : top + height, left : left + width]).max() <= 1
    assert np.array_equal(crops.masks[0].numpy(), labels[top : top + height, left : left + width])


def test_shrinking_smooths_the_image_and_invents_no_class() -> None:
    table = scene()
    crops = table.images.crops([1], windows_of(((0, 0, 40, 30), (4, 3), False)), (3, 4), masks=True)
    assert crops.masks is not None
    assert crops.images.float().std() < 0.5 * table.images.image(1).float().std()
    assert set(crops.masks.unique().tolist()) <= {0, 1, 2, VOID}


def test_padding_is_black_void_and_outside() -> None:
    crops = scene().images.crops([0], windows_of(((0, 10, 40, 30), (8, 4), False)), (6, 10), masks=True)
    assert crops.masks is not None
    inside = torch.zeros(6, 10, dtype=torch.bool)
    inside[:4, :8] = True
    assert torch.equal(crops.inside[0].bool(), inside)
    assert (crops.images[0][:, ~inside] == 0).all()
    assert (crops.masks[0][~inside] == VOID).all()
    assert (crops.masks[0][inside] != VOID).any()


def test_a_flip_turns_the_whole_crop() -> None:
    table = scene()
    box, shape = (3.3, 2.1, 31.7, 29.0), (8, 4)
    plain = table.images.crops([1], windows_of((box, shape, False)), (6, 10), masks=True)
    turned = table.images.crops([1], windows_of((box, shape, True)), (6, 10), masks=True)
    for name in ("images", "masks", "inside"):
        assert torch.equal(getattr(turned, name), getattr(plain, name).flip(-1))


def test_without_masks_or_without_a_mask() -> None:
    table = scene()
    window = windows_of(((0, 0, 40, 30), (20, 15), False))
    assert table.images.crops([0], window, (15, 20), masks=False).masks is None
    crops = table.images.crops([2], window, (15, 20), masks=True)
    assert crops.masks is not None
    assert (crops.masks == VOID).all()
    assert crops.inside.all()
    assert (table.images.mask(2) == VOID).all()


def test_rounding_may_carry_a_window_over_the_edge_but_no_further() -> None:
    table = scene()
    box = (-1e-9, 0.0, WIDTH + 1e-9, HEIGHT + 1e-9)
    crops = table.images.crops([1], windows_of((box, (WIDTH, HEIGHT), False)), (HEIGHT, WIDTH), masks=False)
    assert torch.equal(crops.images[0], table.images.image(1))
    for wrong in ((0, 0, 41, 30), (-1, 0, 40, 30), (5, 5, 5, 9)):
        with pytest.raises(ValueError, match="is not in an image of 40x30"):
            table.images.crops([1], windows_of((wrong, (4, 4), False)), (4, 4), masks=False)
    with pytest.raises(ValueError, match="more than the crop of 4x4"):
        table.images.crops([1], windows_of(((0, 0, 9, 9), (5, 4), False)), (4, 4), masks=False)
    with pytest.raises(ValueError, match="1 windows for 2 rows"):
        table.images.crops([1, 0], windows_of(((0, 0, 9, 9), (4, 4), False)), (4, 4), masks=False)


@pytest.mark.parametrize("keep_limit", [0, 4 * 48 + 48, 1 << 30])
def test_the_same_bits_whatever_is_kept(keep_limit: int, tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1], "b": [1, 0, 255], "c": None})
    reference = load_pairs(tmp_path)
    table = load_pairs(tmp_path, keep_limit=keep_limit)
    window = windows_of(*[((1.5, 0.2, 7.9, 5.5), (300, 200), True)] * 6)  # large enough for the threads
    first = table.images.crops([0, 1, 2, 2, 1, 0], window, (260, 330), masks=True)
    again = table.images.crops([0, 1, 2, 2, 1, 0], window, (260, 330), masks=True)
    other = reference.images.crops([0, 1, 2, 2, 1, 0], window, (260, 330), masks=True)
    for crops in (again, other):
        assert torch.equal(first.images, crops.images)
        assert first.masks is not None
        assert crops.masks is not None
        assert torch.equal(first.masks, crops.masks)


def test_decoded_images_are_kept_within_the_limit(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1], "b": [1, 0]})
    for keep_limit, kept in ((1 << 30, True), (4 * 48 - 1, False)):
        table = load_pairs(tmp_path, keep_limit=keep_limit)
        before = table.images.image(0)
        (tmp_path / "images" / "a.png").rename(tmp_path / "gone.png")
        if kept:
            assert torch.equal(table.images.image(0), before)
        else:
            with pytest.raises(DataError, match=r"1 image cannot be read: 'images/a.png' \(no such file\)"):
                table.images.image(0)
        (tmp_path / "gone.png").rename(tmp_path / "images" / "a.png")


def test_what_is_handed_out_is_a_copy() -> None:
    table = scene()
    table.images.image(0).zero_()
    table.images.mask(0).zero_()
    assert table.images.image(0).any()
    assert table.images.mask(0).any()


@pytest.mark.parametrize(("resize", "sizes"), [(20, [[20, 15], [10, 20]]), ((16, 8), [[16, 8], [16, 8]])])
def test_resize(resize: int | tuple[int, int], sizes: list[list[int]], tmp_path: Path) -> None:
    for seed, (stem, size) in enumerate((("a", (40, 30)), ("b", (50, 100)))):
        write(tmp_path / "images" / f"{stem}.png", picture(seed, size))
        write(tmp_path / "masks" / f"{stem}.png", mask_of([0, 1, 255], size))
    table = load_pairs(tmp_path, resize=resize)
    assert table.images.sizes([0, 1]).tolist() == sizes
    for row, (width, height) in enumerate(sizes):
        assert table.images.image(row).shape == (3, height, width)
        assert table.images.mask(row).shape == (height, width)
        assert set(table.images.mask(row).unique().tolist()) == {0, 1, 255}
    window = windows_of(((0, 0, *map(float, sizes[1])), (4, 4), False))
    assert table.images.crops([1], window, (4, 4), masks=True).inside.all()


def test_a_turned_photograph_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    picture(0, (8, 6)).save(tmp_path / "images" / "a.jpg", exif=exif)
    write(tmp_path / "masks" / "a.png", mask_of([0, 1], (6, 8)))
    table = load_pairs(tmp_path)
    assert table.images.sizes([0]).tolist() == [[6, 8]]
    assert table.images.image(0).shape == (3, 8, 6)


def test_grey_images_have_one_channel() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    table = pairs_from_arrays([pixels, pixels.T.copy()], [pixels % 2, None])
    assert table.images.channels == 1
    assert torch.equal(table.images.image(0), torch.from_numpy(pixels)[None])
    window = windows_of(((2, 1, 6, 5), (4, 4), False))
    assert torch.equal(
        table.images.crops([0], window, (4, 4), masks=False).images[0, 0], torch.from_numpy(pixels[1:5, 2:6])
    )


def test_digests_tell_images_and_masks_apart() -> None:
    image = np.asarray(picture(0, (8, 6)))
    mask, other = np.asarray(mask_of([0, 1])), np.asarray(mask_of([1, 1, 0]))
    table = pairs_from_arrays([image, image, image, image.copy()], [mask, other, None, mask])
    assert len(set(table.images.image_digests([0, 1, 2, 3]))) == 1
    pairs = table.images.digests([0, 1, 2, 3])
    assert pairs[0] == pairs[3]
    assert len(set(pairs)) == 3

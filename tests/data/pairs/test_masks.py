"""What a mask file may hold, what it comes to mean, and every refusal."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.data.pairs import PairTable, load_pairs
from sfumato.errors import DataError, UsageError
from tests.data.pairs.fakes import SIZE, mask_of, write_plain
from tests.data.pictures import picture, write

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]
VALUES = np.asarray(mask_of([0, 1, 2]))


def folder_with(tmp_path: Path, mask: Image.Image, name: str = "a.png") -> Path:
    """One image and this mask."""
    write(tmp_path / "images" / "a.png", picture(0, SIZE))
    write(tmp_path / "masks" / name, mask)
    return tmp_path


def only_mask(table: PairTable) -> np.ndarray:
    return table.images.mask(0).numpy()


def indexed() -> Image.Image:
    image = Image.fromarray(VALUES)
    image.putpalette(PALETTE)
    assert image.mode == "P"
    return image


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(VALUES),
        indexed(),
        Image.fromarray(VALUES.astype(np.uint16)),
        Image.fromarray(np.stack([VALUES] * 3, axis=-1)),
        Image.merge("LA", [Image.fromarray(VALUES), Image.new("L", SIZE, 255)]),
    ],
    ids=["8-bit", "palette", "16-bit", "grey as RGB", "grey with alpha"],
)
def test_numbers_are_read_from_every_mode(mask: Image.Image, tmp_path: Path) -> None:
    table = load_pairs(folder_with(tmp_path, mask))
    assert np.array_equal(only_mask(table), VALUES)
    assert table.classes == ["class 0", "class 1", "class 2"]
    assert table.counts.tolist() == [[18, 18, 12, 0]]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_are_read_from_wide_tiff(kind: type, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, Image.fromarray(VALUES.astype(kind)), "a.tif")
    assert np.array_equal(only_mask(load_pairs(folder)), VALUES)
    write(folder / "masks" / "a.tif", Image.fromarray(VALUES.astype(np.float32) / 2))
    with pytest.raises(DataError, match=r"masks/a.tif: the mask is fractions instead of whole class numbers"):
        load_pairs(folder)


def test_one_bit_masks_have_two_classes(tmp_path: Path) -> None:
    table = load_pairs(folder_with(tmp_path, Image.fromarray(VALUES > 0)))
    assert np.array_equal(only_mask(table), VALUES > 0)
    assert table.classes == ["class 0", "class 1"]


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_not_stretched(bits: int, tmp_path: Path) -> None:
    """Pillow gives 0, 85, 170 for the numbers 0, 1, 2 of a 2-bit PNG."""
    folder = folder_with(tmp_path, mask_of([0]))
    (folder / "masks" / "a.png").write_bytes(grey_png(VALUES, bits))
    assert np.array_equal(only_mask(load_pairs(folder)), VALUES)


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A PNG of `bits` a pixel, which Pillow can read but not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape
    expanded = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(height, -1)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), np.packbits(expanded, axis=1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = zlib.compress(rows.tobytes())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_void_is_255_in_memory_whatever_it_was(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, Image.fromarray(np.where(VALUES == 2, 65535, VALUES.astype(np.uint16))))
    table = load_pairs(folder, void=65535)
    assert table.classes == ["class 0", "class 1"]
    assert np.array_equal(only_mask(table), np.where(VALUES == 2, 255, VALUES))
    assert table.counts.tolist() == [[18, 18, 12]]


def test_void_zero_numbers_classes_from_one(tmp_path: Path) -> None:
    table = load_pairs(folder_with(tmp_path, Image.fromarray(VALUES)), void=0)
    assert table.classes == ["class 0", "class 1"]
    assert np.array_equal(only_mask(table), np.where(VALUES == 0, 255, VALUES - 1.0))


def test_black_and_white_masks_have_a_foreground(tmp_path: Path) -> None:
    table = load_pairs(folder_with(tmp_path, Image.fromarray(np.where(VALUES == 2, 255, 0).astype(np.uint8))))
    assert table.classes == ["background", "foreground"]
    assert np.array_equal(only_mask(table), VALUES == 2)
    assert table.notes == ("The masks hold 0 and 255 only: 255 is taken for the second class, not for void.",)


def test_a_mapping_translates(tmp_path: Path) -> None:
    table = load_pairs(folder_with(tmp_path, mask_of([7, 8, 30])), mapping={7: 1, 8: 0, 30: 255})
    assert np.array_equal(only_mask(table), np.array([1, 0, 255])[VALUES])


def test_a_mask_with_an_orientation_is_turned_with_its_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    picture(0, SIZE).save(tmp_path / "images" / "a.jpg", exif=exif)
    mask_of([0, 1, 2]).save(tmp_path / "masks" / "a.png", exif=exif)
    assert np.array_equal(only_mask(load_pairs(tmp_path)), np.rot90(VALUES, -1))
    mask_of([0, 1, 2]).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match=r"the mask is 8x6 pixels, its image images/a.jpg 6x8.*EXIF orientation"):
        load_pairs(tmp_path)


# colors -------------------------------------------------------------------------------------------------------------

COLORS = np.array([[10, 20, 30], [200, 0, 0], [0, 0, 200]], dtype=np.uint8)


def test_colors_of_the_class_table(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, Image.fromarray(COLORS[VALUES]))
    (folder / "classes.txt").write_text("sea,10,20,30\nland,200,0,0\nvoid,0,0,200\n")
    table = load_pairs(folder)
    assert table.classes == ["sea", "land"]
    assert table.colors.tolist() == [[10, 20, 30], [200, 0, 0]]
    assert np.array_equal(only_mask(table), np.where(VALUES == 2, 255, VALUES))


def test_colors_without_a_class_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("masks/a.png: the mask is coloured: (200, 0, 0), (10, 20, 30), (0,")):
        load_pairs(folder_with(tmp_path, Image.fromarray(COLORS[VALUES])))


def test_a_color_that_is_not_in_the_class_table(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, Image.fromarray(COLORS[VALUES]))
    with pytest.raises(DataError, match=re.escape("masks/a.png: mask colours (0, 0, 200) are not in the class table")):
        load_pairs(folder, classes=[("sea", (10, 20, 30)), ("land", (200, 0, 0))])


# refusals -----------------------------------------------------------------------------------------------------------


def refuse(message: str, folder: Path, **options: Any) -> None:
    with pytest.raises(DataError) as error:
        load_pairs(folder, **options)
    assert str(error.value) == message


def test_values_out_of_range(tmp_path: Path) -> None:
    masks = {"a": [0, 1], "b": [0, 7, 9], "c": [1, 7], "d": None}
    refuse(
        "masks/b.png: mask values 7, 9 out of range: expected 0..1 (2 classes) or 255 (void). Correct the mask, add "
        "what is missing to the class table (classes=…), or say which number is void (void=…). (1 mask more like it: "
        "'masks/c.png'.)",
        write_plain(tmp_path, masks),
        classes=["land", "sea"],
    )


def test_a_value_that_the_mapping_does_not_name(tmp_path: Path) -> None:
    refuse(
        "masks/a.png: mask value 9 out of range: expected 7..8 (2 classes) or 255 (void). Correct the mask, name it in "
        "mapping=… (255 is void), or say which number is void (void=…).",
        write_plain(tmp_path, {"a": [7, 8, 9]}),
        mapping={7: 0, 8: 1},
    )


def test_numbers_with_gaps_need_a_class_table(tmp_path: Path) -> None:
    refuse(
        "The masks hold the class numbers 0, 38, 75 (38 in masks/b.png): expected 0, 1, 2, … without a gap, at most "
        "255 of them. Name the classes in a class table (classes=…), translate the numbers (mapping=… of load_pairs), "
        "or say which one is void (void=…).",
        write_plain(tmp_path, {"a": [0, 75], "b": [0, 38, 255]}),
    )
    refuse(
        "mapping: the classes 0, 2 leave a gap. Expected 0, 1, 2, …, at most 255 of them.",
        write_plain(tmp_path, {"a": [0, 75], "b": [0, 75]}),
        mapping={0: 0, 75: 2},
    )


def test_a_mapping_to_classes_that_are_not_there(tmp_path: Path) -> None:
    refuse(
        "mapping: classes 5 are not of 0..1, nor 255 (void).",
        write_plain(tmp_path, {"a": [0, 1]}),
        mapping={0: 0, 1: 5},
        classes=["land", "sea"],
    )


@pytest.mark.parametrize("size", [(16, 12), (4, 3), (8, 7)])
def test_a_mask_of_another_size(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    refuse(
        f"masks/a.png: the mask is {width}x{height} pixels, its image images/a.png 8x6. Export the mask again at the "
        "size of its image.",
        folder_with(tmp_path, mask_of([0, 1], size)),
    )


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_mask(mode: str, tmp_path: Path) -> None:
    refuse(
        "masks/a.jpg: the mask is a JPEG, whose lossy compression changes the class numbers. Export the mask again as "
        "PNG.",
        folder_with(tmp_path, mask_of([0, 1]).convert(mode), "a.jpg"),
    )


def test_a_photograph_as_mask(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.png", picture(0, (80, 80)))
    write(tmp_path / "masks" / "a.png", picture(1, (80, 80)))
    with pytest.raises(DataError, match=r"masks/a.png: the mask is more than 4096 colours, as a photograph has"):
        load_pairs(tmp_path)


def test_a_mask_in_a_printing_mode(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"masks/a.tif: the mask is an image of mode CMYK"):
        load_pairs(folder_with(tmp_path, Image.new("CMYK", SIZE), "a.tif"))


def test_a_truncated_mask_can_be_left_out(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1], "b": [0, 1], "c": None})
    path = tmp_path / "masks" / "b.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"1 image cannot be read: 'masks/b.png'"):
        load_pairs(tmp_path)
    table = load_pairs(tmp_path, skip_broken=True)
    assert table.names == ["images/a.png", "images/c.png"]
    assert table.notes == ("1 file left out because they cannot be read: 'masks/b.png'.",)


def test_options_that_cannot_be(tmp_path: Path) -> None:
    for options, message in (
        ({"void": 70000}, "void=70000: expected a number of 0 to 65535"),
        ({"channels": 2}, "channels=2: expected 1"),
        ({"resize": (4, 0)}, r"resize=\(4, 0\): expected the long side in pixels, or \(width, height\)"),
        ({"layout": "vok"}, "layout='vok'.*Did you mean 'voc'"),
        ({"masks": Path("a"), "csv": Path("b")}, "masks and csv were both given"),
    ):
        with pytest.raises(UsageError, match=message):
            load_pairs(tmp_path, **options)

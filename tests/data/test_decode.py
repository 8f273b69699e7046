"""Every kind of image file, good and bad, as the store gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.data.decode import BrokenImage, Item, decode, digest, read_header
from sfumato.data.images import ImageStore
from sfumato.errors import DataError
from tests.data.pictures import encoded, picture, write


def test_an_image_of_the_wanted_size_is_passed_on_untouched() -> None:
    image = picture(0, (16, 16))
    assert np.array_equal(decode(encoded(image), 16, 3), np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(60, 20), (20, 60)])
def test_shorter_side_is_resized_and_the_centre_cropped(size: tuple[int, int]) -> None:
    image = picture(0, size)
    left, top = (size[0] // 2 - 10) // 2, (size[1] // 2 - 10) // 2
    whole = image.resize((size[0] // 2, size[1] // 2), Image.Resampling.BICUBIC)
    expected = np.asarray(whole.crop((left, top, left + 10, top + 10)))
    assert np.array_equal(decode(encoded(image), 10, 3), expected.transpose(2, 0, 1))


def test_downsizing_averages_instead_of_picking_pixels() -> None:
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert abs(decode(stripes, 8, 1).astype(int) - 127).max() <= 5


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    image = picture(1, (8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise to be upright
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(np.asarray(image), k=-1)
    assert np.array_equal(decode(tmp_path / "turned.png", 8, 3), upright.transpose(2, 0, 1))


def test_exif_orientation_swaps_the_sides_in_the_header(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    picture(1, (12, 10)).save(tmp_path / "turned.jpg", exif=exif)
    header = read_header(tmp_path / "turned.jpg")
    assert (header.width, header.height) == (10, 12)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK")
    red.save(tmp_path / "print.jpg", quality=95)
    pixels = decode(tmp_path / "print.jpg", 8, 3)
    assert read_header(tmp_path / "print.jpg").mode == "CMYK"
    assert pixels[0].min() > 240
    assert pixels[1:].max() < 15


def test_alpha_is_composited_on_white() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 8, 4))
    pixels = decode(encoded(image), 8, 3)
    assert pixels[:, 0, 0].tolist() == [0, 0, 255]
    assert pixels[:, 7, 0].tolist() == [255, 255, 255]


def test_grey_with_alpha_is_composited_on_white() -> None:
    assert decode(encoded(Image.new("LA", (8, 8), (0, 0))), 8, 1).min() == 255


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(encoded(image), 8, 3)[:, 0, 0].tolist() == [10, 20, 30]
    image.info["transparency"] = 1
    assert decode(encoded(image), 8, 3)[:, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (257 * 100, 100), (257 * 100 + 129, 101)])
def test_16_bit_grey_is_scaled_not_clipped(value: int, expected: int, tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((8, 8), value, dtype=np.uint16))
    for name in ("deep.png", "deep.tif"):
        deep.save(tmp_path / name)
        assert read_header(tmp_path / name).grey
        assert (decode(tmp_path / name, 8, 1) == expected).all()
        assert (decode(tmp_path / name, 8, 3) == expected).all()


def test_float_grey_is_read_as_0_to_1(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / "float.tif")
    assert (decode(tmp_path / "float.tif", 8, 1) == 128).all()


def test_grey_becomes_three_equal_channels() -> None:
    grey = picture(2, (8, 8)).convert("L")
    pixels = decode(encoded(grey), 8, 3)
    assert np.array_equal(pixels, np.stack([np.asarray(grey)] * 3))


def test_one_bit_images_are_black_and_white() -> None:
    image = Image.new("1", (8, 8), 1)
    assert (decode(encoded(image), 8, 3) == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animated_first_frame(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    path = tmp_path / f"moving.{kind.lower()}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert read_header(path).animated
    assert decode(path, 8, 3).min() > 250


def test_a_still_image_is_not_animated() -> None:
    assert not read_header(encoded(picture(0), "GIF")).animated


def test_a_photo_with_a_preview_is_not_animated(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[picture(1)])
    assert not read_header(tmp_path / "phone.jpg").animated
    assert decode(tmp_path / "phone.jpg", 8, 3).shape == (3, 8, 8)


def broken_files(folder: Path) -> dict[str, Path]:
    whole = {"jpg": encoded(picture(3, (64, 64)), "JPEG"), "png": encoded(picture(3, (64, 64)))}
    flipped = bytearray(whole["png"])
    flipped[len(flipped) // 2] ^= 255
    contents = {
        "empty.jpg": b"",
        "text.png": b"this is not an image at all",
        "cut.jpg": whole["jpg"][: len(whole["jpg"]) // 2],
        "cut.png": whole["png"][: len(whole["png"]) // 2],
        "flipped.png": bytes(flipped),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents} | {"gone.jpg": folder / "gone.jpg"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.jpg", "empty, 0 bytes"),
        ("text.png", "not an image of a known format"),
        ("cut.jpg", "truncated"),
        ("cut.png", "truncated"),
        ("flipped.png", "corrupt: "),
        ("gone.jpg", "no such file"),
    ],
)
def test_broken_images_say_why(name: str, reason: str, tmp_path: Path) -> None:
    path = broken_files(tmp_path)[name]
    with pytest.raises(BrokenImage, match=reason):
        decode(path, 8, 3)
    with pytest.raises(BrokenImage, match=reason):
        digest(path)


@pytest.mark.parametrize("name", ["empty.jpg", "text.png", "cut.jpg", "cut.png", "gone.jpg"])
def test_most_broken_images_are_found_by_a_look_at_the_header(name: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenImage):
        read_header(broken_files(tmp_path)[name])


def test_bytes_are_treated_as_files_are(tmp_path: Path) -> None:
    for path in broken_files(tmp_path).values():
        if path.exists():
            with pytest.raises(BrokenImage):
                decode(path.read_bytes(), 8, 3)


def test_digest_is_of_pixels_not_of_files(tmp_path: Path) -> None:
    image = picture(4)
    bitmap = write(tmp_path / "a.bmp", image)
    same: list[Item] = [encoded(image), encoded(image, "TIFF"), np.asarray(image), bitmap]
    assert len({digest(item) for item in same}) == 1
    assert digest(encoded(picture(5))) != digest(same[0])
    assert digest(np.zeros((2, 8, 3), np.uint8)) != digest(np.zeros((8, 2, 3), np.uint8))


def store_of(items: list[Item], keep_limit: int = 1 << 30, channels: int = 3) -> ImageStore:
    names = [f"{row}.png" for row in range(len(items))]
    return ImageStore(items, names, image_size=8, channels=channels, keep_limit=keep_limit)


def test_store_gives_the_same_bits_whether_kept_or_decoded_anew() -> None:
    items: list[Item] = [encoded(picture(row, (30, 20)), "JPEG") for row in range(40)]
    kept, anew = store_of(items), store_of(items, keep_limit=0)
    rows = np.array([3, 39, 3, 0])
    first = kept.load(rows)
    assert first.shape == (4, 3, 8, 8)
    assert first.dtype.is_floating_point is False
    for again in (kept.load(rows), anew.load(rows), anew.load(rows)):
        assert again.equal(first)
    assert anew.load(range(40)).equal(kept.load(range(40)))
    assert kept.load([]).shape == (0, 3, 8, 8)
    assert anew.load([]).shape == (0, 3, 8, 8)


def test_store_keeps_what_fits(tmp_path: Path) -> None:
    paths: list[Item] = [write(tmp_path / f"{row}.png", picture(row)) for row in range(2)]
    kept, anew = store_of(paths, keep_limit=2 * 3 * 64), store_of(paths, keep_limit=2 * 3 * 64 - 1)
    before = kept.load([0, 1])
    anew.load([0, 1])
    for path in tmp_path.iterdir():
        path.unlink()
    assert kept.load([0, 1]).equal(before)
    with pytest.raises(DataError, match=r"2 images cannot be read: '0.png' \(no such file\), '1.png' \(no such file\)"):
        anew.load([0, 1])


def test_what_is_loaded_is_a_copy() -> None:
    store = store_of([encoded(picture(0))])
    store.load([0]).zero_()
    assert store.load([0]).any()


def test_store_names_the_first_three_broken_images_and_counts_the_rest() -> None:
    store = store_of([encoded(picture(0)), *[b""] * 5])
    expected = (
        r"5 images cannot be read: '1.png' \(empty, 0 bytes\), '2.png' \(empty, 0 bytes\), '3.png' \(empty, 0 bytes\) "
        r"and 2 more. Replace or delete them, or leave them out with skip_broken=true "
    )
    with pytest.raises(DataError, match=expected):
        store.load(range(6))
    with pytest.raises(DataError, match="5 images cannot be read"):
        store.digests(range(6))
    assert store.load([0]).shape == (1, 3, 8, 8)


def test_array_store_needs_no_decoding() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    store = ImageStore(grey, list("abcde"), image_size=8, channels=1, keep_limit=0)
    assert np.array_equal(store.load([4, 1]).numpy(), grey[[4, 1], None])
    as_colour = ImageStore(grey, list("abcde"), image_size=8, channels=3)
    assert np.array_equal(as_colour.load([2]).numpy()[0], np.stack([grey[2]] * 3))

"""Masks that a network has left on the disk: the same crops as those of the table, and what can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data.pairs import PairTable, pairs_from_arrays
from sfumato.data.pairs.stored import StoredMasks, mask_names
from sfumato.errors import DataError
from sfumato.types import VOID
from sfumato.views import DenseAugment

SIZES = [(30, 20), (41, 17), (9, 12), (30, 20)]  # width, height
CLASSES = 4


def table() -> PairTable:
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (height, width, 3)).astype(np.uint8) for width, height in SIZES]
    masks = [draw.integers(0, CLASSES, (height, width)).astype(np.uint8) for width, height in SIZES]
    masks[1][:5] = VOID
    return pairs_from_arrays(images, masks, classes=["a", "b", "c", "d"])


def stored(folder: Path, known: PairTable, **options: int) -> StoredMasks:
    files = {row: folder / f"{row}.png" for row in range(len(known))}
    for row, path in files.items():
        if not path.exists():
            Image.fromarray(known.images.mask(row).numpy()).save(path)
    return StoredMasks(files, known.images, CLASSES, mend="Mend it.", **options)


@pytest.mark.parametrize("keep_limit", [0, 1 << 20])
def test_crops_are_those_of_the_same_masks_in_the_table(tmp_path: Path, keep_limit: int) -> None:
    known = table()
    given = stored(tmp_path, known, keep_limit=keep_limit)
    augment = DenseAugment("unimatch", seed=0, crop=(16, 24), mean=(0.5,) * 3, std=(0.5,) * 3)
    for step in range(4):
        rows, slots = np.array([2, 0, 1, 3, 1]), np.arange(5)
        windows = augment.windows(known.images.sizes(rows), step=step, slots=slots, purpose="weak")
        wanted = known.images.crops(rows, windows, (16, 24), masks=True)
        found = given.crops(rows, windows, (16, 24))
        assert torch.equal(found, wanted.masks)
        assert (found[wanted.inside == 0] == VOID).all()
        assert found.unique().tolist() == [0, 1, 2, 3, VOID]


def bad(folder: Path, picture: Image.Image | bytes | None) -> str:
    """The message about row 2 when its file is this one."""
    known, path = table(), folder / "2.png"
    path.unlink(missing_ok=True)
    stored(folder, known)
    path.unlink()
    if isinstance(picture, Image.Image):
        picture.save(path)
    elif picture is not None:
        path.write_bytes(picture)
    files = {row: folder / f"{row}.png" for row in range(len(known))}
    augment = DenseAugment("unimatch", seed=0, crop=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    windows = augment.windows(known.images.sizes([2]), step=0, slots=np.arange(1), purpose="weak")
    with pytest.raises(DataError) as caught:
        StoredMasks(files, known.images, CLASSES, mend="Mend it.").crops([2], windows, (8, 8))
    return str(caught.value).replace(str(folder), "FOLDER")


def test_what_is_wrong_is_told_with_the_file(tmp_path: Path) -> None:
    assert bad(tmp_path, None) == "FOLDER/2.png: no such file. Mend it."
    assert bad(tmp_path, Image.new("L", (12, 9))) == ("FOLDER/2.png: 12x9 pixels; its image is read at 9x12. Mend it.")
    strange = "FOLDER/2.png: it holds other numbers than 0..3 and 255. Mend it."
    assert bad(tmp_path, Image.new("L", (9, 12), 4)) == strange
    assert bad(tmp_path, Image.new("RGB", (9, 12), (9, 9, 9))) == strange
    told = bad(tmp_path, b"no picture")
    assert told.startswith("FOLDER/2.png: not readable (")
    assert told.endswith("Mend it.")


def test_a_missing_file_is_found_before_training(tmp_path: Path) -> None:
    known = table()
    with pytest.raises(DataError, match=r"7\.png: no such file"):
        StoredMasks({0: tmp_path / "7.png"}, known.images, CLASSES, mend="")


def test_names_of_masks() -> None:
    assert mask_names(["a/1.jpg", "b.tar.png", "shapes/0001"]) == ["a/1.png", "b.tar.png", "shapes/0001.png"]
    assert mask_names(["cat.jpg", "Cat.png"]) == ["cat.jpg.png", "Cat.png.png"]
    assert mask_names(["frame.0001", "frame.0002"]) == ["frame.0001.png", "frame.0002.png"]
    assert mask_names(["/data/x.jpg", "../up/y.jpg"]) == ["data/x.png", "up/y.png"]
    assert mask_names(["x.jpg", "../x.jpg"]) == ["000000.png", "000001.png"]

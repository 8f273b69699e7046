"""Where images and masks may lie, beyond two folders side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.data.pairs import PairTable, load_pairs
from tests.data.pairs.fakes import write_pair, write_plain
from tests.data.pictures import picture, write


def held(table: PairTable) -> dict[str, str]:
    """What each image is: with a mask that may be a label, with one that is only the truth, or without."""
    kinds = zip(table.names, table.known.tolist(), table.may_label.tolist(), strict=True)
    return {name: ("mask" if known else "none") + ("" if may else ", pool") for name, known, may in kinds}


def test_unlabeled_images_beside_images_and_masks(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1], "b": None})
    write(tmp_path / "unlabeled" / "a.png", picture(7))  # of the same name as one with a mask
    found = held(load_pairs(tmp_path))
    assert found == {"images/a.png": "mask", "images/b.png": "none", "unlabeled/a.png": "none, pool"}


@pytest.mark.parametrize("given", [True, False])
def test_masks_in_a_folder_among_the_images(tmp_path: Path, given: bool) -> None:
    write_pair(tmp_path / "a.png", tmp_path / "masks" / "a.png", [0, 1], 0)
    write(tmp_path / "b.png", picture(1))
    write(tmp_path / "unlabeled" / "c.png", picture(2))
    table = load_pairs(tmp_path, masks=tmp_path / "masks" if given else None)
    assert held(table) == {"a.png": "mask", "b.png": "none", "unlabeled/c.png": "none, pool"}


def test_masks_are_no_images_where_their_folder_is_named(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1], "b": None})
    table = load_pairs(tmp_path, masks=tmp_path / "masks")
    assert held(table) == {"images/a.png": "mask", "images/b.png": "none"}


def test_masks_beside_their_images_in_one_folder(tmp_path: Path) -> None:
    for seed, stem in enumerate("ab"):
        write_pair(tmp_path / f"{stem}.png", tmp_path / f"{stem}_mask.png", [0, 1], seed)
    write(tmp_path / "c.png", picture(7))
    table = load_pairs(tmp_path, masks=tmp_path)
    assert held(table) == {"a.png": "mask", "b.png": "mask", "c.png": "none"}


def test_pairs_in_a_table_called_labels(tmp_path: Path) -> None:
    write_pair(tmp_path / "x" / "a.png", tmp_path / "y" / "a.png", [0, 1], 0)
    write(tmp_path / "x" / "b.png", picture(1))
    (tmp_path / "labels.csv").write_text("image,mask\nx/a.png,y/a.png\nx/b.png,\n")
    assert held(load_pairs(tmp_path)) == {"x/a.png": "mask", "x/b.png": "none"}

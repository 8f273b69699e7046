"""Class tables in every form, and their mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfumato.data.pairs import palette
from sfumato.data.pairs.classes import CAMVID, CITYSCAPES, VOC, read_classes
from sfumato.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "sea\nthe land\n\n"),
        ("classes.txt", "\ufeffsea\r\nthe land"),
        ("classes.csv", "name\nsea\nthe land\n"),
        ("classes.json", '["sea", "the land"]'),
    ],
)
def test_names(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    table = read_classes(tmp_path / name)
    assert table.names == ["sea", "the land"]
    assert not table.coded
    assert np.array_equal(table.colors, palette(2))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "sea,0,0,200\nland, 9, 8, 7\nvoid,1,1,1\n"),
        ("classes.csv", "name,r,g,b\nsea,0,0,200\nland,9,8,7\nignore,1,1,1\n"),
        ("classes.json", '{"sea": [0, 0, 200], "land": [9, 8, 7], "void": [1, 1, 1]}'),
    ],
)
def test_colors(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    table = read_classes(tmp_path / name)
    assert table.names == ["sea", "land"]
    assert table.coded
    assert table.colors.tolist() == [[0, 0, 200], [9, 8, 7]]
    assert table.void_colors == ((1, 1, 1),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no class"),
        ("sea,1,2\n", "line 1 has 3 cells"),
        ("sea,1,2,300\n", r"line 1 has the colour \['1', '2', '300'\]. Expected three whole numbers of 0 to 255"),
        ("sea\nland\nsea\n", "the name 'sea' occurs more than once"),
        ("sea,1,2,3\nland,1,2,3\n", r"the colour '\(1, 2, 3\)' occurs more than once"),
        ("sea,1,2,3\nland\n", "no colour for 'land'. Give every class one, or none"),
        ("\n".join(f"c{number}" for number in range(256)), "256 classes. At most 255 are possible"),
    ],
)
def test_mistakes(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path / "classes.txt")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "clases.txt").write_text("sea\n")
    with pytest.raises(DataError, match=r"classes.txt: no such file of classes. Did you mean 'clases.txt'"):
        read_classes(tmp_path / "classes.txt")


def test_names_given_twice_are_a_mistake_of_usage() -> None:
    with pytest.raises(UsageError, match="classes: the name 'sea' occurs more than once"):
        read_classes(["sea", "sea"])


def test_colors_of_the_palette_are_distinct() -> None:
    colors = palette(256)
    assert len(np.unique(colors, axis=0)) == 256
    assert colors[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]  # as in the PASCAL VOC masks
    assert colors[20].tolist() == [0, 64, 128]


@pytest.mark.parametrize(("table", "count"), [(VOC, 21), (CITYSCAPES, 19), (CAMVID, 11)])
def test_known_tables(table: object, count: int) -> None:
    assert len(table.names) == len(set(table.names)) == count
    assert len(np.unique(table.colors, axis=0)) == count

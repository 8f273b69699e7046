"""Protocols on tiny fakes of each layout: what passes, what is refused, and by which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.data.pairs import PROTOCOLS, check_pairs, draw_pair_splits, list_hash, load_pairs
from sfumato.errors import DataError, UsageError
from tests.data.pairs.protocols_on_disk import LAYOUTS, SIZE, fake, make_tiny
from tests.data.pictures import picture, write


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(monkeypatch)


def mend_of(name: str) -> str:
    return (
        f"Take the published lists (lists=FOLDER), or leave out protocol={name}; "
        f"protocol=none recipe={name} keeps its settings."
    )


def refused(root: Path, message: str, **options: Any) -> None:
    """By loading, and by the check, which says the same."""
    with pytest.raises(DataError) as error:
        load_pairs(root, **options)
    assert str(error.value) == message
    report = check_pairs(root, **{key: value for key, value in options.items() if key != "resize"})
    assert not report.ok
    assert [problem.message for problem in report.problems if problem.severity == "error"] == message.split("\n")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_images_of_a_protocol(name: str, tmp_path: Path) -> None:
    lists, options = fake(tmp_path, name), LAYOUTS[name].options
    table = load_pairs(tmp_path, lists=lists, protocol=name, **options)
    variant = ", classic" if name == "voc" else ""
    note = (
        f"{PROTOCOLS[name].title}{variant}: 3 of 7 images labelled, list labeled.txt with hash "
        f"{list_hash(lists / 'labeled.txt')} (the file lacks a final newline, so that `wc -l` says one less)."
    )
    assert table.notes[-1] == note
    report = check_pairs(tmp_path, lists=lists, protocol=name, **options)
    assert report.ok
    assert note in [problem.message for problem in report.problems if problem.severity == "note"]
    splits = draw_pair_splits(table, test=0, include_labeled=False)
    assert [len(part) for part in (splits.labeled, splits.unlabeled, splits.val, splits.test)] == [3, 4, 2, 0]
    assert splits.lists == report.lists
    assert {part: digest[:12] for part, digest in splits.lists.items()} == {
        part: list_hash(lists / f"{part}.txt") for part in ("labeled", "unlabeled", "val")
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_line_too_few(name: str, tmp_path: Path) -> None:
    lists, title = fake(tmp_path, name, labeled=2), PROTOCOLS[name].title
    sizes = "3 (classic); 5 (blended or U2PL's)" if name == "voc" else "3"
    mend = mend_of(name)
    refused(
        tmp_path,
        f"{lists}/labeled.txt and {lists}/unlabeled.txt: 6 labelled and unlabelled images, expected 7 of {title}. "
        f"{mend}\n"
        f"{lists}/labeled.txt: 2 labelled images, expected one of {sizes}. {mend}",
        lists=lists,
        protocol=name,
        **LAYOUTS[name].options,
    )


def test_one_validation_image(tmp_path: Path) -> None:
    lists = fake(tmp_path, "voc", val=1)
    mend = mend_of("voc")
    refused(
        tmp_path,
        f"{lists}/val.txt: 1 validation image, expected 2 of PASCAL VOC. {mend}",
        lists=lists,
        protocol="voc",
    )
    (lists / "val.txt").unlink()
    message = f"no {lists}/val.txt: 0 validation images, expected 2 of PASCAL VOC. {mend}"
    refused(tmp_path, message, lists=lists, protocol="voc")


def test_a_list_of_unlabeled_images_that_is_not_there(tmp_path: Path) -> None:
    lists = fake(tmp_path, "coco", unlabeled=0)
    refused(
        tmp_path,
        f"{lists}/labeled.txt and no {lists}/unlabeled.txt: 3 labelled and unlabelled images, expected 7 of COCO. Take "
        "the published lists (lists=FOLDER), or leave out protocol=coco; protocol=none recipe=coco keeps its settings.",
        lists=lists,
        protocol="coco",
    )


def test_other_classes(tmp_path: Path) -> None:
    lists = fake(tmp_path, "coco")
    refused(
        tmp_path,
        f"{tmp_path}: 81 classes, expected the 150 of ADE20K. Name them (classes=FILE), say which number is void "
        "(void=…), or translate the numbers of the masks (mapping=…).",
        lists=lists,
        protocol="ade20k",
    )


def test_an_unknown_protocol(tmp_path: Path) -> None:
    lists = fake(tmp_path, "voc")
    with pytest.raises(UsageError, match=r"one of ade20k, camvid, cityscapes, coco, voc\. Did you mean 'voc'"):
        load_pairs(tmp_path, lists=lists, protocol="vocs")


@pytest.mark.parametrize(
    ("clean", "told"),
    [
        (["0000", "0009"], ", blended (1 of the labels are the challenge's own)"),
        ([f"{k:04d}" for k in range(7)], ", U2PL's (5 of the labels are the challenge's own)"),
        (["0000", "0001"], ", U2PL's (2 of the labels are the challenge's own)"),  # longer than there are clean masks
        (None, ", blended or U2PL's"),
    ],
)
def test_the_two_kinds_of_lists_of_one_length(clean: list[str] | None, told: str, tmp_path: Path) -> None:
    lists = fake(tmp_path, "voc", labeled=5, unlabeled=2)
    if clean is not None:
        (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(clean))
    table = load_pairs(tmp_path, lists=lists, protocol="voc")
    assert table.notes[-1].startswith(f"PASCAL VOC{told}: 5 of 7 images labelled, list labeled.txt with hash ")


def test_a_line_that_stands_there_twice(tmp_path: Path) -> None:
    lists = fake(tmp_path, "voc")
    lines = (lists / "labeled.txt").read_text().splitlines()
    (lists / "labeled.txt").write_text("\n".join([*lines[:2], lines[0]]))
    again = f"{lists}/labeled.txt: line 3: 'JPEGImages/0000.jpg' stands in line 1 already and counts once."
    report = check_pairs(tmp_path, lists=lists, protocol="voc")
    assert again in [problem.message for problem in report.problems if problem.severity == "warning"]
    errors = [problem.message for problem in report.problems if problem.severity == "error"]
    assert any("2 labelled images, expected one of 3 (classic)" in error for error in errors)


# without lists of labelled images


def camvid(root: Path, train: int = 7) -> Path:
    stems = [f"0001TP_{k:06d}" for k in range(train + 3)]
    numbers = np.resize(np.arange(12, dtype=np.uint8), SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0])
    for k, stem in enumerate(stems):
        write(root / "images" / f"{stem}.jpg", picture(k, SIZE))
        write(root / "masks" / f"{stem}.png", Image.fromarray(numbers))
    for part, inside in (("train", stems[:train]), ("val", stems[train:-1]), ("test", stems[-1:])):
        (root / f"{part}.txt").write_text("\n".join(inside) + "\n")
    return root


def test_camvid(tmp_path: Path) -> None:
    table = load_pairs(camvid(tmp_path), void=11, protocol="camvid")
    assert len(table.classes) == 11
    hashes = ", ".join(f"{part} {list_hash(tmp_path / f'{part}.txt')}" for part in ("train", "val", "test"))
    assert table.notes[-1] == (
        "CamVid: 7 of 7 training images have a mask, and no list says which of them are labels. Labels that are drawn "
        "from them compare with runs of the same splits only, not with published figures. "
        f"Hashes of the lists: {hashes}."
    )
    assert set(draw_pair_splits(table, labels=3).lists) == {"train", "val", "test"}


def test_camvid_of_another_length(tmp_path: Path) -> None:
    mend = mend_of("camvid")
    refused(
        camvid(tmp_path, train=5),
        f"{tmp_path}/train.txt: 5 labelled and unlabelled images, expected 7 of CamVid. {mend}",
        void=11,
        protocol="camvid",
    )


def test_voc_by_its_own_lists(tmp_path: Path) -> None:
    fake(tmp_path, "voc")
    sets = tmp_path / "ImageSets" / "Segmentation"
    sets.mkdir(parents=True)
    for name, rows in (("train", range(3)), ("trainaug", range(7)), ("val", range(7, 9))):
        (sets / f"{name}.txt").write_text("".join(f"{k:04d}\n" for k in rows))
    table = load_pairs(tmp_path, layout="voc", protocol="voc")
    assert "7 of 7 training images have a mask, and no list says which of them are labels" in table.notes[-1]
    (sets / "trainaug.txt").unlink()
    assert load_pairs(tmp_path, layout="voc").lists[0].part == "train"

"""Every layout becomes the same table; every mistake in one gets its message."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sfumato.data.pairs import PairTable, draw_pair_splits, list_hash, load_pairs
from sfumato.data.pairs.sources import coco
from sfumato.errors import DataError, UsageError
from tests.data.pairs.fakes import SIZE, mask_of, write_pair, write_plain
from tests.data.pictures import picture, write


def splits_of(table: PairTable) -> dict[str, str]:
    """Name -> split, with a star where there is a mask and in brackets where it may not be a label."""
    return {
        name: f"{split or '-'}{'*' if known else ''}{'' if may else ' (truth)'}"
        for name, split, known, may in zip(table.names, table.split, table.known, table.may_label, strict=True)
    }


def values_of(table: PairTable, name: str) -> list[int]:
    return sorted(table.images.mask(table.names.index(name)).unique().tolist())


def refuse(message: str, source: Path, **options: Any) -> None:
    with pytest.raises(DataError) as error:
        load_pairs(source, **options)
    assert str(error.value) == message.replace("ROOT", str(source))


# images/ and masks/ -------------------------------------------------------------------------------------------------


def test_images_and_masks_by_stem(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1], "b": [0, 255], "c": None})
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "b.bmp")
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a_mask.png")
    table = load_pairs(tmp_path)
    assert splits_of(table) == {"images/a.png": "-*", "images/b.bmp": "-*", "images/c.png": "-"}
    assert table.classes == ["class 0", "class 1"]
    assert repr(table) == f"PairTable({str(tmp_path)!r}: 3 images, 2 with a mask, 2 classes)"
    assert table.layout == "images and masks by stem"


def test_split_folders_below_images(tmp_path: Path) -> None:
    stems = {"train/a": [0, 1], "train/b": None, "valid/a": [0, 1], "test/a": [1], "unlabeled/a": [1], "more/x": [0]}
    assert splits_of(load_pairs(write_plain(tmp_path, stems))) == {
        "images/train/a.png": "train*",
        "images/train/b.png": "train",
        "images/valid/a.png": "val*",
        "images/test/a.png": "test*",
        "images/unlabeled/a.png": "-* (truth)",
        "images/more/x.png": "-*",
    }


def test_split_folders_above_images(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_plain(tmp_path / part, {"a": [0, 1]})
    write(tmp_path / "unlabeled" / "images" / "b.png", picture(7))
    assert splits_of(load_pairs(tmp_path)) == {
        "train/images/a.png": "train*",
        "unlabeled/images/b.png": "- (truth)",
        "val/images/a.png": "val*",
    }


def test_masks_in_another_folder_and_flat(tmp_path: Path) -> None:
    for seed, stem in enumerate(("x/a", "x/b", "y/b")):
        write_pair(tmp_path / "scans" / f"{stem}.png", None, [], seed)
    for stem in ("a", "b"):
        write(tmp_path / "drawn" / f"{stem}.png", mask_of([0, 1]))
    table = load_pairs(tmp_path / "scans", masks=tmp_path / "drawn")
    assert splits_of(table) == {"x/a.png": "-*", "x/b.png": "-", "y/b.png": "-"}  # b could be either
    refuse(
        f"{tmp_path / 'drwn'}: no such folder of masks. Did you mean 'drawn'?",
        tmp_path / "scans",
        masks=tmp_path / "drwn",
    )


def test_masks_without_an_image_are_noted(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1]})
    write(tmp_path / "masks" / "z.png", mask_of([0]))
    assert load_pairs(tmp_path).notes == (f"{tmp_path}: 1 mask without an image: 'masks/z.png'.",)


def test_stems_that_do_not_match(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1]})
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a-seg.png")
    refuse(
        f"{tmp_path / 'masks'}: no mask has the stem of an image: the first mask is 'a-seg', the first image 'a'. "
        "Rename them, or give a CSV with the columns image,mask.",
        tmp_path,
    )
    (tmp_path / "masks" / "a-seg.png").unlink()
    refuse(f"{tmp_path / 'masks'}: no mask in it. Expected one PNG for each labelled image.", tmp_path)


def test_two_images_of_one_stem(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1]})
    write(tmp_path / "images" / "a.jpg", picture(1, SIZE))
    refuse(
        "ROOT: 'images/a.jpg', 'images/a.png' have the same stem, so it is not clear which one is meant. Keep one of "
        "them.",
        tmp_path,
    )


def test_a_class_table_in_the_folder(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1]})
    (tmp_path / "classes.txt").write_text("sea\nland\nsky\n")
    assert load_pairs(tmp_path).classes == ["sea", "land", "sky"]
    assert load_pairs(tmp_path, classes=["dog", "cat"]).classes == ["dog", "cat"]


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image-mask pairs were recognized. Expected images/ and masks/"):
        load_pairs(tmp_path)
    with pytest.raises(DataError, match=r"shape: no such file or folder.*Did you mean 'shapes'"):
        load_pairs("shape")
    (tmp_path / "a.zip").write_text("")
    with pytest.raises(DataError, match=r"a.zip: a file of this kind holds no image-mask pairs"):
        load_pairs(tmp_path / "a.zip")


# lists of stems, CamVid ---------------------------------------------------------------------------------------------


def test_lists_of_stems(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1], "b": [0, 1], "c": [0, 1], "d": [0, 1]})
    (tmp_path / "train.txt").write_text("a\nb.png\n")
    (tmp_path / "val.txt").write_text("\nimages/c")
    table = load_pairs(tmp_path)
    assert splits_of(table) == {
        "images/a.png": "train*",
        "images/b.png": "train*",
        "images/c.png": "val*",
        "images/d.png": "-* (truth)",
    }
    assert table.notes == (f"{tmp_path}: 1 image in no list: taken as unlabelled.",)
    assert draw_pair_splits(table, test=0).labeled.tolist() == [0, 1]
    (tmp_path / "val.txt").write_text("c\na\ne\n")
    with pytest.raises(DataError) as error:
        load_pairs(tmp_path)
    assert str(error.value).splitlines() == [
        f"{tmp_path / 'val.txt'}: 1 name without an image: 'e'.",
        f"{tmp_path / 'val.txt'}: 'images/a.png' is also in train.txt.",
    ]


def test_camvid_is_recognized_by_its_drives(tmp_path: Path) -> None:
    write_plain(tmp_path, {"0001TP_006690": [0, 10, 255], "Seq05VD_f00000": [3]})
    (tmp_path / "train.txt").write_text("0001TP_006690\n")
    (tmp_path / "test.txt").write_text("Seq05VD_f00000\n")
    table = load_pairs(tmp_path)
    assert table.layout == "CamVid"
    assert table.classes[::10] == ["sky", "bicyclist"]


def test_camvid_itself(shared: Path) -> None:
    if not (shared / "data" / "camvid").is_dir():
        pytest.skip("needs ../shared/data/camvid")
    table = load_pairs(shared / "data" / "camvid", resize=(160, 120), protocol="camvid")
    assert {part: int((table.split == part).sum()) for part in ("train", "val", "test")} == {
        "train": 367,
        "val": 101,
        "test": 233,
    }
    assert len(table.classes) == 11
    assert table.known.all()
    assert table.images.sizes([0, 700]).tolist() == [[160, 120]] * 2
    shares = table.counts.sum(axis=0) / table.counts.sum()
    assert 0.02 < shares[-1] < 0.06  # void
    assert all(0.002 < shares[label] < 0.016 for label in (2, 6, 7, 9, 10))
    splits = draw_pair_splits(table, labels=23)
    assert (len(splits.labeled), len(splits.val), len(splits.test), len(splits.unlabeled)) == (23, 101, 233, 367)
    assert (table.counts[splits.labeled, :-1].sum(axis=0) > 0).all()


# CSV ----------------------------------------------------------------------------------------------------------------


def write_csv(root: Path, lines: Sequence[str], name: str = "pairs.csv") -> Path:
    (root / name).write_text("\n".join(lines))
    return root / name


def test_csv_with_spaces_splits_and_empty_masks(tmp_path: Path) -> None:
    for seed, stem in enumerate("abcd"):
        write_pair(tmp_path / "my pictures" / f"{stem}.png", tmp_path / "drawn" / f"{stem}.png", [0, 1], seed)
    write_csv(
        tmp_path,
        [
            "Image;Mask;Split",
            "my pictures/a.png;drawn/a.png;train",
            "my pictures\\b.png;drawn\\b.png;validation",
            "my pictures/c.png;;",
            "my pictures/d.png;drawn/d.png;unlabeled",
        ],
    )
    for source in (tmp_path, tmp_path / "pairs.csv"):
        table = load_pairs(source)
        assert splits_of(table) == {
            "my pictures/a.png": "train*",
            "my pictures/b.png": "val*",
            "my pictures/c.png": "-",
            "my pictures/d.png": "-* (truth)",
        }
    assert table.layout == "pairs of pairs.csv"


def test_csv_elsewhere(tmp_path: Path) -> None:
    write_pair(tmp_path / "data" / "a.png", tmp_path / "data" / "a_m.png", [0, 1], 0)
    path = write_csv(tmp_path, ["image,mask", "a.png,a_m.png"], "mine.csv")
    assert load_pairs(tmp_path / "data", csv=path).names == ["a.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["image,masks", "a.png,"],
            "CSV: no column 'mask' (its first line has: image, masks). Expected the header image,mask or "
            "image,mask,split. Did you mean 'masks'?",
        ),
        (["image,mask"], "CSV: no row. Expected the header image,mask or image,mask,split."),
        (
            ["image,mask", "b.png,", "a.png,c.png"],
            "CSV: 1 image named in it cannot be found in ROOT: 'b.png' (row 2). Names are relative to ROOT. Did you "
            "mean 'a.png'?\nCSV: 1 mask named in it cannot be found in ROOT: 'c.png' (row 3). Names are relative to "
            "ROOT. Did you mean 'a.png'?",
        ),
        (
            ["image,mask,split", "a.png,,trian"],
            "CSV: row 2 has the split 'trian'. Expected train, val, test, unlabeled or nothing. Did you mean 'train'?",
        ),
        (
            ["image,mask,split", "a.png,,train", "a.png,,val"],
            "CSV: rows 2 and 3 disagree on 'a.png'. Keep one of the rows.",
        ),
        (["image,mask", ",a.png"], "CSV: row 2 names no image. Expected image,mask; only the mask may be empty."),
    ],
)
def test_mistakes_in_a_csv(lines: list[str], message: str, tmp_path: Path) -> None:
    write(tmp_path / "a.png", mask_of([0, 1]))
    path = write_csv(tmp_path, lines)
    refuse(message.replace("CSV", str(path)), tmp_path, csv=path)


# lists of pairs -----------------------------------------------------------------------------------------------------


def write_lists(root: Path, lists: dict[str, str]) -> Path:
    for seed, stem in enumerate("abcd"):
        write_pair(root / "JPEGImages" / f"{stem}.jpg", root / "SegmentationClass" / f"{stem}.png", [0, 20, 255], seed)
    for name, text in lists.items():
        path = root / "lists" / "92" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "lists" / "92"


def line(stem: str) -> str:
    return f"JPEGImages/{stem}.jpg SegmentationClass/{stem}.png"


def test_lists_of_labeled_and_unlabeled_pairs(tmp_path: Path) -> None:
    lists = write_lists(
        tmp_path,
        {
            "labeled.txt": line("a"),  # no final newline
            "unlabeled.txt": f"{line('b')}\r\nJPEGImages/d.jpg\r\n",
            "../val.txt": f"{line('c')}\n",
        },
    )
    table = load_pairs(tmp_path, lists=lists)
    assert splits_of(table) == {
        "JPEGImages/a.jpg": "train*",
        "JPEGImages/b.jpg": "train* (truth)",
        "JPEGImages/c.jpg": "val*",
        "JPEGImages/d.jpg": "train (truth)",
    }
    assert table.classes[20] == "tvmonitor"
    assert table.notes == (
        f"labeled.txt: 1 line, hash {list_hash(lists / 'labeled.txt')}.",
        f"val.txt: 1 line, hash {list_hash(tmp_path / 'lists' / 'val.txt')}.",
        f"unlabeled.txt: 2 lines, hash {list_hash(lists / 'unlabeled.txt')}.",
    )


def test_lists_inside_the_data_folder_are_recognized(tmp_path: Path) -> None:
    lists = write_lists(tmp_path, {"labeled.txt": line("a"), "unlabeled.txt": line("b")})
    for path in lists.iterdir():
        path.rename(tmp_path / path.name)
    table = load_pairs(tmp_path)
    assert table.names == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]


def test_the_hash_of_a_list_forgives_line_ends(tmp_path: Path) -> None:
    texts = ["a b\nc d\n", "a b\r\nc d", "a b\nc e\n"]
    for number, text in enumerate(texts):
        (tmp_path / str(number)).write_text(text)
    hashes = [list_hash(tmp_path / str(number)) for number in range(3)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 12


SPACES = "Paths with spaces cannot stand in such a list: give a CSV with the columns image,mask,split instead."


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            {"labeled.txt": f"{line('a')}\nmy images/a.jpg my masks/a.png\n"},
            "LISTS/labeled.txt: line 2 has 4 words, 'my images/a.jpg my masks/a.png'. Expected `image mask`. " + SPACES,
        ),
        (
            {"labeled.txt": line("a"), "unlabeled.txt": "my images/b.jpg"},
            "LISTS/unlabeled.txt: line 1: no file 'my' in ROOT (1 image missing: 'my'). Paths are relative to the data "
            "folder. " + SPACES,
        ),
        (
            {"labeled.txt": "JPEGImages/a.jpg"},
            "LISTS/labeled.txt: line 1: 'JPEGImages/a.jpg' has no mask. Expected `image mask`; unlabelled images "
            "belong into unlabeled.txt.",
        ),
        (
            {"labeled.txt": line("a"), "val.txt": "JPEGImages/b.jpg masks/b.png"},
            "LISTS/val.txt: line 1: no mask file 'masks/b.png' in ROOT. Expected `image mask`; unlabelled images "
            "belong into unlabeled.txt.",
        ),
        (
            {"labeled.txt": line("a"), "val.txt": line("a")},
            "LISTS/val.txt: line 1: 'JPEGImages/a.jpg' is also in labeled.txt, line 1. Keep one.",
        ),
        ({"labeled.txt": "\n"}, "LISTS/labeled.txt: empty. Expected `image mask` a line."),
        ({}, "LISTS: no labeled.txt in it. Expected labeled.txt, unlabeled.txt and val.txt."),
    ],
)
def test_mistakes_in_lists(lists: dict[str, str], message: str, tmp_path: Path) -> None:
    folder = write_lists(tmp_path, lists)
    refuse(message.replace("LISTS", str(folder)), tmp_path, lists=folder)


def test_a_validation_list_without_a_mask_is_refused_when_drawing(tmp_path: Path) -> None:
    lists = write_lists(tmp_path, {"labeled.txt": line("a"), "val.txt": "JPEGImages/b.jpg"})
    table = load_pairs(tmp_path, lists=lists, mapping={0: 0, 20: 1}, classes=["none", "screen"])
    with pytest.raises(DataError, match=r"1 validation image without a mask: 'JPEGImages/b.jpg'"):
        draw_pair_splits(table, test=0)


# published data sets ------------------------------------------------------------------------------------------------


def test_voc(tmp_path: Path) -> None:
    for seed, stem in enumerate("abcde"):
        mask = tmp_path / "SegmentationClass" / f"{stem}.png" if stem in "abc" else None
        write_pair(tmp_path / "JPEGImages" / f"{stem}.jpg", mask, [0, 5, 255], seed)
    sets = tmp_path / "ImageSets" / "Segmentation"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("a\nb\n")
    (sets / "val.txt").write_text("c")
    (sets / "trainval.txt").write_text("a\nb\nc\n")
    table = load_pairs(tmp_path)
    assert table.layout == "PASCAL VOC"
    assert len(table.classes) == 21
    assert splits_of(table) == {
        "JPEGImages/a.jpg": "train*",
        "JPEGImages/b.jpg": "train*",
        "JPEGImages/c.jpg": "val*",
        "JPEGImages/d.jpg": "- (truth)",
        "JPEGImages/e.jpg": "- (truth)",
    }
    write(tmp_path / "SegmentationClassAug" / "b.png", mask_of([7]))
    write(tmp_path / "SegmentationClassAug" / "d.png", mask_of([0, 20]))
    (sets / "trainaug.txt").write_text("a\nb\nd\n")
    table = load_pairs(tmp_path)
    assert splits_of(table) == {
        "JPEGImages/a.jpg": "train*",
        "JPEGImages/b.jpg": "train*",
        "JPEGImages/c.jpg": "val*",
        "JPEGImages/d.jpg": "train*",
    }
    assert values_of(table, "JPEGImages/b.jpg") == [7]
    (sets / "val.txt").write_text("c\nz\n")
    refuse(f"{sets / 'val.txt'}: 1 image not in JPEGImages: 'z'.", tmp_path)


def write_cityscapes(root: Path, coding: str, values: Sequence[int]) -> None:
    for seed, (split, city) in enumerate((("train", "aachen"), ("val", "bonn"), ("test", "berlin"))):
        stem = f"{split}/{city}/{city}_000000_000019"
        write_pair(
            root / "leftImg8bit" / f"{stem}_leftImg8bit.png",
            root / "gtFine" / f"{stem}_gtFine_{coding}.png",
            values,
            seed,
        )
        write(root / "gtFine" / f"{stem}_gtFine_color.png", picture(seed, SIZE))


@pytest.mark.parametrize(("coding", "values"), [("labelTrainIds", [0, 18, 255]), ("labelIds", [7, 33, 3])])
def test_cityscapes(coding: str, values: list[int], tmp_path: Path) -> None:
    write_cityscapes(tmp_path, coding, values)
    table = load_pairs(tmp_path)
    name = "leftImg8bit/{0}/{1}/{1}_000000_000019_leftImg8bit.png"
    assert splits_of(table) == {
        name.format("test", "berlin"): "test",  # its masks are empty, as the truth is kept secret
        name.format("train", "aachen"): "train*",
        name.format("val", "bonn"): "val*",
    }
    assert (table.classes[0], table.classes[18]) == ("road", "bicycle")
    assert values_of(table, name.format("train", "aachen")) == [0, 18, 255]
    assert table.notes == ()


def test_cityscapes_without_masks(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "labelIds", [7])
    for path in (tmp_path / "gtFine").rglob("*Ids.png"):
        path.rename(path.with_name("other.png"))
    with pytest.raises(DataError, match=r"no mask NAME_gtFine_labelTrainIds.png or NAME_gtFine_labelIds.png belongs"):
        load_pairs(tmp_path)


def test_ade20k(tmp_path: Path) -> None:
    for seed, part in enumerate(("training", "validation")):
        write_pair(
            tmp_path / "images" / part / "ADE_1.jpg", tmp_path / "annotations" / part / "ADE_1.png", [0, 1, 150], seed
        )
    table = load_pairs(tmp_path)
    assert table.layout == "ADE20K"
    assert splits_of(table) == {"images/training/ADE_1.jpg": "train*", "images/validation/ADE_1.jpg": "val*"}
    assert values_of(table, "images/training/ADE_1.jpg") == [0, 149, 255]
    assert table.classes[149] == "class 149"
    rows = "".join(f"{place}\t0.1\t1\t1\tthing{place}, item\n" for place in range(1, 151))
    (tmp_path / "objectInfo150.txt").write_text(f"Idx\tRatio\tTrain\tVal\tName\n{rows}")
    assert load_pairs(tmp_path).classes[149] == "thing150"


def test_coco_stuff_with_index_masks(tmp_path: Path) -> None:
    for seed, part in enumerate(("train2017", "val2017")):
        write_pair(
            tmp_path / part / "000001.jpg", tmp_path / "stuffthingmaps" / part / "000001.png", [0, 12, 181, 255], seed
        )
    table = load_pairs(tmp_path)
    assert splits_of(table) == {"train2017/000001.jpg": "train*", "val2017/000001.jpg": "val*"}
    assert values_of(table, "train2017/000001.jpg") == [0, 11, 170, 255]
    assert len(table.classes) == 171
    (tmp_path / "stuffthingmaps" / "train2017").rename(tmp_path / "stuffthingmaps" / "a")
    (tmp_path / "stuffthingmaps" / "val2017").rename(tmp_path / "stuffthingmaps" / "b")
    refuse(
        f"{tmp_path / 'stuffthingmaps'}: no folder in it, such as train2017/, has one of the same name in ROOT.",
        tmp_path,
    )


def write_coco(root: Path) -> Path:
    """Two annotated images and one without annotations."""
    for seed, stem in enumerate("abc"):
        write(root / "train2017" / f"{stem}.jpg", picture(seed, SIZE))

    def box(image: int, category: int, corners: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
        left, top, right, bottom = corners
        outline = [left, top, right, top, right, bottom, left, bottom]
        area = (right - left) * (bottom - top)
        return {"image_id": image, "category_id": category, "segmentation": [outline], "area": area, **more}

    runs = {"size": [6, 8], "counts": [0, 6, 42]}  # column by column: the first column is set
    content = {
        "images": [
            {"id": place, "file_name": f"{stem}.jpg", "width": 8, "height": 6} for place, stem in enumerate("abc")
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            box(0, 1, (2, 2, 4, 4)),  # small, and first, but lies on top
            box(0, 18, (0, 0, 6, 6)),
            {"image_id": 1, "category_id": 1, "segmentation": runs, "area": 6, "iscrowd": 1},
            box(1, 18, (4, 0, 8, 6)),
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    (root / "annotations" / "captions_train2017.json").write_text("{}")
    return root


def rectangles() -> SimpleNamespace:
    """What this test needs of pycocotools.mask: rectangles of whole pixels, and run lengths."""

    def runs_of(shape: Any, height: int, width: int) -> Any:
        if isinstance(shape, dict):
            bits = np.repeat(np.arange(len(shape["counts"])) % 2, shape["counts"])
            return bits.reshape(width, height).T
        mask = np.zeros((height, width), dtype=np.uint8)
        for outline in shape:
            x, y = outline[::2], outline[1::2]
            mask[min(y) : max(y), min(x) : max(x)] = 1
        return mask

    return SimpleNamespace(frPyObjects=runs_of, merge=lambda runs: runs, decode=lambda runs: runs)


def test_coco_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "_pycocotools", rectangles)
    write_coco(tmp_path)
    for source in (tmp_path, tmp_path / "annotations" / "instances_train2017.json"):
        if source.is_file():
            (tmp_path / "train2017").rename(tmp_path / "annotations" / "train2017")
        table = load_pairs(source)
        assert [pair.split(" ")[0] for pair in splits_of(table).values()] == ["train*", "train*", "train"]
        assert table.classes == ["background", "person", "dog"]
        expected = np.zeros((6, 8), dtype=np.uint8)
        expected[:, :6] = 2
        expected[2:4, 2:4] = 1
        assert np.array_equal(table.images.mask(0).numpy(), expected)
        expected = np.zeros((6, 8), dtype=np.uint8)
        expected[:, 0] = 255
        expected[:, 4:] = 2
        assert np.array_equal(table.images.mask(1).numpy(), expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools itself
def test_coco_with_the_real_package(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    table = load_pairs(write_coco(tmp_path))
    assert values_of(table, "train2017/a.jpg") == [0, 1, 2]
    assert (table.images.mask(1)[:, 0] == 255).all()


def test_coco_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pycocotools", "pycocotools.mask"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r'pip install "sfumato\[coco\]"'):
        load_pairs(write_coco(tmp_path))


def test_mistakes_in_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "_pycocotools", rectangles)
    write_coco(tmp_path)
    (tmp_path / "train2017" / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"1 image named in it cannot be found in .*: 'b.jpg'"):
        load_pairs(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_text('{"images": [], "annotations": 3}')
    with pytest.raises(DataError, match=r"no list 'annotations', 'categories'. Expected the COCO format"):
        load_pairs(tmp_path)

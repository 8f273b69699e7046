"""Images with masks are told from classes of images by names alone, and neither is taken for the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.data.task import task_of


def made(root: Path, *names: str) -> str:
    """Empty files; a name that ends in a slash is a folder."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return str(root)


@pytest.mark.parametrize(
    "names",
    [
        ("images/a.jpg", "masks/a.png"),
        ("images/a.jpg", "mask/a.png"),
        ("imgs/a.jpg", "labels/a.png"),
        ("images/a.jpg", "masks/"),  # none drawn yet: said by what reads it
        ("images/train/a.jpg", "masks/train/a.png"),
        ("train/images/a.jpg", "train/masks/a.png", "val/images/b.jpg", "val/masks/b.png"),
        ("train/images/a.jpg", "train/masks/a.png", "unlabeled/images/b.jpg"),
        ("images/a.jpg", "masks/a.png", "unlabeled/b.jpg"),
        ("images/a.jpg", "masks/a_mask.png", "overlay/a.png"),
        ("a.jpg", "masks/a.png"),
        ("a.jpg", "masks/a.png", "unlabeled/b.jpg"),
        ("images/a.jpg", "masks/a.png", "train.txt", "val.txt"),
        ("labeled.txt", "unlabeled.txt"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
        ("JPEGImages/a.jpg", "SegmentationClassAug/a.png"),
        ("SegmentationClass/a.png",),  # incomplete: said by what reads it
        ("leftImg8bit/train/x/a_leftImg8bit.png", "gtFine/train/x/a_gtFine_labelTrainIds.png"),
        ("images/training/a.jpg", "annotations/training/a.png"),
        ("images/train2017/a.jpg", "stuffthingmaps/train2017/a.png"),
        ("train2017/a.jpg", "annotations/instances_train2017.json"),
    ],
)
def test_layouts_of_images_with_masks(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert task_of(made(tmp_path, *names)) == "segmentation"


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("cats/a.jpg", "dogs/b.jpg"),
        ("cats/a.jpg", "masks/a.jpg", "unlabeled/b.jpg"),
        ("masks/a.jpg", "hats/a.jpg", "c.jpg"),
        ("images/a.jpg", "masks/a.jpg", "paintings/a.jpg"),  # three kinds of things
        ("images/a.png", "masks/b.png", "paintings/c.png"),
        ("train/images/a.jpg", "train/masks/b.jpg", "train/paintings/b.jpg"),
        ("annotations/a.jpg", "drawings/b.jpg"),
        ("mask/a.jpg", "no_mask/a.jpg"),
        ("labels/a.jpg", "tags/b.jpg"),
        ("images/a.jpg", "labels/a.txt"),  # boxes
        ("train/masks/a.jpg", "train/hats/b.jpg", "test/masks/c.jpg", "test/hats/d.jpg"),
        ("train.parquet", "images/a.jpg", "masks/a.png"),
    ],
)
def test_what_has_no_masks(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert task_of(made(tmp_path, *names)) == "classification"


def test_a_table_in_the_folder_tells_the_task(tmp_path: Path) -> None:
    made(tmp_path, "images/a.jpg", "masks/a.png")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nimages/a.jpg,cat\n")
    assert task_of(str(tmp_path)) == "classification"
    table.write_text("image,mask\nimages/a.jpg,masks/a.png\n")
    assert task_of(str(tmp_path)) == "segmentation"
    made(tmp_path / "other", "cats/a.jpg", "pairs.csv")
    assert task_of(str(tmp_path / "other")) == "classification"
    (tmp_path / "other" / "pairs.csv").write_text("image;mask;split\ncats/a.jpg;;\n")
    assert task_of(str(tmp_path / "other")) == "segmentation"


def test_json_is_told_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "cats" / "about.json"
    made(tmp_path, "cats/a.jpg", "cats/about.json", "dogs/b.jpg")
    path.write_text(json.dumps({"images": 2, "categories": ["cats", "dogs"]}))
    path.rename(tmp_path / "about.json")
    assert task_of(str(tmp_path)) == task_of(str(tmp_path / "about.json")) == "classification"
    content = {"info": {}, "images": [{"id": 1, "file_name": "cats/a.jpg"}], "annotations": [], "categories": []}
    (tmp_path / "about.json").write_text(json.dumps(content))
    assert task_of(str(tmp_path)) == task_of(str(tmp_path / "about.json")) == "segmentation"


def test_what_is_given_beside_the_source_tells_the_task(tmp_path: Path) -> None:
    assert task_of("photos", masks="photos/masks") == "segmentation"
    assert task_of("photos", lists="splits/92") == task_of("photos", format="voc") == "segmentation"
    (tmp_path / "labels.csv").write_text("file,label\na.png,cat\n")
    (tmp_path / "masks.csv").write_text("image, Mask ,split\na.png,,\n")
    assert task_of("photos", labels_csv=str(tmp_path / "labels.csv")) == "classification"
    assert task_of("photos", labels_csv=str(tmp_path / "masks.csv")) == "segmentation"
    assert task_of(str(tmp_path / "labels.csv")) == "classification"
    assert task_of(str(tmp_path / "masks.csv")) == "segmentation"
    assert task_of("photos", labels_csv=str(tmp_path / "none.csv")) == "classification"


def test_the_generated_set_has_masks_unless_a_folder_bears_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert task_of("shapes") == "segmentation"
    assert task_of("digits") == "classification"
    Path("shapes").mkdir()
    assert task_of("shapes") == "classification"


def test_camvid_itself(shared: Path) -> None:
    assert task_of(str(shared / "data" / "camvid")) == "segmentation"
    assert task_of(str(shared / "data" / "cifar10")) == "classification"

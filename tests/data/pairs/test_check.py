"""What `check_pairs` reports: everything that is there, and every problem at once."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sfumato.data.pairs import PairReport, check_pairs
from tests.data.pairs.fakes import mask_of, write_plain


def messages(report: PairReport, severity: str) -> list[str]:
    return [problem.message for problem in report.problems if problem.severity == severity]


def test_what_is_there(tmp_path: Path) -> None:
    write_plain(
        tmp_path, {"train/a": [0, 1], "train/b": [0, 0, 1, 255], "train/c": None, "val/a": [1, 0], "test/a": None}
    )
    report = check_pairs(tmp_path)
    assert report.ok
    assert (report.images, report.masks, report.unlabeled) == (5, 3, 2)
    assert report.splits == {"train": (3, 2), "val": (1, 1), "test": (1, 0)}
    assert report.sizes == {"8x6": 5}
    assert report.modes == {"RGB": 5}
    assert report.classes == ["class 0", "class 1"]
    assert report.shown_in == {"class 0": 3, "class 1": 3}
    assert report.shares["class 0"] == 72 / 132
    assert report.void == 12 / 144
    assert report.problems == []


def test_every_problem_at_once(tmp_path: Path) -> None:
    write_plain(
        tmp_path,
        {"train/a": [0, 1], "train/b": [0, 9], "train/c": [0], "train/d": [0], "train/e": [1], "val/a": [0, 1]},
    )
    (tmp_path / "classes.txt").write_text("sea\nland\n")
    mask_of([0], (4, 3)).save(tmp_path / "masks" / "train" / "c.png")
    mask_of([0]).save(tmp_path / "masks" / "train" / "d.jpg")
    (tmp_path / "masks" / "train" / "d.png").unlink()
    (tmp_path / "images" / "train" / "e.png").write_bytes(b"nothing")
    (tmp_path / "images" / "val" / "a.png").write_bytes((tmp_path / "images" / "train" / "a.png").read_bytes())
    report = check_pairs(tmp_path)
    assert not report.ok
    errors = messages(report, "error")
    assert [error.split(":")[0] for error in errors] == [
        "1 image cannot be read",
        "masks/train/d.jpg",
        "masks/train/c.png",
        "masks/train/b.png",
        "1 labelled image also in the validation or test split, pixel by pixel",
    ]
    assert report.broken == {"images/train/e.png": "not an image of a known format"}
    assert report.leaks == [["images/train/a.png", "images/val/a.png"]]


def test_problems_of_training(tmp_path: Path) -> None:
    write_plain(tmp_path, {"train/a": [0, 1], "train/b": [0, 1], "val/a": None})
    (tmp_path / "images" / "train" / "b.png").write_bytes((tmp_path / "images" / "train" / "a.png").read_bytes())
    report = check_pairs(tmp_path, classes=["sea", "land", "sky"])
    assert [error.split(". ")[0] for error in messages(report, "error")] == [
        f"{tmp_path}: 1 class absent from the labeled masks: 'sky'",
        f"{tmp_path}: 1 validation image without a mask: 'images/val/a.png'",
    ]
    assert messages(report, "warning") == [
        "1 image there more than once: 'images/train/a.png = images/train/b.png'.",
        "There are no unlabelled images: unless some masks are set aside, training falls back to supervised.",
    ]


def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    report = check_pairs(tmp_path / "nothing")
    assert not report.ok
    assert "no such file or folder" in messages(report, "error")[0]
    report = check_pairs(write_plain(tmp_path, {"a": [0, 1]}), classes=tmp_path / "classes.txt")
    assert "no such file of classes" in messages(report, "error")[0]


def test_nothing_but_broken_images(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1]})
    (tmp_path / "images" / "a.png").write_bytes(b"")
    report = check_pairs(tmp_path)
    assert messages(report, "error")[0].startswith("1 image cannot be read: 'images/a.png' (empty, 0 bytes)")


def test_the_built_in_set() -> None:
    report = check_pairs("shapes")
    assert report.ok
    assert report.splits == {"train": (400, 400), "val": (80, 80), "test": (120, 120)}
    assert report.duplicates == []


def test_grey_modes_are_counted(tmp_path: Path) -> None:
    write_plain(tmp_path, {"a": [0, 1], "b": [0, 1]})
    Image.open(tmp_path / "images" / "a.png").convert("L").save(tmp_path / "images" / "a.png")
    assert check_pairs(tmp_path).modes == {"L": 1, "RGB": 1}

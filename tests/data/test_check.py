"""The report of `check`: it lists instead of raising."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sfumato.data import CheckReport, check, load_table
from tests.data.pictures import picture, write, write_folders


def messages(report: CheckReport, severity: str) -> str:
    return "\n".join(problem.message for problem in report.problems if problem.severity == severity)


def test_a_sound_folder(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train/cat": 3, "train/dog": 2, "test/cat": 1, "test/dog": 1, "unlabeled": 4})
    write(tmp_path / "train" / "cat" / "grey.png", picture(99, (9, 9)).convert("L"))
    report = check(tmp_path)
    assert report.ok
    assert report.problems == []
    assert report.layout == "class folders in split folders"
    assert (report.images, report.unlabeled) == (12, 4)
    assert report.counts == {"train": {"cat": 4, "dog": 2}, "test": {"cat": 1, "dog": 1}}
    assert list(report.sizes.items()) == [("12x10", 11), ("9x9", 1)]
    assert list(report.modes.items()) == [("RGB", 11), ("L", 1)]
    assert check(load_table(tmp_path)) == CheckReport(**{**vars(report), "source": str(tmp_path)})


def test_broken_files_are_listed(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 3, "dog": 3, "unlabeled": 1})
    (tmp_path / "cat" / "1.png").write_bytes(b"")
    (tmp_path / "dog" / "0.png").write_bytes((tmp_path / "dog" / "0.png").read_bytes()[:100])
    report = check(tmp_path)
    assert not report.ok
    assert report.broken == {"cat/1.png": "empty, 0 bytes", "dog/0.png": "truncated"}
    expected = "2 images cannot be read: 'cat/1.png' (empty, 0 bytes), 'dog/0.png' (truncated)."
    assert expected in messages(report, "error")


def test_copies_within_a_split_are_warnings(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 2, "dog": 2, "unlabeled": 1})
    write(tmp_path / "unlabeled" / "copy.bmp", picture(0))
    report = check(tmp_path)
    assert report.ok
    assert report.duplicates == [["cat/0.png", "unlabeled/copy.bmp"]]
    assert report.leaks == []
    assert messages(report, "warning") == "1 image there more than once: 'cat/0.png = unlabeled/copy.bmp'."


def test_copies_with_different_labels(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 2, "dog": 2, "unlabeled": 1})
    write(tmp_path / "dog" / "copy.png", picture(0))
    expected = "1 image there more than once with different labels: 'cat/0.png' is cat, 'dog/copy.png' is dog."
    assert expected in messages(check(tmp_path), "warning")


def test_labelled_copies_across_splits_are_errors(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train/cat": 2, "train/dog": 2, "unlabeled": 1})
    write_folders(tmp_path, {"test/cat": 1, "test/dog": 1}, first=50)
    write(tmp_path / "test" / "cat" / "leak.png", picture(1))
    report = check(tmp_path)
    assert not report.ok
    assert report.leaks == [["test/cat/leak.png", "train/cat/1.png"]]
    expected = (
        "1 labelled image also in the validation or test split, pixel by pixel: 'test/cat/leak.png = train/cat/1.png'"
    )
    assert expected in messages(report, "error")


def test_unlabelled_copies_across_splits_are_warnings(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train/cat": 2, "train/dog": 2, "unlabeled": 1})
    write_folders(tmp_path, {"test/cat": 1, "test/dog": 1}, first=50)
    write(tmp_path / "unlabeled" / "leak.png", picture(50))
    report = check(tmp_path)
    assert report.ok
    assert messages(report, "warning") == "1 image in more than one split: 'test/cat/0.png = unlabeled/leak.png'."


def test_problems_of_a_csv_and_of_images_are_told_together(tmp_path: Path) -> None:
    photos = write_folders(tmp_path / "photos", {"": 4})
    (photos / "2.png").write_bytes(b"no image")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\n0.png,cat\n0.png,dog\n1.png,dog\ngone.png,cat\n")
    report = check(photos, labels=labels)
    assert report.images == 4
    assert report.counts == {"train": {"cat": 1, "dog": 1}}
    for text in (
        "'0.png' has the label 'cat' in row 2 and 'dog' in row 3",
        "'gone.png' (row 5)",
        "'2.png' (not an image",
    ):
        assert text in messages(report, "error")


def test_what_cannot_be_read_at_all_is_one_problem(tmp_path: Path) -> None:
    report = check(tmp_path / "nowhere")
    assert not report.ok
    assert "nowhere: no such file or folder" in messages(report, "error")
    assert (report.images, report.classes) == (0, [])


def test_classes_and_unlabelled_images(tmp_path: Path) -> None:
    report = check(write_folders(tmp_path, {"cat": 2, "dog": 0}))
    assert "1 class without a labelled image to train on: 'dog'" in messages(report, "error")
    assert "There are no unlabelled images: unless some labels are set aside" in messages(report, "warning")


def test_held_out_images_without_labels(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train/cat": 1, "train/dog": 1, "test/unlabeled": 1, "unlabeled": 1})
    assert "1 val or test image without a label, of no use: 'test/unlabeled/0.png'." in messages(
        check(tmp_path), "warning"
    )


def test_animated(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 1, "dog": 1, "unlabeled": 1})
    Image.new("L", (8, 8)).save(tmp_path / "cat" / "m.gif", save_all=True, append_images=[Image.new("L", (8, 8), 9)])
    assert messages(check(tmp_path), "warning") == "1 image with several frames: only the first is used: 'cat/m.gif'."

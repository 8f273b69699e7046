from pathlib import Path

import pytest

from sfumato.data.task import task_of


@pytest.mark.parametrize("name", ["masks", "SegmentationClass", "SegmentationClassAug", "gtFine", "annotations"])
def test_a_folder_of_masks_beside_the_images_tells_the_task(tmp_path: Path, name: str) -> None:
    assert task_of(str(tmp_path)) == "classification"
    (tmp_path / name).mkdir()
    assert task_of(str(tmp_path)) == "segmentation"


def test_what_is_given_beside_the_source_tells_the_task(tmp_path: Path) -> None:
    assert task_of("photos", masks="photos/masks") == "segmentation"
    (tmp_path / "labels.csv").write_text("file,label\na.png,cat\n")
    (tmp_path / "masks.csv").write_text("image, Mask ,split\na.png,,\n")
    assert task_of("photos", labels_csv=str(tmp_path / "labels.csv")) == "classification"
    assert task_of("photos", labels_csv=str(tmp_path / "masks.csv")) == "segmentation"
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

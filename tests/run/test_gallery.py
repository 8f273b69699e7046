from pathlib import Path

import pytest

from sfumato.run import gallery, prepare


def settings(folder: Path, task: str) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(f"data: {{source: digits, task: {task}}}\n")
    return folder


def test_a_run_with_masks_keeps_its_images_so_its_table_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(prepare, "open_table", opened.append)
    monkeypatch.setattr(prepare, "pictures", lambda table: "the table's")
    assert gallery.images_of(settings(tmp_path / "masks", "segmentation")) is None
    assert not opened
    assert gallery.images_of(settings(tmp_path / "labels", "classification")) == "the table's"
    assert len(opened) == 1


def test_a_folder_without_settings_has_none(tmp_path: Path) -> None:
    assert gallery.images_of(tmp_path) is None

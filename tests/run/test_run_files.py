"""Files of a run: whole or not there, and never over another run."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from sfumato.errors import DataError
from sfumato.run import files


def test_default_names_are_numbered_and_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [files.claim(None, "digits-fixmatch") for _ in range(3)]
    assert made == [Path("runs/digits-fixmatch"), Path("runs/digits-fixmatch-2"), Path("runs/digits-fixmatch-3")]
    assert all(path.is_dir() for path in made)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    assert files.claim(tmp_path / "new", "x") == tmp_path / "new"
    assert files.claim(tmp_path / "new", "x") == tmp_path / "new"  # empty: fine
    (tmp_path / "new" / "notes.txt").touch()
    with pytest.raises(DataError) as caught:
        files.claim(tmp_path / "new", "x")
    message = f"{tmp_path}/new exists already, and nothing is overwritten. Give another folder with -o."
    assert str(caught.value) == message


def test_not_a_number_becomes_null(tmp_path: Path) -> None:
    files.write_json(tmp_path / "m.json", {"a": [float("nan"), 1.5], "b": {"c": float("inf")}, "d": (1, 2)})
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": [None, 1.5], "b": {"c": None}, "d": [1, 2]}


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    files.write_text(path, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_what_is_no_finished_run_is_told_apart(tmp_path: Path) -> None:
    def told(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            files.one_run(folder)
        return str(caught.value)

    assert "no such folder. Give the folder of a run" in told(tmp_path / "nothing")
    assert told(tmp_path) == f"{tmp_path}: metrics.json is missing. It is no folder of a run."
    (tmp_path / "config.yaml").touch()
    assert told(tmp_path).endswith(f"The run has not ended: sfumato train --resume {tmp_path} ends it.")
    (tmp_path / "seed-10").mkdir()
    (tmp_path / "seed-2").mkdir()
    assert told(tmp_path) == f"{tmp_path} holds several seeds; give one of them, such as {tmp_path}/seed-2."


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    with files.alone(tmp_path), pytest.raises(DataError, match="is in use by another process"):
        with files.alone(tmp_path):
            pass
    with files.alone(tmp_path):
        pass

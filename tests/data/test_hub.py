"""`hf:OWNER/NAME`: fetched when asked for and not before, then read from the disk. The hub is a stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sfumato.config import load
from sfumato.data import hub
from sfumato.errors import DataError, UsageError
from sfumato.run import prepare
from tests.data.test_class_protocols import arrow


class Saved:
    """What `load_dataset` gives."""

    def save_to_disk(self, path: str) -> None:
        for part, labels in (("train", [0, 1, 0, 1]), ("test", [1, 0])):
            arrow(Path(path) / part, labels, ["cat", "dog"])
        (Path(path) / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SFUMATO_DATA", raising=False)
    calls: list[tuple[Any, ...]] = []

    def load_dataset(*names: Any) -> Saved:
        calls.append(names)
        if names[0] == "someone/gone":
            raise OSError("no such data set\nand more")
        return Saved()

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_fetched_once_and_read_from_the_disk(asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"hf:someone/pets: looked for in data/someone--pets, and not there. download=true"
    ):
        hub.find("hf:someone/pets")
    assert not asked
    (tmp_path / "data").mkdir()
    config = prepare.located(load(overrides=["data=hf:someone/pets", "download=true"]))
    assert asked == [("someone/pets", None)]
    assert config.data.source == str(tmp_path / "data/someone--pets")
    table = prepare.open_table(config)
    assert (len(table), list(table.classes)) == (6, ["cat", "dog"])
    again = prepare.located(load(overrides=["data=hf:someone/pets"]))
    assert again.data.source == config.data.source
    assert len(asked) == 1
    hub.find("hf:someone/pets:small", download=True)
    assert asked[-1] == ("someone/pets", "small")


def test_what_goes_wrong(asked: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"hf:someone/gone: could not be fetched \(OSError: no such data set\)\. Check"):
        hub.find("hf:someone/gone", download=True)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r'needs the package datasets: pip install "sfumato\[hf\]"'):
        hub.find("hf:someone/pets", download=True)

"""The tests that docs/differences.md names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sfumato.addons import ADDONS
from sfumato.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8") if (ROOT / "docs").is_dir() else ""
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)


@pytest.mark.parametrize(("path", "test"), NAMED, ids=[f"{path}-{test}" for path, test in NAMED])
def test_a_named_test_is_there(path, test):
    source = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^def {test}\(", source, re.MULTILINE) if test else "def test_" in source


def test_every_row_names_a_method_and_a_test():
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and "| USB |" not in line]
    assert len(rows) > 25
    for row in rows:
        assert NAMED
        assert "`tests/" in row[-1], row[0]
    named = {row[0].removeprefix("| ") for row in rows}
    assert len(named & (METHODS.keys() | ADDONS.keys())) > 20

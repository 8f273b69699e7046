"""The walk-through of CONTRIBUTING.md, carried out on a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- (append|new|table): (\S+) -->\n```python\n(.*?)```", re.DOTALL)
TABLE_LINE = '    "pseudo_label": Entry('


def blocks() -> list[tuple[str, str, str]]:
    """(what to do, path, code) of every marked block."""
    return BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


def carry_out(action: str, path: Path, code: str) -> None:
    if action == "new":
        assert not path.exists(), f"{path.name} exists: the example must add a file of its own"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        return
    old = path.read_text(encoding="utf-8")
    if action == "append":
        path.write_text(f"{old}\n\n{code}", encoding="utf-8")
        return
    line_import, line_table = (line for line in code.splitlines() if line.strip())
    assert old.count(TABLE_LINE) == 1
    new = old.replace(TABLE_LINE, f"{line_table}\n{TABLE_LINE}")
    first_import = "from sfumato.methods.pseudo_label import"
    path.write_text(new.replace(first_import, f"{line_import}\n{first_import}", 1), encoding="utf-8")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of sources and tests in which the walk-through has been followed."""
    copy = tmp_path_factory.mktemp("contributing")
    leave_out = shutil.ignore_patterns("__pycache__", "_build", "_generated", "test_contributing.py")
    for part in ("src", "tests", "docs"):
        shutil.copytree(ROOT / part, copy / part, ignore=leave_out)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for action, path, code in blocks():
        carry_out(action, copy / path, code)
    return copy


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_walk_through_has_its_blocks() -> None:
    assert [action for action, _, _ in blocks()] == ["append", "new", "new", "new", "table", "new"]
    marked = len(blocks())
    assert (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").count("```python\n") == marked


def test_new_tests_pass(followed: Path) -> None:
    done = run(followed, "-m", "pytest", "-q", "tests/rules/test_margin.py", "tests/methods/test_margin_match.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


@pytest.mark.slow
def test_new_method_meets_the_conformance_suite(followed: Path) -> None:
    suite = "tests/methods/test_conformance.py"
    done = run(followed, "-m", "pytest", "-q", suite, "-k", "margin_match")
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.search(r"(\d+) passed", done.stdout)
    assert ran is not None
    assert int(ran[1]) >= 4, done.stdout


@pytest.mark.parametrize("tool", [("ruff", "check"), ("ruff", "format", "--check")], ids=" ".join)
def test_new_code_is_in_the_style_of_the_house(followed: Path, tool: tuple[str, ...]) -> None:
    files = [path for action, path, _ in blocks() if action == "new"]
    done = run(followed, "-m", *tool, *files)
    assert done.returncode == 0, done.stdout + done.stderr

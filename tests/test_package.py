"""What a user gets from `import sfumato`, and what the repository promises about itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import sfumato

ROOT = Path(__file__).resolve().parents[1]


def test_import_loads_no_heavy_library() -> None:
    code = "import sys, sfumato; print([m for m in ('torch', 'numpy', 'sklearn', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_exported_name_is_the_one_of_its_module() -> None:
    assert sorted({*sfumato._EXPORTS, "__version__"}) == sorted(sfumato.__all__) == dir(sfumato)
    for name, module in sfumato._EXPORTS.items():
        # Importing a module of the package binds it as an attribute, which would hide an export of the same name.
        assert getattr(sfumato, name) is getattr(import_module(module), name), name


def test_type_checkers_see_the_exports_that_exist() -> None:
    tree = ast.parse((ROOT / "src/sfumato/__init__.py").read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == sfumato._EXPORTS


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'sfumato' has no attribute 'nothing'"):
        sfumato.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_installed_version_is_the_one_in_the_source() -> None:
    assert version("sfumato") == sfumato.__version__


def test_constraints_pin_every_dependency_that_pyproject_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(pin.count("==") == 1 and "://" not in pin for pin in pins)
    pinned = {canonical(pin.split("==")[0]) for pin in pins}
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    named = {canonical(text) for text in wanted} - {"sfumato"}
    assert len(named) > 20
    assert named - pinned == set()


def canonical(requirement: str) -> str:
    name = requirement
    for mark in "[<>=!~; ":
        name = name.split(mark)[0]
    return name.lower().replace("_", "-").replace(".", "-")


def test_the_readme_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`.*`) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(extras) <= {name for row in rows for name in re.findall("`(.*?)`", row)}


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(links) > 5
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []

"""The example of the README, run as it stands but for the number of steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def example() -> str:
    (block,) = re.findall(r"<!-- python-api -->\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def test_ten_lines_build_a_method_from_rules_train_and_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    code = example()
    assert "steps=300" in code
    names: dict[str, object] = {}
    exec(code.replace("steps=300", "steps=40"), names)
    assert float(capsys.readouterr().out) > 0.4  # chance is 0.1


def test_the_example_is_ten_lines_beside_its_imports() -> None:
    lines = [line for line in example().splitlines() if line and not line.startswith("from ")]
    assert len(lines) <= 10

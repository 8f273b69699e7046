"""docs/bench.md: its file, its commands, its tables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sfumato.bench.file import KEYS, read_bench
from sfumato.bench.formats import full
from sfumato.bench.grid import cells
from sfumato.bench.table import tables
from sfumato.cli import app
from tests.bench.fake_runs import fake_run

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "bench.md").read_text(encoding="utf-8")
FAST = ["methods=supervised", "baseline=none", "labels=40", "seeds=0", "steps=2", "batch_size=4"]


def block(name: str, language: str) -> str:
    (found,) = re.findall(rf"<!-- {name} -->\n```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def commands() -> list[tuple[list[str], str]]:
    """The words of each, and what is said of it."""
    lines = [line.partition("#") for line in block("worked-example", "bash").splitlines()]
    return [(shlex.split(command), said) for command, _, said in lines]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("bench.yaml").write_text(block("bench-file", "yaml"))
    return Path("bench.yaml")


def test_the_file_is_the_grid_that_is_told(file: Path) -> None:
    found = cells(read_bench(file))
    assert f"{len(found)} runs:" in commands()[0][1]
    assert {cell.method for cell in found} == {"supervised_strong", "fixmatch", "fixmatch-0.8"}
    assert len(cells(read_bench(file, ["seeds=0:5"]))) - len(found) == len(found) * 2 / 3
    assert [line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `")] == list(KEYS)


def test_the_columns_of_the_table_are_explained(file: Path) -> None:
    fake_run(Path("a"), "method=supervised_strong", acc=0.8)
    fake_run(Path("b"), "method=fixmatch", acc=0.9)
    text = PAGE.partition("| column |")[2]
    for name in full(tables(Path()).blocks[0]).columns[1:]:
        assert re.split(r" %| supervised", name)[0].replace("against", "against …") in text, name


def test_the_tables_of_the_page(file: Path) -> None:
    for number, method in enumerate(("supervised_strong", "fixmatch")):
        fake_run(Path("runs/digits") / method, f"method={method}", acc=0.8 + number / 10, recall=(0.5,))
    run = [words for words, _ in commands() if words[1] == "table"]
    assert len(run) == 3
    for words in run:
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, (words, done.stderr)
    assert "recall % of each class" in Path("table.tex").read_text()


@pytest.mark.slow
def test_the_benches_of_the_page(file: Path) -> None:
    """With one method of two steps in place of its own."""
    run = [words for words, _ in commands() if words[1] == "bench"]
    assert len(run) == 3
    for words in run:
        done = CliRunner().invoke(app, [*words[1:], *FAST])
        assert done.exit_code == 0, (words, done.stdout, done.stderr)
    assert Path("runs/digits/digits/labels-40/supervised/seed-0/metrics.json").exists()
    assert "| supervised | 1 |" in Path("runs/digits/table.md").read_text()

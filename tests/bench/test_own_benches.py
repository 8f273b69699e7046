"""The bench files of the repository can be run: names, settings, and enough images of each class."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.bench.file import read_bench
from sfumato.bench.grid import cells
from sfumato.bench.ready import ready
from sfumato.methods import METHODS

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "benches"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_there_are_some():
    assert len(FILES) >= 4 or not FOLDER.is_dir()


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_it_can_be_run(path: Path, tmp_path: Path) -> None:
    bench = read_bench(path, ["seeds=0,1"])
    ready(cells(bench), tmp_path / "runs")
    assert path.name in path.read_text(encoding="utf-8").splitlines()[0], "the first line is the command"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks are not part of an installed package")
def test_the_bench_of_all_methods_has_all() -> None:
    named = {cell.method for cell in cells(read_bench(FOLDER / "methods.yaml", []))}
    assert named == {name for name, entry in METHODS.items() if not entry.dense_only}

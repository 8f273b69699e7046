"""Two processes with half the batch each are one process with the whole batch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sfumato import checkpoint
from tests.train.test_resume import ROOT, assert_same_run

EXACT = ("label", "counts", "batches")


def launch(folder: Path, *words: str, ranks: int = 1, module: str = "tests.train.tiny") -> None:
    """Train in a process for each rank, under torchrun where there are several."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", module, str(folder), *words]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-8000:]
    assert "not left" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["freematch", "flexmatch", "softmatch", "uncertainty_weighted", "cps"])
def test_two_ranks_give_the_statistics_of_one(name: str, tmp_path: Path) -> None:
    # a network without batch statistics: those are each rank's own, as everywhere
    # and few steps: training doubles rounding, after ten the networks themselves differ by 2e-5
    launch(tmp_path / "one", name, "5", "group")
    launch(tmp_path / "two", name, "5", "group", ranks=2)
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / f / "checkpoints").path) for f in ("one", "two"))  # type: ignore[arg-type]
    assert one.tensors["method"].keys() == two.tensors["method"].keys() != set()
    for key, value in one.tensors["method"].items():
        torch.testing.assert_close(
            two.tensors["method"][key], value, atol=1e-6, rtol=0, msg=lambda m, k=key: f"{k}: {m}"
        )
    for key, value in one.tensors["model"].items():
        torch.testing.assert_close(two.tensors["model"][key], value, atol=1e-6, rtol=1e-5)
    assert torch.equal(one.tensors["telemetry"]["seen"], two.tensors["telemetry"]["seen"])


@pytest.mark.slow
def test_two_ranks_continue_as_if_uninterrupted(tmp_path: Path) -> None:
    """With batch norm, whose statistics would be each rank's own, and in the midst of an interval of the log."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    launch(whole, "freematch", "10", ranks=2)
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "step-00000010")
    launch(again, "freematch", "10", ranks=2)
    assert_same_run(whole, again)

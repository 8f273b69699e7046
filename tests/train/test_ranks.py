"""Two processes with half the batch each are one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sfumato import checkpoint
from tests.train.test_resume import ROOT

EXACT = ("label", "counts", "batches")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["freematch", "flexmatch", "softmatch", "uncertainty_weighted"])
def test_two_ranks_give_the_statistics_of_one(name: str, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for folder, launcher in (("one", []), ("two", ranks)):
        # a network without batch statistics: those are each rank's own, as everywhere
        command = [sys.executable, *launcher, "-m", "tests.train.tiny", str(tmp_path / folder), name, "10", "group"]
        subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / f / "checkpoints").path) for f in ("one", "two"))  # type: ignore[arg-type]
    assert one.tensors["method"].keys() == two.tensors["method"].keys() != set()
    for key, value in one.tensors["method"].items():
        torch.testing.assert_close(
            two.tensors["method"][key], value, atol=1e-6, rtol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
        )
    for key, value in one.tensors["model"].items():
        torch.testing.assert_close(two.tensors["model"][key], value, atol=1e-5, rtol=1e-4)
    seen = [f.tensors["telemetry"]["seen"] for f in (one, two)]
    assert torch.equal(seen[0], seen[1] * 2) or torch.equal(seen[0], seen[1])

"""The example of docs/collapse.md: a method that talks itself into a mistake is warned of, explained and judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sfumato.cli import app


@pytest.mark.slow
def test_a_collapse_is_warned_of_explained_and_judged(tmp_path: Path) -> None:
    folder = tmp_path / "collapse"
    settings = ["labels=20", "val=500", "method=pseudo_label", "seed=1"]
    done = CliRunner().invoke(app, ["train", "mnist5k", *settings, "-o", str(folder)])

    assert done.exit_code == 4
    told = " ".join(done.output.split())
    assert "warning: step 200: The network is confident and wrong" in told  # while it happens, not at the end only
    assert "The pseudo-labels crowd into '6'" in told
    assert "of these agree with the held-out labels" in told
    assert "The unlabelled images hurt" in told

    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["answer"] == "hurts"
    metrics = json.loads((folder / "metrics.json").read_text())
    baseline = json.loads((folder / "baseline" / "metrics.json").read_text())
    assert metrics["test"]["ece"] > 0.3
    assert metrics["test"]["acc"] < baseline["test"]["acc"] - 0.1
    assert metrics["collapse"]["step"] == 500

"""Stopped anywhere and continued is the same as never stopped, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sfumato import checkpoint
from sfumato.errors import DataError
from sfumato.interrupt import Interrupted
from tests.train.tiny import CONFIG, data, method, network, run

ROOT = Path(__file__).parents[2]
PERFORMANCE = "perf/"


def records(folder: Path) -> list[dict[str, object]]:
    """All metrics but those that measure the machine."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(PERFORMANCE)} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    a, b = (checkpoint.load(checkpoint.latest(folder / "checkpoints").path) for folder in (one, other))  # type: ignore[arg-type]
    assert a.step == b.step
    assert a.tensors.keys() == b.tensors.keys() >= {"model", "teacher", "method", "telemetry", "best"}
    for group, tensors in a.tensors.items():
        assert tensors.keys() == b.tensors[group].keys()
        for key, value in tensors.items():
            assert torch.equal(value, b.tensors[group][key]), f"{group}.{key}"
    assert str(a.optimizer) == str(b.optimizer)
    told = [{k: v for k, v in x.state["memory"].items() if not k.endswith("seconds")} for x in (a, b)]
    assert told[0] == told[1]
    assert records(one) == records(other)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder=folder, dropout=0.2)
    return folder


@pytest.mark.parametrize("stops", [(7, 13), (1, 2, 23), (24,)])
def test_interrupted_and_continued_is_the_uninterrupted_run(
    uninterrupted: Path, tmp_path: Path, stops: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stop in stops:

        def terminate(self: object, step: int, at: int = stop) -> None:
            if step == at:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr("sfumato.train.Reporter.step", terminate)
        with pytest.raises(Interrupted, match=f"after step {stop} of 24.*--resume"):
            run(folder=tmp_path, resume=True, dropout=0.2)
    monkeypatch.undo()
    run(folder=tmp_path, resume=True, dropout=0.2)
    assert_same_run(uninterrupted, tmp_path)


def test_a_finished_run_is_not_trained_again(uninterrupted: Path) -> None:
    before = records(uninterrupted)
    result, _ = run(folder=uninterrupted, resume=True, dropout=0.2)
    assert records(uninterrupted) == before
    assert result.val is not None
    assert result.best_step is not None


def test_a_truncated_checkpoint_is_passed_over(
    uninterrupted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(folder=tmp_path, dropout=0.2, keep=3)
    newest = checkpoint.latest(tmp_path / "checkpoints").path
    assert newest is not None
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    run(folder=tmp_path, resume=True, dropout=0.2, keep=3)
    assert f"Passed over checkpoint {newest}" in capfd.readouterr().err.replace("\n", "")
    assert_same_run(uninterrupted, tmp_path)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    from sfumato.train import train

    given = data()
    train(method("fixmatch", given), network(), given, CONFIG, folder=tmp_path, identity={"train.lr": 0.05}, quiet=True)
    with pytest.raises(DataError, match=r"train\.lr is 0\.1 now and was 0\.05.*settings it was started with"):
        train(
            method("fixmatch", given), network(), given, CONFIG,
            folder=tmp_path, identity={"train.lr": 0.1}, resume=True, quiet=True,
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["freematch", "flexmatch"])
def test_killed_at_five_steps_ends_as_uninterrupted(name: str, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def start(folder: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.train.tiny", str(tmp_path / folder), name, "40", "dropout"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)

    with start("whole") as whole:
        for kill_at in (3, 11, 12, 26, 38):
            with start("killed") as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if int(line.split()[1]) >= kill_at:
                        process.send_signal(signal.SIGKILL)
                        break
            assert process.returncode == -signal.SIGKILL
        with start("killed") as process:
            process.communicate()
        whole.communicate()
    assert (process.returncode, whole.returncode) == (0, 0)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")

"""`sfumato bench` and `sfumato table` as commands: real processes, killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from tests.cli.conftest import Call, Refused
from tests.run.pictures_on_disk import class_folders

COMMAND = Path(sys.executable).with_name("sfumato")
SETTINGS = {"steps": 4, "batch_size": 4, "unlabeled_ratio": 2, "eval_every": 4, "log_every": 1, "save_every": 5}
FIXMATCH = Path("bars/labels-9/fixmatch/seed-0")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "bars")
    return write()


def write(**more: Any) -> Path:
    content = {"methods": ["fixmatch"], "data": ["bars"], "labels": [9], "baseline": None, "settings": SETTINGS}
    Path("bench.yaml").write_text(yaml.safe_dump(content | more))
    return Path("bench.yaml")


def test_a_bench_with_a_run_that_fails(file: Path, call: Call, refused: Refused) -> None:
    write(methods=["supervised", {"method": "supervised", "name": "too fast", "lr": 1e30}])
    done = call("bench", file, "-o", "out", "--jobs", 2)
    refused(
        done, 4, "1 of 2 runs ended without a result; the others are finished:",
        "- bars, 9 labels, too fast, seed 0: The loss was not finite at step ",
        "Once mended, go on with them: sfumato bench bench.yaml -o out -j 2",
    )  # fmt: skip
    assert "2 runs in out, 0 finished; 2 at a time, each on " in done.stdout
    assert "bars, 9 labels, too fast, seed 0: FAILED: The loss was not finite" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if "±" not in line]
    assert ["supervised", "1"] in [row[:2] for row in rows]
    assert ["too", "fast", "0", "of", "1", "–"] in [row[:6] for row in rows]
    assert "| too fast | 0 of 1 |" in Path("out/table.md").read_text()
    assert Path("out/table.csv").read_text().splitlines()[1].startswith("bars,9,supervised,test,1,0,,acc,")
    printed = call("table", "out", "--format", "json", "--metric", "ece", "--per-class")
    (row, other) = json.loads(printed.stdout)["rows"]
    assert (row["method"], row["n"], row["metric"], other["n"]) == ("supervised", 1, "ece", 0)
    assert {"recall/left", "recall/middle", "recall/right"} <= set(row)
    assert call("table", "out", "-f", "latex", "-o", "t.tex").stdout == "t.tex\n"
    assert r"\toprule" in Path("t.tex").read_text()
    again = "t.tex exists already, and nothing is overwritten. Give another file with -o, or --force"
    refused(call("table", "out", "-o", "t.tex"), 3, again)
    assert r"\toprule" in Path("t.tex").read_text()
    assert call("table", "out", "-o", "t.tex", "--force").exit_code == 0
    assert Path("t.tex").read_text().startswith("**bars")
    refused(call("report", "out"), 3, "`sfumato table out` compares them")


def test_what_is_wrong_is_told_before_anything_is_made(file: Path, call: Call, refused: Refused) -> None:
    write(metods=["x"])
    refused(call("bench", file), 2, "bench.yaml: 'metods' is no axis. Did you mean 'methods'?")
    write()
    refused(call("bench", file, "stepps=3"), 2, "command line: 'stepps' is no known key. Did you mean 'steps'?")
    refused(call("bench", file, "stepps"), 2, "'stepps': expected key=value here, such as steps=1000 or seeds=0:3.")
    refused(call("bench", file, "labels=4000"), 3, "bars, 4000 labels, fixmatch: ", "labels=4000 asked for")
    refused(call("table", "nowhere"), 3, "nowhere: no such folder.")
    assert sorted(path.name for path in Path().iterdir()) == ["bars", "bench.yaml"]


# Killed and gone on with


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [str(argument) for argument in (COMMAND, "bench", *arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=hear_ctrl_c
    )


def hear_ctrl_c() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so does whatever that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_step(folder: Path, step: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        path = folder / "metrics.jsonl"
        if path.exists() and any(json.loads(line)["step"] >= step for line in path.read_text().splitlines()[:-1]):
            return
        time.sleep(0.02)
    raise AssertionError(f"{folder} has not come to step {step}")


def same_weights(first: Path, second: Path) -> bool:
    one, two = (safetensors.torch.load_file(folder / "weights.safetensors") for folder in (first, second))
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_killed_or_interrupted_it_ends_as_if_it_had_not_been(file: Path, call: Call, refused: Refused) -> None:
    write(settings=SETTINGS | {"steps": 1000, "eval_every": 500})  # too many to be done before the stop arrives
    options = (file, "-o", "out", "-j", 1, "--threads", 1)
    with start(*options) as process:
        wait_for_step(Path("out") / FIXMATCH, 12)
        refused(call("bench", *options), 3, "out is in use by another process.")  # two benches, one folder
        process.kill()
    with start(*options) as process:  # at once, while the run that was left alone still saves
        assert process.stdout is not None
        assert "1 run in out, 0 finished" in process.stdout.readline()  # it listens to signals by now
        wait_for_step(Path("out") / FIXMATCH, 60)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert process.returncode == 130
    assert told == ("Interrupted; every run is saved. Continue with: sfumato bench bench.yaml -o out -j 1\n")
    assert not (Path("out") / FIXMATCH / "metrics.json").exists()
    done = call("bench", *options)
    assert done.exit_code in (0, 4), done.stderr
    assert call("bench", file, "-o", "whole", "-j", 1, "--threads", 1).exit_code in (0, 4)
    assert same_weights(Path("out") / FIXMATCH, Path("whole") / FIXMATCH)
    again = call("bench", *options, "--json")
    assert "1 run in out, 1 finished" in again.stderr
    assert json.loads(again.stdout)["rows"][0]["n"] == 1


@pytest.mark.slow
def test_a_dry_run_tries_and_makes_nothing(file: Path, call: Call) -> None:
    before = sorted(Path().rglob("*"))
    done = call("bench", file, "--dry-run", "-j", 1)
    assert done.exit_code == 0, done.stderr
    assert "trying a few steps of each method on each data, 1 in all" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["data,", "method", "runs", "done", "steps/s", "a", "run", "left", "GiB"]
    assert lines[-2].startswith("1 run, 0 done and 1 left; 1 at a time, each on ")
    assert lines[-1].startswith("memory: up to ")
    assert sorted(Path().rglob("*")) == before

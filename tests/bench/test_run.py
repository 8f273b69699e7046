"""What a bench checks before it starts, and how it goes on; the runs themselves are stood in for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from sfumato.bench import run as run_module
from sfumato.bench.file import read_bench
from sfumato.bench.run import Outcome, Plan, bench, plan
from sfumato.config import load
from sfumato.errors import CollapseError, DataError, UsageError
from sfumato.run import files, pool
from sfumato.run.experiment import experiment, reopened
from sfumato.run.pool import Failure, Job
from tests.run.pictures_on_disk import class_folders, save

SETTINGS = {"steps": 4, "batch_size": 4, "unlabeled_ratio": 2, "eval_every": 4, "log_every": 2, "save_every": 2}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a bench file of 12 pixels' images, with `more` in it."""
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "bars")

    def make(**more: Any) -> Path:
        content = {"methods": ["fixmatch"], "data": ["bars"], "labels": [{"labels_per_class": 3}], "settings": SETTINGS}
        Path("bench.yaml").write_text(yaml.safe_dump(content | more))
        return Path("bench.yaml")

    return make


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that would have been started; each run is done here, and those named "broken" fail."""
    seen: list[Job] = []

    def run_all(jobs: Sequence[Job], logs: Path, *, failed: Callable[[Failure], None], **_: Any) -> None:
        for job in jobs:
            seen.append(job)
            if "broken" in job.name:
                (logs / job.log_name).write_text("first\nit broke\n")
                failed(Failure(job, 4, logs / job.log_name))
            else:
                experiment(reopened(job.folder), resume=job.folder, say=lambda line: None, quiet=True, report=False)

    monkeypatch.setattr(run_module, "run_all", run_all)
    return seen


def go(path: Path, *overrides: str, out: str = "out", **options: Any) -> Outcome:
    return bench(plan(read_bench(path, overrides), Path(out), **options), say=lambda line: None, progress=False)


def refused(path: Path, *overrides: str, **options: Any) -> str:
    with pytest.raises((UsageError, DataError)) as error:
        plan(read_bench(path, overrides), Path("out"), **options)
    return str(error.value)


def test_runs_are_ordinary_and_finished_ones_are_passed_over(write: Write, started: list[Job]) -> None:
    outcome = go(write())
    assert (outcome.count, outcome.failures) == (2, [])
    folder = Path("out/bars/labels-3-per-class/fixmatch/seed-0")
    assert {"config.yaml", "metrics.json", "card.json", "splits.json", "predictions"} <= set(os.listdir(folder))
    config = load(folder / "config.yaml")
    assert (config.method.name, config.baseline, config.model.name) == ("fixmatch", False, "small")
    assert json.loads((folder / "cell.json").read_text()) == {
        "data": "bars", "labels": "3-per-class", "method": "fixmatch",
    }  # fmt: skip
    again = [job.command()[-2:] for job in started]
    assert again == [
        ["--resume", f"out/bars/labels-3-per-class/{name}/seed-0"] for name in ("supervised_strong", "fixmatch")
    ]
    kept = (folder / "metrics.json").read_bytes()
    go(write(seeds="0:2"))
    assert [job.name for job in started[2:]] == [
        "bars, 3-per-class labels, supervised_strong, seed 1", "bars, 3-per-class labels, fixmatch, seed 1",
    ]  # fmt: skip
    assert (folder / "metrics.json").read_bytes() == kept


def test_a_teacher_that_is_no_average_is_told_before_the_first_run(write: Write) -> None:
    path = write(methods=["fixmatch", "mean_teacher"], settings=SETTINGS | {"ema": 0})
    message = refused(path)
    assert "mean_teacher: The method takes its pseudo-labels from an average of the weights, and there is" in message
    assert "fixmatch" not in message


def test_a_failing_run_stops_no_other(write: Write, started: list[Job]) -> None:
    path = write(methods=[{"method": "fixmatch", "name": "broken"}, "supervised"], baseline=None)
    outcome = go(path)
    assert [job.name.split(", ")[2] for job in started] == ["broken", "supervised"]
    with pytest.raises(CollapseError) as error:  # the exit code of the run
        outcome.raise_failures("sfumato bench bench.yaml -o out")
    assert str(error.value).splitlines() == [
        "1 of 2 runs ended without a result; the others are finished:",
        "- bars, 3-per-class labels, broken, seed 0: it broke (out/bars/labels-3-per-class/broken/seed-0/log.txt)",
        "Once mended, go on with them: sfumato bench bench.yaml -o out",
    ]
    go(path)
    assert [job.name.split(", ")[2] for job in started[2:]] == ["broken"]


def test_two_benches_do_not_share_a_folder(write: Write, started: list[Job]) -> None:
    planned = plan(read_bench(write()), Path("out"))
    Path("out").mkdir()
    with files.alone(Path("out")), pytest.raises(DataError, match=r"out is in use by another process. Wait until it"):
        bench(planned, say=lambda line: None, progress=False)
    assert not started
    Path("other").mkdir()
    (Path("other") / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="other exists already, and nothing is overwritten"):
        plan(planned.file, Path("other"))


def test_a_changed_file_is_refused_where_runs_have_begun(write: Write, started: list[Job]) -> None:
    go(write())
    message = refused(write(settings=SETTINGS | {"steps": 6, "lr": 0.3}))
    first, second, mend = message.splitlines()[1:]
    assert first.startswith("- out/bars/labels-3-per-class/supervised_strong/seed-0 holds a run with other settings: ")
    assert "train.steps is 6 now and was 4" in first
    assert "train.lr is 0.3 now and was 0.1" in first
    assert "/fixmatch/seed-0 holds" in second
    assert mend.startswith("- The file or the command line has changed since. Put it back, give the entries another")
    assert not refused_log_every(write)
    told: list[str] = []
    path = write(methods=["supervised"], baseline=None)
    bench(plan(read_bench(path), Path("out")), say=told.append, progress=False)
    assert told[1] == (
        "note: not in this grid, and left as they are: 'out/bars/labels-3-per-class/fixmatch/seed-0', "
        "'out/bars/labels-3-per-class/supervised_strong/seed-0'"
    )


def refused_log_every(write: Write) -> list[Any]:
    """What changes no result may change."""
    return plan(read_bench(write(settings=SETTINGS | {"log_every": 1})), Path("out")).left


def test_runs_that_have_not_begun_follow_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "run_all", lambda *_, **__: None)
    go(write())
    go(write(settings=SETTINGS | {"steps": 6}))
    assert load(Path("out/bars/labels-3-per-class/fixmatch/seed-0/config.yaml")).train.steps == 6


def test_other_data_is_refused(write: Write, started: list[Job]) -> None:
    go(write())
    save(Path("bars/left/new.png"), 0, 77)
    message = refused(write())
    assert "splits.json: made for other data than " in message
    assert "images 1 new (" in message


def test_everything_wrong_with_the_data_at_once_and_no_folder(write: Write) -> None:
    class_folders(Path("all"), unlabeled=0)
    labels = [{"labels_per_class": 3}, {"labels_per_class": 500}, "all"]
    lines = refused(
        write(data=["bars", "gone", {"source": "all", "include_labeled": False}], labels=labels)
    ).splitlines()
    assert lines[0] == "This bench cannot run:"
    assert sum(line.startswith("- gone: gone: no such file or folder") for line in lines) == 1
    assert any("bars, 500-per-class labels, fixmatch: " in line and "class 'left' has" in line for line in lines)
    told = "- all, all labels, fixmatch: there are no unlabelled images, so nothing but labels-only methods"
    assert any(line.startswith(told) for line in lines)
    assert not any(", 3-per-class labels" in line for line in lines)
    assert not Path("out").exists()


# Threads


def test_threads_stay_with_a_bench(write: Write, started: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "all_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(run_module, "cores", lambda: 8)
    path = write(methods=["supervised"], baseline=None)
    file = read_bench(path)

    def threads(**options: int) -> tuple[int, int]:
        found = plan(file, Path("out"), **options)
        return found.jobs, found.threads

    assert (threads(), threads(jobs=2), threads(jobs=3)) == ((8, 1), (2, 4), (3, 2))
    assert threads(jobs=2, threads=3) == (2, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert (threads(jobs=2), threads(jobs=4), threads(jobs=2, threads=5)) == ((2, 3), (4, 2), (2, 5))
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # one number a level of nesting: not for this
    assert threads(jobs=1) == (1, 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    go(path, jobs=2)
    assert json.loads(Path("out/bench.json").read_text())["threads"] == 4
    assert threads(jobs=8) == (8, 4)
    message = refused(path, threads=1)
    assert message.startswith("--threads 1: the runs in out began with 4, and another number may change")
    assert "--jobs 0: expected a whole number" in refused(path, jobs=0)


def test_each_process_has_its_threads_and_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real pool, with a command that prints its surroundings."""
    from sfumato.run import pool

    class Shown(Job):
        def command(self) -> list[str]:
            told = (
                'print(*map(os.environ.get, ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")), os.getpid() == os.getsid(0))'
            )
            return ["python3", "-c", f"import os, time; time.sleep(0.5); {told}; raise SystemExit(3)"]

    jobs = [Shown(name, tmp_path / name, [], 1) for name in ("a", "b", "c")]
    failures: list[Failure] = []
    pool.run_all(
        jobs, tmp_path, say=print, progress=False, again="", at_once=2, threads=3, devices=["5", "7"],
        failed=failures.append,
    )  # fmt: skip
    lines = sorted(failure.tail() for failure in failures)
    assert sorted({line.split()[1] for line in lines}) == ["5", "7"]
    assert {line.split()[0] for line in lines} == {"3"}
    assert all(line.endswith("True") for line in lines)  # a session of its own: Ctrl-C does not reach it
    assert {failure.code for failure in failures} == {3}
    with pytest.raises(DataError, match="a stopped with exit code 3"):
        pool.run_all(jobs[:1], tmp_path, say=print, progress=False, again="")


def test_planned_runs_left(write: Write, started: list[Job]) -> None:
    path = write(seeds="0:2", methods=["supervised"], baseline=None)
    planned: Plan = plan(read_bench(path), Path("out"))
    assert len(planned.left) == 2
    go(path, "seeds=0")
    assert [cell.seed for cell in planned.left] == [1]

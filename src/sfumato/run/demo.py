"""The demo of a task: five methods on few labels, each run a process of its own, then table, verdicts and report.

Every process computes on one thread, so that results do not depend on how many run at a time. A demo that was stopped
goes on where it was: finished runs are kept, the others resumed.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.config import load
from sfumato.data.task import Task
from sfumato.errors import DataError, UsageError, nearest
from sfumato.methods import METHODS
from sfumato.run import files, prepare
from sfumato.run.judge import judge
from sfumato.run.part import Say
from sfumato.run.pool import Job, run_all
from sfumato.run.table import Row, row

SETTINGS = "demo.json"
SHORT_STEPS = {"classification": 60, "segmentation": 20}


@dataclass(frozen=True)
class Scene:
    """What a task's demo is of."""

    folder: str
    methods: tuple[str, ...]
    labels: int
    settings: tuple[str, ...]  # of `sfumato train`
    short: tuple[str, ...]  # the same on little data, to see that all works


SCENES: dict[Task, Scene] = {
    "classification": Scene(
        "demo",
        ("supervised", "supervised_strong", "fixmatch", "uncertainty_weighted", "uncertainty_weighted_flat"),
        40,
        ("data.source=mnist5k", "data.val=500", "recipe=quick"),
        ("data.source=digits", "data.val=200", "recipe=quick"),
    ),
    "segmentation": Scene(
        "demo-seg",
        ("supervised_strong", "fixmatch", "farcluss", "csl", "unimatch"),
        32,  # of fewer, rare classes are in one or two masks; of more, a few hundred steps do not come to learn them
        ("data.source=shapes", "recipe=quick_seg", "train.steps=800", "train.lr=0.01"),
        ("data.source=shapes", "recipe=quick_seg"),
    ),
}


@dataclass(frozen=True)
class Plan:
    """labels: images with a label, or with a mask, in all. short: few steps, to see that all works.

    Raises UsageError for an unknown method.
    """

    task: Task
    labels: int
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    short: bool

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in METHODS:
                raise UsageError(f"method '{name}' is unknown.{nearest(name, METHODS)} `sfumato methods` lists them.")

    @property
    def scene(self) -> Scene:
        return SCENES[self.task]

    @property
    def arguments(self) -> list[str]:
        """Of `sfumato train`, the same for every run. What is tuned in the recipe was tuned on validation images."""
        steps = [f"train.steps={SHORT_STEPS[self.task]}"] if self.short else []
        return [*(self.scene.short if self.short else self.scene.settings), *steps, f"data.labels={self.labels}"]

    def as_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


@dataclass(frozen=True)
class Shown:
    """The result: one row a method, one verdict for each method that uses unlabelled images."""

    folder: Path
    rows: list[Row]
    verdicts: dict[str, dict[str, Any]]
    report: Path


def demo(plan: Plan, *, out: Path | None = None, say: Say = print, progress: bool = True) -> Shown:
    """Run what is missing and show all of it.

    Raises:
        UsageError: the data's package is not installed.
        DataError: `out` holds something else.
        CollapseError: a loss was not finite.
        Interrupted: Ctrl-C or SIGTERM; the runs are saved.
    """
    config = load(overrides=plan.arguments)
    table = prepare.open_table(prepare.located(config))  # also fills the cache, which the processes share
    folder = _folder(plan, out)
    files.write_json(folder / SETTINGS, plan.as_json())
    jobs = [
        _job(folder, method, seed, plan, config.train.steps)
        for seed in plan.seeds
        for method in _longest_first(plan.methods)
    ]
    say(f"{len(jobs)} runs in {folder}, {plan.labels} labels each; finished ones are kept")
    again = " ".join(["sfumato demo", *_flags(plan), f"-o {shlex.quote(str(folder))}"])
    run_all(jobs, folder / "logs", say=say, progress=progress, again=again)
    return _shown(plan, folder, table)


def _folder(plan: Plan, out: Path | None) -> Path:
    """A new one, or that of the same demo begun before."""
    if out is not None:
        begun = _begun(out)
        if begun is None:
            return files.claim(out, "")
        differ = [key for key in ("task", "labels", "short") if begun.get(key) != plan.as_json()[key]]
        if differ:
            told = ", ".join(f"{key}={begun.get(key)}" for key in differ)
            raise DataError(f"{out} holds a demo with {told}. Go on with that, or give another folder with -o.")
        return out
    name, number = plan.scene.folder + ("-short" if plan.short else ""), 1
    while True:
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not path.exists() or _begun(path) == plan.as_json():
            path.mkdir(parents=True, exist_ok=True)
            return path
        number += 1


def _begun(folder: Path) -> dict[str, Any] | None:
    path = folder / SETTINGS
    return files.read_json(path, "Give another folder with -o.") if path.exists() else None


def _longest_first(methods: Sequence[str]) -> list[str]:
    """Labels-only runs are a third as long: last, they fill the gaps."""
    return sorted(methods, key=lambda name: not prepare.uses_unlabeled(name))


def _job(folder: Path, method: str, seed: int, plan: Plan, steps: int) -> Job:
    return Job(
        name=f"{method}, seed {seed}",
        folder=folder / method / f"seed-{seed}",
        arguments=[f"method={method}", f"seed={seed}", *plan.arguments],
        steps=steps,
    )


def _flags(plan: Plan) -> list[str]:
    flags = [] if plan.task == "classification" else [f"--task {plan.task}"]
    flags += [f"--labels {plan.labels}", f"--seeds {','.join(map(str, plan.seeds))}"]
    if plan.methods != plan.scene.methods:
        flags.append(f"--methods {','.join(plan.methods)}")
    return [*flags, "--short"] if plan.short else flags


def _shown(plan: Plan, folder: Path, table: prepare.AnyTable) -> Shown:
    from sfumato.report import write_report  # draws with matplotlib, which takes a second to import

    folders = {name: [folder / name / f"seed-{seed}" for seed in plan.seeds] for name in plan.methods}
    metrics = {name: [files.metrics_of(path) or {} for path in paths] for name, paths in folders.items()}
    rows = [row(name, metrics[name]) for name in plan.methods]
    fair = prepare.FAIR_BASELINE
    rivals = [name for name in plan.methods if prepare.uses_unlabeled(name)] if fair in folders else []
    verdicts = {name: judge(folders[name], folders[fair], name=name, against=fair) for name in rivals}
    for name, verdict in verdicts.items():
        files.write_json(folder / name / files.VERDICT, verdict)
    if verdicts:  # of the whole folder: the method that validation images would choose
        chosen = max(rivals, key=lambda name: sum(run["val"][run["criterion"]] for run in metrics[name]))
        files.write_json(folder / files.VERDICT, verdicts[chosen])
    files.write_json(folder / "table.json", {**plan.as_json(), "rows": [one.as_json() for one in rows]})
    report = write_report(folder, images=prepare.pictures(table))
    return Shown(folder, rows, verdicts, report)

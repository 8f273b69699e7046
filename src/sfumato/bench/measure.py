"""A few steps of a training that is thrown away: how long a step takes, and how much memory it needs."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sfumato.config import Config
from sfumato.run import held_labels, prepare, rounds
from sfumato.train import Result, train
from sfumato.types import Rounds

SOME = 3  # steps between two looks at the clock
IMAGES = 64  # that the network is tried on
STAND_IN = "fixmatch"  # of methods that train on labels on the disk, which are not there yet: one more view


@dataclass(frozen=True)
class Cost:
    """Of a training on this machine, in seconds and GiB."""

    start: float  # imports, data, and the like
    labels_only: float  # a step of labels alone
    full: float  # a step
    image: float  # one image of an evaluation
    memory: float
    device_memory: float  # of the accelerator, 0 without one
    trainings: int = 1  # one after the other, by what labels are held out; those of rounds count themselves

    def count(self, config: Config) -> int:
        """How many trainings a run has, each of all steps."""
        plan = rounds.plan_of(config)
        return self.trainings if plan is None else plan.count

    def seconds(self, config: Config, held_out: Mapping[str, int]) -> float:
        """Of a whole run. held_out: images of val and test."""
        steps = config.train.steps
        stored = isinstance(rounds.plan_of(config), Rounds)
        warm = 0 if stored else round(config.train.unlabeled_start * steps)
        one = warm * self.labels_only + (steps - warm) * self.full
        count = self.count(config)
        trainings = steps * self.labels_only + (count - 1) * one if stored else count * one
        evaluations = -(-steps // config.train.eval_every) * held_out["val"]
        last = 3 * (held_out["val"] + held_out["test"])  # averaged weights, the student, the best on validation
        return self.start + trainings + count * (evaluations + last) * self.image

    @property
    def steps_per_second(self) -> float:
        return 1 / self.full


def measure(config: Config, threads: int) -> tuple[Cost, dict[str, int]]:
    """The cost of a run of settled settings, and how many images it holds out; takes a process of its own.

    Four times SOME steps: labels alone, then all, of each the second half is timed, once everything is warm.
    """
    torch.set_num_threads(threads)
    started, imports = time.monotonic(), time.process_time()
    config = config.with_method(STAND_IN) if isinstance(rounds.plan_of(config), Rounds) else config
    table = prepare.open_table(config)
    splits = prepare.draw(config, table)
    model = prepare.make_model(config, table)
    data: Any = prepare.make_data(config, table, splits, model)
    method = prepare.make_method(config, data)
    ready = time.monotonic() - started
    few = replace(
        config.train, steps=4 * SOME, epochs=None, unlabeled_start=0.5, log_every=SOME, eval_every=4 * SOME,
        save_every=4 * SOME, on_collapse="warn", tensorboard=False,
    )  # fmt: skip
    shown = replace(data, splits=replace(splits, val=splits.val[:0]))
    result = train(method, model, shown, few, seed=config.seed, quiet=True)
    rates = [record["perf/images_per_s"] for record in result.history if "perf/images_per_s" in record]
    labeled = SOME * config.train.batch_size
    unlabeled = labeled * config.train.unlabeled_ratio if prepare.sees_unlabeled(config.method.name) else 0
    cost = Cost(
        start=imports + ready,
        labels_only=labeled / rates[1] / SOME,
        full=(labeled + unlabeled) / rates[3] / SOME,
        image=_evaluation(data, result),
        memory=highest_memory(),
        device_memory=torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else 0.0,
        trainings=held_labels.trainings(config, table),
    )
    return cost, {"val": len(splits.val), "test": len(splits.test)}


def _evaluation(data: Any, result: Result) -> float:
    """Seconds of an image."""
    rows = data.splits.test if len(data.splits.test) else data.splits.val
    if not len(rows):
        return 0.0
    rows = rows[:IMAGES]
    started = time.monotonic()
    data.score(result.model, rows, result.device)
    return (time.monotonic() - started) / len(rows)


def highest_memory() -> float:
    """Of this process so far, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says goes back to the process that started this one
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def silent() -> None:
    """Of a process that measures: what it warns of is no news, and Ctrl-C ends it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives

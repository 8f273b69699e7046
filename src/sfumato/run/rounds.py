"""Self-training in rounds: train, label images on the disk, train another network from scratch on these labels too.

A run of a method whose views are `stored` has

    rounds/1/        the network of labels only, and what it labels
    rounds/2/ ...    where there are more than two rounds: the networks that follow, and what they label
    (itself)         the last network, as of any other method

Runs in which images join the labeled set are `run.generations`.

Each training is resumed as any is, and labels are never made twice, so that a run can be stopped anywhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sfumato import addons, checkpoint, distributed
from sfumato.config import Config
from sfumato.data import Splits, Table
from sfumato.errors import DataError, UsageError
from sfumato.functional.stability import most_stable, stability
from sfumato.image_data import ImageData
from sfumato.methods import Facts, build
from sfumato.run import label_files, prepare
from sfumato.run.generations import run_generations
from sfumato.run.label_files import Rows, Share
from sfumato.run.labeler import loaded, probabilities, weights_of
from sfumato.run.part import Round, Say, finished, run_part
from sfumato.run.ranks import is_first, own_device
from sfumato.types import Generations, Pick, Rounds

COPIES = 3  # of the first network: after a third, two thirds and all of its steps


def plan_of(config: Config) -> Rounds | Generations | None:
    """The trainings of the method and its add-on; None if there is one."""
    facts = Facts(2, 1, config.data.task == "segmentation", num_labeled=2, label_counts=(1, 1))
    method, addon = build(config.method.name, facts, config.method.options), config.addon
    if addon.name is not None and addons.entry(addon.name).generations:
        addons.join(addon.name, method, facts, addon.options, method_name=config.method.name)
    return method.rounds


def to_label(splits: Splits) -> Rows:
    """The rows that are trained on without a label of their own."""
    return np.setdiff1d(splits.unlabeled, splits.labeled)


def check(config: Config, plan: Rounds | Generations, splits: Splits) -> None:
    """Raise a UsageError for what the rounds of this run cannot do."""
    name = config.method.name
    if plan.labeler == "best" and not len(splits.val):
        raise UsageError(f"{name}.labeler=best: there is no validation split to choose by. Use labeler=last.")
    if isinstance(plan, Rounds) and plan.reliable is not None and config.train.steps < COPIES:
        raise UsageError(
            f"steps={config.train.steps}: {name} compares {COPIES} copies of a network on the way. "
            f"Take at least {COPIES} steps, or more epochs."
        )


def in_words(config: Config, plan: Rounds | Generations) -> str:
    steps = config.train.steps
    most, word = "", "rounds"
    if isinstance(plan, Generations):
        most, word = ("at most ", "rounds") if plan.stay else ("", "generations")
    return f"{most}{plan.count} {word} of {steps:,} steps, {plan.count * steps:,} in all"


def run_rounds(
    config: Config, table: prepare.AnyTable, splits: Splits, folder: Path, *, say: Say, quiet: bool
) -> dict[str, Any]:
    """All rounds, or what is missing of them; the metrics of the last network, with those of the others beside."""
    label = f"{config.label}, seed {config.seed}"
    metrics = finished(folder, label, say)
    if metrics is not None:
        return metrics
    plan = plan_of(config)
    assert plan is not None
    say(f"{label}: {in_words(config, plan)}")
    if isinstance(plan, Generations):
        assert isinstance(table, Table)
        return run_generations(config, table, splits, folder, plan, say=say, quiet=quiet)
    work = _Work(config, table, splits, folder, plan, say, quiet)
    metrics = work.train(1, [])
    shares: list[Share] = []
    for number, rows in enumerate(work.shares(), start=1):
        new = (work.place(number), work.label(number, rows))
        shares = [new] if work.plan.reliable is None else [*shares, new]
        metrics = work.train(number + 1, shares)
    return metrics


class _Work:
    """What the rounds of one run have in common."""

    def __init__(
        self,
        config: Config,
        table: prepare.AnyTable,
        splits: Splits,
        folder: Path,
        plan: Rounds,
        say: Say,
        quiet: bool,
    ) -> None:
        self.config, self.table, self.splits, self.folder = config, table, splits, folder
        self.say, self.quiet = say, quiet
        self.rows = to_label(splits)
        self.model = prepare.make_model(config, table)
        self.data = prepare.make_data(config, table, splits, self.model)
        self.plan = plan if len(self.rows) > 1 else replace(plan, reliable=None)  # one image has no halves
        self.device = own_device()
        self.earlier: list[dict[str, Any]] = []

    def place(self, number: int) -> Path:
        return self.folder if number == self.plan.count else self.folder / "rounds" / str(number)

    def train(self, number: int, shares: list[Share]) -> dict[str, Any]:
        """The network of a round, on the labels and on what earlier ones have labeled."""
        config = self.config if shares else self.config.with_method(self.plan.first)
        rows = np.sort(np.concatenate([rows for _, rows in shares])) if shares else self.splits.unlabeled
        copies = COPIES if number == 1 and self.plan.reliable is not None else 0
        this = Round(
            number,
            self.plan.count,
            self.config.label,
            tuple(shares),
            copies,
            self.plan.soft,
            earlier=tuple(self.earlier),
        )
        splits, place = replace(self.splits, unlabeled=rows), self.place(number)
        metrics = run_part(config, self.table, splits, place, say=self.say, quiet=self.quiet, this=this)
        distributed.barrier()  # what the first rank wrote is there
        self.earlier.append(metrics)
        return metrics

    def shares(self) -> list[Rows]:
        """Which images the first network labels, the second and so on."""
        if self.plan.reliable is None:
            return [self.rows] * self.plan.labelings
        place = self.place(1)
        if not (place / label_files.RELIABILITY).exists():
            self._rank(place, self.plan.reliable)
        distributed.barrier()
        return label_files.read_reliability(place, self.table.names, self.rows)

    def _rank(self, place: Path, share: float) -> None:
        paths = checkpoint.copies(place / checkpoint.COPIES)
        if len(paths) < COPIES:
            raise DataError(
                f"{place / checkpoint.COPIES}: {len(paths)} copies of the first network; expected {COPIES}. "
                f"Delete {place}, and `sfumato train --resume` trains it again."
            )
        self.say(f"{self.config.label}: comparing {COPIES} copies of the network on {len(self.rows):,} images")
        nets = [self._loaded(path) for path in paths]
        found = self.data.predictions(nets, self.rows, self.device, flip=self.plan.flip)
        each = [stability(torch.stack(labels), self.data.num_classes) for _, labels in found]
        mine = torch.cat([*each, torch.zeros(0, dtype=torch.float64)])
        whole = distributed.gather(mine.to(self.device)).cpu()
        distributed.barrier()
        if is_first():
            reliable = self.rows[most_stable(whole, share).numpy()]
            label_files.write_reliability(place, self.table.names, self.rows, whole, reliable)

    def label(self, number: int, rows: Rows) -> Rows:
        """Label these, and give those to train on."""
        place = self.place(number)
        if not (place / label_files.LIST).exists():
            self.say(f"{self.config.label}: the network of round {number} labels {len(rows):,} images")
        distributed.barrier()
        weights = weights_of(place, self.plan.labeler)
        if self.plan.keep is not None:
            return self._kept(number, place, rows, weights, self.plan.keep)

        def predict(some: Rows) -> Any:
            return self.data.predictions([self._loaded(weights)], some, self.device, flip=self.plan.flip)

        label_files.write(place, self.table, rows, predict, self.device)
        return rows

    def _kept(self, number: int, place: Path, rows: Rows, weights: Path, keep: Pick) -> Rows:
        """Label these with probabilities, by which those to train on are chosen."""
        data = self.data
        assert isinstance(data, ImageData)
        label_files.write_distributions(
            place, data.table, rows, lambda: probabilities(data, self._loaded(weights), rows, self.device)
        )
        p = label_files.read_distributions(place, rows, data.num_classes)
        kept: Rows = rows[keep(torch.from_numpy(np.array(p)), data.label_counts()).numpy()]
        if not len(kept):
            raise UsageError(
                f"{self.config.label}: the network of round {number} is not sure enough of any image, its highest "
                f"confidence being {p.max():.3f}. Train longer, or start anew with a lower method.threshold."
            )
        return kept

    def _loaded(self, path: Path) -> nn.Module:
        return loaded(self.config, self.table, path, self.device)

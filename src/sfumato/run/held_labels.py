"""Runs of a method that learns from held-out labels, where half of the training labels are held out.

`split_online` trains once, on one half, and learns from the other. `split_estimate` trains twice:

    rounds/1/        on one half, learning from the other
    curriculum.npz   what had been learned by each evaluation of it, offsets and thresholds (evaluations, C)
    (itself)         on all labels, by this record

Each training is resumed as any is, and the record is written once, so that a run can be stopped anywhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato import distributed
from sfumato.addons import join
from sfumato.config import Config
from sfumato.data import Splits
from sfumato.data.listing import examples
from sfumato.data.pairs import PairTable
from sfumato.data.shuffle import permutation
from sfumato.data.stratify import draw_per_class
from sfumato.errors import DataError, UsageError
from sfumato.functional.precision import FEWEST
from sfumato.methods import Facts, Method, build
from sfumato.methods.base import HeldLabels
from sfumato.rules import ClassOffset
from sfumato.run import files, prepare
from sfumato.run.part import Lesson, Round, Say, finished, run_part
from sfumato.run.ranks import is_first
from sfumato.running.curriculum import Curriculum, Replay

RECORD = "curriculum.npz"
Rows = NDArray[np.int64]


def held_labels(config: Config, table: prepare.AnyTable) -> HeldLabels | None:
    """Whose labels teach the method what it learns from held-out ones; None if it learns nothing from any."""
    if config.addon.name is None:
        return None
    classes = len(table.classes)
    facts = Facts(classes, 1, config.data.task == "segmentation", num_labeled=1, label_counts=(1,) * classes)
    method = build(config.method.name, facts, config.method.options)
    join(config.addon.name, method, facts, config.addon.options, method_name=config.method.name)
    return method.held_labels


def trainings(config: Config, table: prepare.AnyTable) -> int:
    """How many there are in a run, each of all steps."""
    return 2 if held_labels(config, table) == "split_estimate" else 1


def check(config: Config, method: Method, table: prepare.AnyTable, splits: Splits) -> None:
    """Raise a UsageError where there are no labels to learn from."""
    if method.held_labels == "extra" and not len(splits.val):
        raise UsageError(
            f"{config.label} learns from the labels of the validation split (addon.val=extra), and there is none. "
            "Let it hold out half of the training labels: addon.val=split_estimate, which trains twice, the second "
            "time on all labels, or addon.val=split_online. Or set val to a number of labelled images."
        )
    if method.held_labels not in (None, "extra") and not len(halves(table, splits, config.seed)[1]):
        what = "there are no 2 masks" if isinstance(table, PairTable) else "no class has 2 labels"
        raise UsageError(
            f"addon.val={method.held_labels}: half of the labels is to be held out, and {what}. Label more, or learn "
            "from the validation split: addon.val=extra."
        )


def in_words(config: Config, table: prepare.AnyTable, splits: Splits) -> list[str]:
    """What is done with the labels, and of which classes too few are held out."""
    how = held_labels(config, table)
    if how is None:
        return []
    if how == "extra":
        return _too_few(table, splits, splits.val)
    kept, held = halves(table, splits, config.seed)
    steps = config.train.steps
    plan = f"half of the labels is held out: {len(kept):,} to train on, {len(held):,} to learn from"
    if how == "split_estimate":
        plan = f"2 trainings of {steps:,} steps, {2 * steps:,} in all; in the first {plan}"
    return [plan, *_too_few(table, splits, held)]


def halves(table: prepare.AnyTable, splits: Splits, seed: int) -> tuple[Rows, Rows]:
    """The labeled rows to train on, and those held out: half of each class, one less where it has an odd number.

    Of masks, which hold many classes each, half of the images.
    """
    if isinstance(table, PairTable):
        order = permutation(len(splits.labeled), seed, "held out")
        held = np.sort(splits.labeled[order[: len(order) // 2]])
    else:
        labels = splits.told(table.labels)
        take = np.bincount(labels[splits.labeled], minlength=len(table.classes)) // 2
        held = draw_per_class(labels, splits.labeled, take, (seed, "held out"))
    return np.setdiff1d(splits.labeled, held), held


def _too_few(table: prepare.AnyTable, splits: Splits, held: Rows) -> list[str]:
    if isinstance(table, PairTable):
        return []
    counts = np.bincount(splits.told(table.labels)[held], minlength=len(table.classes))
    few = [name for name, count in zip(table.classes, counts, strict=True) if 0 < count < FEWEST]
    none = [name for name, count in zip(table.classes, counts, strict=True) if count == 0]
    told = []
    if few:
        told.append(
            f"classes with fewer than {FEWEST} held-out labels share a threshold with others as frequent: {len(few)} "
            f"({examples(few)})"
        )
    if none:
        told.append(
            f"classes without any held-out label have no offset, and the threshold of the rarest others: {len(none)} "
            f"({examples(none)})"
        )
    return told


def run_held(
    config: Config, table: prepare.AnyTable, splits: Splits, folder: Path, *, say: Say, quiet: bool
) -> dict[str, Any]:
    """As `run_part`, with what labels are held out; in two trainings, or what is missing of them, if it takes two."""
    how, label = held_labels(config, table), f"{config.label}, seed {config.seed}"
    metrics = finished(folder, label, say)
    if metrics is not None:
        return metrics
    for line in in_words(config, table, splits):
        say(f"{label}: {line}")
    if how is None or how == "extra":
        return run_part(config, table, splits, folder, say=say, quiet=quiet)
    kept, held = halves(table, splits, config.seed)
    some = replace(splits, labeled=kept)
    if how == "split_online":
        return run_part(config, table, some, folder, say=say, quiet=quiet, lesson=Lesson(held))
    record = folder / RECORD
    first = run_part(
        config, table, some, folder / "rounds" / "1", say=say, quiet=quiet, this=Round(1, 2, config.label),
        lesson=Lesson(held, lambda method: _record(config, method), lambda method: _write(record, config, method)),
    )  # fmt: skip
    distributed.barrier()  # what the first rank wrote is there
    return run_part(
        config, table, splits, folder, say=say, quiet=quiet, this=Round(2, 2, config.label, earlier=(first,)),
        lesson=Lesson(None, lambda method: _replay(record, config, method)),
    )  # fmt: skip


def evaluations(config: Config) -> list[int]:
    """After which steps a training is evaluated."""
    steps, every = config.train.steps, config.train.eval_every
    return [*range(every, steps, every), steps]


def _rule(method: Method) -> ClassOffset:
    return next(rule for rule in method.modules() if isinstance(rule, ClassOffset))


def _record(config: Config, method: Method) -> None:
    learner = _rule(method).curriculum
    assert isinstance(learner, Curriculum)
    learner.record(len(evaluations(config)))


def _write(path: Path, config: Config, method: Method) -> None:
    learner = _rule(method).curriculum
    assert isinstance(learner, Curriculum)
    assert learner.history is not None
    if is_first():
        offsets, thresholds = learner.history.cpu().unbind(dim=1)
        steps = np.array(evaluations(config))
        files.write_arrays(path, {"steps": steps, "offsets": offsets.numpy(), "thresholds": thresholds.numpy()})


def _replay(path: Path, config: Config, method: Method) -> None:
    try:
        with np.load(path) as found:
            steps, *rows = (found[key] for key in ("steps", "offsets", "thresholds"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: what the first training has learned cannot be read ({error}). Delete {path.parent / 'rounds'}, "
            "and `sfumato train --resume` trains it again."
        ) from error
    if steps.tolist() != evaluations(config):
        raise DataError(
            f"{path}: recorded after steps {steps.tolist()[:3]}..., expected {evaluations(config)[:3]}... Restore the "
            "file, or start a new run."
        )
    offsets, thresholds = (torch.from_numpy(values) for values in rows)
    _rule(method).curriculum = Replay(evaluations(config), offsets, thresholds)

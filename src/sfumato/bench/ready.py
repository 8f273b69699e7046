"""All but training: what can be known to be wrong with any run of a bench is told before the first one starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sfumato.bench.grid import Cell, distinct
from sfumato.config import Config, flat, identity, load
from sfumato.config.check import COUNTS
from sfumato.data import Splits
from sfumato.errors import DataError, SfumatoError, UsageError
from sfumato.run import files, prepare, rounds
from sfumato.run.experiment import rehearse

TOLD = 3  # differences


def ready(every: Sequence[Cell], folder: Path) -> list[Cell]:
    """The runs with every "auto" of their settings decided by their data, which are read for that.

    folder: of the bench; what runs have left there must be of the same settings and data.

    Raises the SfumatoError of one mistake, or one with all of them.
    """
    checked: dict[tuple[str, str, str], Config] = {}
    mistakes: dict[str, SfumatoError] = {}
    for group in _by_table(list(distinct(every))):
        try:
            table = prepare.open_table(prepare.located(group[0].config))
        except SfumatoError as error:
            mistakes.setdefault(f"{group[0].data}: {error}", error)
            continue
        for cell in group:
            try:
                checked[cell.data, cell.labels, cell.method] = _checked(cell.config, table)
                _refuse_other_data(cell, every, folder, table)
            except SfumatoError as error:
                mistakes.setdefault(f"{cell.setting}, {cell.method}: {error}", error)
    if not mistakes:
        found = [_with(cell, checked[cell.data, cell.labels, cell.method]) for cell in every]
        mistakes = _other_settings(found, folder)
    if mistakes:
        raise _together(mistakes)
    return found


def _with(cell: Cell, config: Config) -> Cell:
    return replace(cell, config=config.with_seed(cell.seed))


def _by_table(found: Sequence[Cell]) -> Iterator[list[Cell]]:
    """The runs that read the same table, so that only one is in memory at a time."""
    groups: dict[str, list[Cell]] = {}
    for cell in found:
        section = {key: value for key, value in flat(cell.config).items() if key.startswith("data.")}
        key = json.dumps({key: value for key, value in section.items() if key not in COUNTS}, sort_keys=True)
        groups.setdefault(key, []).append(cell)
    yield from groups.values()


def _checked(config: Config, table: prepare.AnyTable) -> Config:
    config = prepare.settled(prepare.located(config), table)
    splits = rehearse(config, table)
    method = config.method.name
    to_label = rounds.to_label(splits) if rounds.plan_of(config) is not None else splits.unlabeled
    if prepare.uses_unlabeled(method) and not len(to_label):
        raise DataError("there are no unlabelled images, so nothing but labels-only methods can be compared.")
    return prepare.counted(config, splits)


# What is in the folder already


def begun(folder: Path) -> bool:
    """Whether a run has left anything that depends on its settings."""
    return (folder / files.SPLITS).exists() or (folder / files.METRICS).exists()


def _refuse_other_data(cell: Cell, every: Sequence[Cell], folder: Path, table: prepare.AnyTable) -> None:
    """Finished runs are not trained again, so nobody else would notice; one of them tells."""
    same = (folder / one.path for one in every if (one.data, one.labels) == (cell.data, cell.labels))
    kept = next((path / files.SPLITS for path in same if (path / files.SPLITS).exists()), None)
    if kept is not None:
        Splits.load(kept, table)


def _other_settings(every: Sequence[Cell], folder: Path) -> dict[str, SfumatoError]:
    found: dict[str, SfumatoError] = {}
    for cell in every:
        path = folder / cell.path
        if not begun(path):
            continue
        old, new = identity(load(path / files.CONFIG)), identity(cell.config)
        differ = [key for key in old | new if old.get(key) != new.get(key)]
        if differ:
            told = [f"{key} is {new.get(key)!r} now and was {old.get(key)!r}" for key in differ[:TOLD]]
            more = f" and {len(differ) - TOLD} more" if len(differ) > TOLD else ""
            message = f"{path} holds a run with other settings: {'; '.join(told)}{more}."
            found[message] = DataError(message)
    if found:
        mend = (
            "The file or the command line has changed since. Put it back, give the entries another `name` to keep "
            "both, delete these folders to train them anew, or take another folder with --out."
        )
        found[mend] = DataError(mend)
    return found


def _together(mistakes: Mapping[str, SfumatoError]) -> SfumatoError:
    """One error for all, with the exit code of the first."""
    messages = list(mistakes)
    kind = UsageError if isinstance(mistakes[messages[0]], UsageError) else DataError
    if len(messages) == 1:
        return kind(messages[0])
    return kind("\n".join(["This bench cannot run:", *(f"- {message}" for message in messages)]))

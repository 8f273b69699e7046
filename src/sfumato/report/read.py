"""Run folders -> `Account`. Three layouts are understood.

- one run: `metrics.json`, `metrics.jsonl`, ..., and `baseline/` of the same layout;
- several seeds: `seed-0/`, `seed-1/`, ..., each a run, with `baseline/` beside or inside them;
- several methods: a folder for each, holding a run or several seeds, with `verdict.json` and `table.json` beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sfumato.criterion import criterion_of
from sfumato.errors import DataError
from sfumato.report import load, wording
from sfumato.report.doubts import read_doubts
from sfumato.report.records import Account, Collapse, Entry, Finding, Provenance, Run
from sfumato.report.stages import read_stages

BASELINES = ("supervised_strong", "supervised")
"""Methods that use labels only, the fairest baseline first."""

Figures = Mapping[str, tuple[float, ...]]
"""Name of a figure -> one value a seed."""

_RUN_FILES = ("metrics.json", "metrics.jsonl", "config.yaml")
_NO_PART = ("notes", "hashes", "version", "lists", "wrong_labels")
_FACTS = {
    "data": ("data.source", "data.path"),
    "protocol": ("data.protocol",),
    "model": ("model.name",),
    "encoder": ("model.encoder",),
    "crop": ("views.crop",),
    "steps": ("train.steps",),
    "batch size": ("train.batch_size",),
    "optimizer": ("train.optimizer",),
    "learning rate": ("train.lr",),
    "recipe": ("recipe",),
}


def read_account(folder: Path) -> Account:
    """Reads a run folder of any layout.

    Raises `DataError` for a folder that is missing, is no run folder, or holds a run that did not end or a broken file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give the run folder that `sfumato train ... -o FOLDER` has made.")
    groups = _groups(folder)
    table = _table(folder / "table.json")
    if not groups and not table:
        found = sorted(folder.rglob("metrics.json"), key=lambda path: (len(path.parts), path))
        deeper = found[0].parent if found else None
        if deeper is not None and not (folder / "config.yaml").exists():  # else a run that has not ended
            raise DataError(
                f"{folder}: not a run folder, but it holds runs further down. `sfumato table {folder}` compares them; "
                f"a report is of one, such as {deeper}."
            )
        raise DataError(
            f"{folder}: not a run folder: metrics.json is missing, and so are seed-0/ and a folder for each method. "
            f"`sfumato train ... -o {folder}` and `sfumato demo` make one."
        )
    entries = _entries(groups, table)
    finding = _finding(folder, groups)
    baseline = _baseline(entries, finding)
    focus = _focus(entries, finding, baseline)
    first = next((run.folder for entry in entries if entry.name == focus for run in entry.runs), folder)
    return Account(
        folder=folder,
        title=folder.resolve().name,
        entries=entries,
        focus=focus,
        baseline=baseline if baseline != focus else None,
        finding=finding,
        provenance=_provenance(folder, first, entries),
        warnings=_warnings(entries, first),
        gallery=load.gallery(first / "predictions" / "gallery.npz"),
    )


def read_run(folder: Path) -> Run:
    """One run: one method, one seed. Raises `DataError` when `metrics.json` is missing or a file is broken."""
    resume = f"`sfumato train --resume {folder}` ends the run and writes it."
    metrics = load.json_object(folder / "metrics.json", resume)
    curves, warnings = load.metrics_lines(folder / "metrics.jsonl")
    classes = load.texts(metrics.get("classes"))
    criterion = criterion_of(metrics)
    path = folder / "predictions" / "test.npz"
    predictions = load.predictions(path, len(classes) or None, masks=criterion.key == "miou")
    if not classes and predictions is not None:
        classes = tuple(str(place) for place in range(predictions.logits.shape[1]))
    best, collapse = metrics.get("best"), metrics.get("collapse")
    best = best if isinstance(best, dict) else {}
    student = metrics.get("student")
    student = student if isinstance(student, dict) else {}
    splits = load.optional_object(folder / "splits.json", resume)
    card = load.optional_object(folder / "card.json", resume)
    return Run(
        folder=folder,
        method=str(metrics.get("method") or folder.name),
        criterion=criterion,
        seed=load.whole(metrics.get("seed")),
        steps=load.whole(metrics.get("steps")),
        seconds=load.number(metrics.get("seconds")),
        temperature=load.number(metrics.get("temperature")),
        test=load.numbers(metrics.get("test")),
        test_calibrated=load.numbers(metrics.get("test_calibrated")),
        val=load.numbers(metrics.get("val")),
        best_step=load.whole(best.get("step")),
        best=load.numbers(best.get("test")),
        student=load.numbers(student.get("test")),
        classes=classes,
        labels=_count(splits.get("labeled")),
        collapse=_collapse(collapse),
        warnings=(*load.texts(metrics.get("warnings")), *warnings),
        curves=curves,
        predictions=predictions,
        rare=load.texts(card.get("rare")),
        trained=_trained(metrics.get("class_counts"), len(classes)),
        doubts=read_doubts(folder, metrics.get("suspects")),
        stages=read_stages(metrics, criterion),
    )


def _trained(value: object, classes: int) -> dict[str, tuple[int, ...]]:
    """Images of each class by part, where they are all there."""
    parts = value if isinstance(value, Mapping) else {}
    found = {str(part): tuple(load.whole(item) or 0 for item in counts) for part, counts in parts.items()}
    return {part: counts for part, counts in found.items() if len(counts) == classes}


def _collapse(value: object) -> Collapse | None:
    if not value:
        return None
    if isinstance(value, Mapping):
        return Collapse(load.whole(value.get("step")), str(value.get("reason") or "no reason was noted"))
    return Collapse(None, str(value))


def _count(value: object) -> int | None:
    return len(value) if isinstance(value, list) else load.whole(value)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _RUN_FILES)


def _seeds(folder: Path) -> list[Path]:
    """The folders seed-0, seed-1, ... in the order of their numbers."""
    found = [(re.fullmatch(r"seed-(\d+)", path.name), path) for path in folder.iterdir() if path.is_dir()]
    return [path for _, path in sorted((int(match.group(1)), path) for match, path in found if match)]


def _runs(folder: Path) -> list[Path]:
    """The run folders of one method: its seeds, or the folder itself."""
    if not folder.is_dir():
        return []
    return _seeds(folder) or ([folder] if _is_run(folder) else [])


def _groups(folder: Path) -> list[list[Path]]:
    """Run folders, one list for each method; the method that the folder is about comes first."""
    own = _runs(folder)
    if own:
        beside = _runs(folder / "baseline")
        inside = [path / "baseline" for path in own if path != folder and (path / "baseline").is_dir()]
        return [group for group in (own, beside or inside) if group]
    return [group for path in sorted(folder.iterdir()) if (group := _runs(path))]


def _entries(groups: Sequence[Sequence[Path]], table: Mapping[str, Figures]) -> tuple[Entry, ...]:
    """Methods in the order of the table, where there is one; a method that only the table knows has no runs."""
    found: dict[str, Entry] = {}
    for group in groups:
        runs = tuple(read_run(path) for path in group)
        name = runs[0].method
        if name in found:  # a method that is compared with itself, as supervised_strong with its baseline
            name = f"{name} ({group[0].name})"
        found[name] = Entry(name, runs, _figures(runs))
    for name, figures in table.items():
        found.setdefault(name, Entry(name, (), figures))
    order = [*(name for name in table if name in found), *(name for name in found if name not in table)]
    return tuple(found[name] for name in order)


def _figures(runs: Sequence[Run]) -> dict[str, tuple[float, ...]]:
    picked = {
        "score": [run.test.get(run.criterion.key) for run in runs],
        "beside": [run.test.get(run.criterion.beside) for run in runs],
        "boundary": [run.test.get("boundary_iou") for run in runs],
        "pixels": [run.test.get("acc") for run in runs if run.criterion.key == "miou"],
        "ece": [run.test.get("ece") for run in runs],
        "ece_after": [run.test_calibrated.get("ece") for run in runs],
        "nll": [run.test.get("nll") for run in runs],
        "seconds": [run.seconds for run in runs],
    }
    return {key: tuple(value for value in values if value is not None) for key, values in picked.items()}


def _table(path: Path) -> dict[str, Figures]:
    rows = load.optional_object(path, "`sfumato demo` writes it.").get("rows")
    table: dict[str, Figures] = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, Mapping) and "method" in row:
            figures: dict[str, tuple[float, ...]] = {}
            for key, value in row.items():
                values = (load.number(item) for item in (value if isinstance(value, list) else [value]))
                if key not in ("method", "criterion"):
                    figures[str(key)] = tuple(item for item in values if item is not None)
            table[str(row["method"])] = figures
    return table


def _finding(folder: Path, groups: Sequence[Sequence[Path]]) -> Finding | None:
    """The verdict of the whole folder; of the run itself where there is but one."""
    places = [folder, *(groups[0] if groups and len(groups[0]) == 1 else ())]
    path = next((place / "verdict.json" for place in places if (place / "verdict.json").is_file()), None)
    if path is None:
        return None
    held = load.json_object(path, "`sfumato train` writes it after the baseline.")
    answer = held.get("answer")
    if not isinstance(answer, str):
        raise DataError(f"{path}: no 'answer'. Expected helps, no difference, hurts or cannot tell.")
    return Finding(
        answer=answer,
        sentence=str(held.get("sentence") or ""),
        metric=str(held.get("metric") or "accuracy"),
        difference=load.number(held.get("difference")),
        low=load.number(held.get("low")),
        high=load.number(held.get("high")),
        margin=load.number(held.get("margin")),
        confidence=load.number(held.get("confidence")),
        n=load.whole(held.get("n")),
        split=str(held.get("split") or "test"),
        seeds=_count(held.get("seeds")),
        method=_name(held.get("method")),
        baseline=_name(held.get("baseline")),
    )


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _baseline(entries: Sequence[Entry], finding: Finding | None) -> str | None:
    names = [entry.name for entry in entries]
    if finding is not None and finding.baseline in names:
        return finding.baseline
    marked = [entry.name for entry in entries for run in entry.runs if _beside(run.folder)]
    return next((name for name in (*marked, *BASELINES) if name in names), None)


def _beside(folder: Path) -> bool:
    """Whether a run lies in a folder `baseline`, of its own or with seeds."""
    return "baseline" in (folder.name, folder.parent.name)


def _focus(entries: Sequence[Entry], finding: Finding | None, baseline: str | None) -> str:
    """The method the report is about: the verdict's, or the best on validation; never chosen on test figures."""
    names = [entry.name for entry in entries]
    if finding is not None and finding.method in names:
        return finding.method or names[0]
    rivals = [entry for entry in entries if entry.name != baseline and entry.name not in BASELINES]
    rivals = rivals or [entry for entry in entries if entry.name != baseline] or list(entries)
    return max(rivals, key=_validation).name


def _validation(entry: Entry) -> float:
    values = [run.val[run.criterion.key] for run in entry.runs if run.criterion.key in run.val]
    return sum(values) / len(values) if values else -1.0


def _warnings(entries: Sequence[Entry], first: Path) -> tuple[str, ...]:
    """Every warning once, with the method it is about; the notes of the split are about all of them."""
    told: dict[str, None] = {}
    for entry in entries:
        for run in entry.runs:
            for warning in run.warnings:
                told[f"{entry.name}: {warning}" if len(entries) > 1 else warning] = None
    splits = load.optional_object(first / "splits.json", "`sfumato train` writes it.")
    told.update(dict.fromkeys(load.texts(splits.get("notes"))))
    return tuple(told)


def _provenance(folder: Path, first: Path, entries: Sequence[Entry]) -> Provenance:
    text, settings = load.config(_nearest(first, folder, "config.yaml"))
    maker = "`sfumato train` writes it."
    environment = load.flatten(load.optional_object(_nearest(first, folder, "environment.json"), maker))
    splits = load.optional_object(_nearest(first, folder, "splits.json"), maker)
    command = environment.pop("command", None)
    facts = {label: settings[key] for label, keys in _FACTS.items() for key in keys if settings.get(key) is not None}
    return Provenance(
        command=_command(command) or _rerun(folder, first, entries),
        config=text,
        facts=tuple((label, _setting(value)) for label, value in facts.items()),
        environment=tuple((key, _plain(value)) for key, value in environment.items()),
        splits=_told_splits(splits),
    )


def _told_splits(splits: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Parts by their size, and the lists that made them by their hashes."""
    parts = {key: value for key, value in splits.items() if key not in _NO_PART}
    lists = load.flatten(splits.get("lists") or {})
    hashes = ((f"list {part}", f"SHA-256 {value}") for part, value in lists.items())
    wrong = splits.get("wrong_labels")
    noise = [("wrong labels", _counted(list(wrong)))] if wrong and isinstance(wrong, Mapping) else []
    return (*((key, _counted(value)) for key, value in parts.items()), *noise, *hashes)


def _nearest(first: Path, folder: Path, name: str) -> Path:
    return first / name if (first / name).is_file() else folder / name


def _command(value: object) -> str:
    return " ".join(str(word) for word in value) if isinstance(value, list) else str(value or "")


def _rerun(folder: Path, first: Path, entries: Sequence[Entry]) -> str:
    """The command to type again, where the run did not note the one it was started with."""
    seeds = sorted({run.seed for entry in entries for run in entry.runs if run.seed is not None})
    span = f" --seeds {seeds[0]}:{seeds[-1] + 1}" if len(seeds) > 1 else ""
    if (folder / "table.json").is_file():
        return f"sfumato demo{span}"
    return f"sfumato train {_nearest(first, folder, 'config.yaml')}{span}"


def _setting(value: object) -> str:
    return " × ".join(str(side) for side in value) if isinstance(value, list) else str(value)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)


def _counted(value: object) -> str:
    """A part of the split is told by its size."""
    return f"{wording.whole(len(value))} images" if isinstance(value, list) else _plain(value)

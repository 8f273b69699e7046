"""The main job: for every seed the labels-only baseline and the method on the same splits; then verdict and report."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato import distributed
from sfumato.batches import check_batch_size
from sfumato.config import Config, dump, identity, load
from sfumato.data import Splits
from sfumato.errors import DataError, SfumatoError
from sfumato.forward import check_teacher
from sfumato.run import files, held_labels, judge, prepare, rounds
from sfumato.run.part import Say, open_part, run_part
from sfumato.run.ranks import decided_by_first, is_first, together
from sfumato.run.table import Row, row
from sfumato.run.triage import unwatched
from sfumato.train import Interrupted

FALLBACK = (
    f"There are no unlabelled images: training {prepare.FAIR_BASELINE} on the labels alone instead of {{method}}."
)


@dataclass
class Summary:
    """What came of it. `runs` holds the final metrics, one a seed, by method."""

    folder: Path
    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    folders: dict[str, list[Path]] = field(default_factory=dict)
    method: str = ""  # the one the run is about
    verdict: dict[str, Any] | None = None
    report: Path | None = None

    @property
    def collapsed(self) -> str | None:
        """Why the method is not to be used, if its pseudo-labels were still collapsed at the end."""
        found = [run["collapse"] for run in self.runs.get(self.method, []) if run["collapse"]]
        return f"step {found[0]['step']}: {found[0]['reason']}" if found else None

    def rows(self) -> list[Row]:
        return [row(name, runs) for name, runs in self.runs.items()]

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "method": self.method,
            "runs": self.runs,
            "verdict": self.verdict and files.plain(self.verdict),
            "report": self.report and str(self.report),
        }

    def add(self, name: str, folder: Path, metrics: dict[str, Any]) -> None:
        self.runs.setdefault(name, []).append(metrics)
        self.folders.setdefault(name, []).append(folder)


def experiment(
    config: Config,
    *,
    out: Path | None = None,
    resume: Path | None = None,
    say: Say = print,
    quiet: bool = False,
    report: bool = True,
) -> Summary:
    """Run it all in a new folder, or go on in the folder `resume`, whose finished parts are passed over.

    Args:
        config: the settings; those of the folder (`reopened`) when resuming.
        out: the folder to make; by default runs/NAME, numbered if taken.
        resume: the folder of an earlier run.
        say: told one line at a time.
        quiet: no progress of single steps.
        report: write report.html at the end.

    Raises:
        DataError: data that cannot be used, or `out` exists.
        CollapseError: training broke down.
        Interrupted: Ctrl-C or SIGTERM, once saved; the message says how to go on.
    """
    with together():
        say = say if is_first() else _silence
        if out is not None and is_first():
            files.refuse_taken(out)  # before anything that takes time
        config = prepare.located(config)
        table = prepare.open_table(config)
        config = prepare.settled(config, table)
        if resume is not None:
            _refuse_other_data(resume, table)  # before config.yaml is written anew
        else:
            splits = rehearse(config, table)
            config = prepare.counted(config, splits)
            for note in (*splits.notes, *unwatched(table, splits)):
                say(f"note: {note}")
        name = config.name or f"{Path(config.data.source).stem}-{config.label}"
        folder = resume or Path(decided_by_first(lambda: str(files.claim(out, name))))
        say(f"{'Continuing' if resume else 'Writing to'} {folder}")
        with _stoppable(folder), files.alone(folder) if is_first() else nullcontext():
            summary = _all_seeds(config, table, folder, say, quiet)
            if report and is_first():
                summary.report = _report(folder, table, say)
            distributed.barrier()
            return summary


def reopened(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """The settings of a run to be continued. Raises DataError when `overrides` would make another run of it."""
    path = folder / files.CONFIG
    if not path.is_file():
        raise DataError(f"{folder}: cannot be continued, since it holds no {files.CONFIG}. Is it the folder of a run?")
    before, now = load(path), load(path, overrides)
    old, new = identity(before), identity(now)
    changed = [key for key in old | new if old.get(key) != new.get(key)]
    others = tuple(f"{key.removesuffix('.name')}." for key in changed if key in ("method.name", "addon.name"))
    differ = [
        f"{key} is {new.get(key)!r} now and was {old.get(key)!r}"
        for key in changed
        if key.endswith(".name") or not key.startswith(others)  # the options of another method say no more
    ]
    if differ:
        raise DataError(
            f"{folder} was started with other settings: {'; '.join(differ)}. "
            "Resume without them, or start a new run in another folder."
        )
    if bool(before.seeds) != bool(now.seeds):
        raise DataError(f"{folder} was started with{'' if before.seeds else 'out'} --seeds and can only go on so.")
    return now


def _refuse_other_data(folder: Path, table: prepare.AnyTable) -> None:
    for path in (folder, *files.seed_folders(folder)):
        if (path / files.SPLITS).exists():
            Splits.load(path / files.SPLITS, table)


def rehearse(config: Config, table: prepare.AnyTable) -> Splits:
    """All but training, so that mistakes come up before a folder is made. Returns the splits of the first seed."""
    config = config.with_seed(config.seeds[0] if config.seeds else config.seed)
    check_batch_size(config.train.batch_size, config.train.accumulate)
    splits = prepare.draw(config, table)
    model = prepare.make_model(config, table)
    method = prepare.make_method(config, prepare.make_data(config, table, splits, model))
    check_teacher(method.views, averaged=config.train.ema > 0)
    if method.rounds is not None:
        rounds.check(prepare.counted(config, splits), method.rounds, splits)
    held_labels.check(config, method, table, splits)
    return splits


def rehearsal(config: Config) -> str:
    """What a run of these settings would be: all of them as YAML, and what they make of the data as comments."""
    config = prepare.located(config)
    table = prepare.open_table(config)
    config = prepare.settled(config, table)
    splits = rehearse(config, table)
    config = prepare.counted(config, splits)
    parts = ", ".join(f"{len(getattr(splits, part)):,} {part}" for part in ("labeled", "unlabeled", "val", "test"))
    plan = rounds.plan_of(config)
    told = [] if plan is None else [rounds.in_words(config, plan)]
    told += [*held_labels.in_words(config, table, splits), *splits.notes, *unwatched(table, splits)]
    lines = [f"{len(table):,} images of {len(table.classes)} classes: {parts}", *told]
    return "".join(f"# {line}\n" for line in lines) + dump(config)


def _all_seeds(config: Config, table: prepare.AnyTable, folder: Path, say: Say, quiet: bool) -> Summary:
    summary = Summary(folder)
    if config.seeds is None:
        _one_seed(config, table, folder, summary, say, quiet)
    else:
        if is_first():
            files.write_text(folder / files.CONFIG, f"# sfumato train {folder / files.CONFIG}\n{dump(config)}")
        for seed in config.seeds:
            own = folder / f"seed-{seed}"
            own.mkdir(exist_ok=True)
            with files.alone(own) if is_first() else nullcontext():  # it can be resumed by itself too
                _one_seed(config.with_seed(seed), table, own, summary, say, quiet)
        summary.verdict = _verdict(summary, folder)
    return summary


def _one_seed(config: Config, table: prepare.AnyTable, folder: Path, summary: Summary, say: Say, quiet: bool) -> None:
    """Baseline and method of one seed, and their verdict in its folder."""
    open_part(config, folder)
    distributed.barrier()
    splits = prepare.splits_of(config, table, folder / files.SPLITS)
    own = Summary(folder)
    wanted = config.method.name
    in_rounds = rounds.plan_of(config) is not None
    if prepare.uses_unlabeled(wanted) and not len(rounds.to_label(splits) if in_rounds else splits.unlabeled):
        say(FALLBACK.format(method=wanted))
        config = config.with_method(prepare.FAIR_BASELINE)
        own.verdict, in_rounds = judge.no_unlabeled(), False
    method = config.label
    if config.baseline and prepare.uses_unlabeled(config.method.name):
        plain = config.with_method(prepare.FAIR_BASELINE).model_copy(update={"baseline": False})
        open_part(plain, folder / "baseline")
        if is_first() and not (folder / "baseline" / files.SPLITS).exists():
            shutil.copyfile(folder / files.SPLITS, folder / "baseline" / files.SPLITS)
        metrics = run_part(plain, table, splits, folder / "baseline", say=say, quiet=quiet)
        own.add(prepare.FAIR_BASELINE, folder / "baseline", metrics)
    run = rounds.run_rounds if in_rounds else held_labels.run_held
    own.add(method, folder, run(config, table, splits, folder, say=say, quiet=quiet))
    own.method = summary.method = method
    summary.verdict = _verdict(own, folder)
    for name, runs in own.runs.items():
        for metrics, where in zip(runs, own.folders[name], strict=True):
            summary.add(name, where, metrics)


def _verdict(summary: Summary, folder: Path) -> dict[str, Any] | None:
    """Written to verdict.json where there is one: not without a baseline."""
    found = summary.verdict
    runs, against = summary.folders.get(summary.method, []), summary.folders.get(prepare.FAIR_BASELINE, [])
    if summary.method != prepare.FAIR_BASELINE and against and is_first():
        found = judge.judge(runs, against, name=summary.method, against=prepare.FAIR_BASELINE)
    if found is not None and is_first():
        files.write_json(folder / files.VERDICT, found)
    return found


def _report(folder: Path, table: prepare.AnyTable, say: Say) -> Path | None:
    """What is trained is trained: a report that cannot be written is told, and no reason to fail."""
    from sfumato.report import write_report  # draws with matplotlib, which takes a second to import

    try:
        return write_report(folder, images=prepare.pictures(table))
    except SfumatoError as error:
        say(f"The report could not be written: {error}")
        return None


@contextmanager
def _stoppable(folder: Path) -> Iterator[None]:
    """Between trainings too, Ctrl-C and SIGTERM end with how to go on; inside one, the loop saves first."""
    again = f"sfumato train --resume {shlex.quote(str(folder))}"
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(re.sub(r"sfumato train --resume .*", lambda _: again, str(stop))) from None
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted. Continue with: {again}") from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _silence(_: str) -> None:
    pass

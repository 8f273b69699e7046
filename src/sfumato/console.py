"""What a person sees while training: a live bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sfumato import distributed


class Reporter:
    """Context manager around a training run. Warnings are always shown, on stderr."""

    def __init__(self, title: str, steps: int, *, start: int = 0, quiet: bool = False) -> None:
        self.title, self.steps, self.start = title, steps, start
        self.silent = quiet or distributed.rank() != 0
        self.console = Console(stderr=True, highlight=False)
        self.began = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Reporter:
        if not self.silent and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.steps, completed=self.start, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def record(self, step: int, values: dict[str, float]) -> None:
        """A log record: on the bar, or a line of its own."""
        if self.silent:
            return
        note = "  ".join(
            f"{label} {values[key]:{form}}"
            for key, label, form in SHOWN
            if math.isfinite(values.get(key, math.nan)) and not (key == UNLABELED and "pl/coverage" not in values)
        )
        if self._bar is not None:
            self._bar.update(self._task, note=note)
            return
        left = (time.monotonic() - self.began) / max(1, step - self.start) * (self.steps - step)
        self.console.print(f"{self.title}  step {step}/{self.steps}  {note}  {left:.0f} s left", soft_wrap=True)

    def warn(self, message: str) -> None:
        if distributed.rank() == 0:
            self.console.print(f"warning: {message}", style="yellow", soft_wrap=True, markup=False)


UNLABELED = "train/loss_unsup"  # always 0 where there are no pseudo-labels, and not shown then
SHOWN = (
    ("train/loss_sup", "loss", ".3f"),
    (UNLABELED, "unlabelled", ".3f"),
    ("pl/coverage", "mask rate", ".0%"),
    ("pl/precision", "agreement", ".0%"),
    ("val/miou", "validation mIoU", ".1%"),
    ("val/acc", "validation accuracy", ".1%"),
    ("perf/images_per_s", "images/s", ".0f"),
)

"""Final metrics as rows for people: fractions become percents here and nowhere before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from sfumato.criterion import CRITERIA, criterion_of
from sfumato.data.pairs import SHOWN_DIGITS

Values = tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One method, one value a seed in each column."""

    method: str
    criterion: str  # what `score` is: "acc" or "miou"
    score: Values
    beside: Values  # balanced accuracy, or mIoU of the rare classes
    ece: Values
    ece_after: Values  # temperature scaling
    nll: Values
    seconds: Values
    collapsed: bool
    list_hash: str = ""  # of the list that says which images are labelled; "" where there was none

    def as_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    def columns(self) -> list[str]:
        """The titles of `cells`."""
        found = CRITERIA[self.criterion]
        shown = [f"{found.name} %", *([f"{found.beside_name} %"] if self._is_dense else [])]
        return [*shown, "ECE %", "ECE % scaled", "NLL", "seconds", *(["list"] if self.list_hash else [])]

    @property
    def _is_dense(self) -> bool:
        return self.criterion == "miou"  # rare classes hardly move the mean of pixels: they are always shown

    def cells(self) -> list[str]:
        return [
            spread(self.score, 100, 1),
            *([spread(self.beside, 100, 1)] if self._is_dense else []),
            spread(self.ece, 100, 1),
            spread(self.ece_after, 100, 1),
            spread(self.nll, 1, 2),
            spread(self.seconds, 1, 0),
            *([self.list_hash] if self.list_hash else []),
        ]


def row(method: str, runs: Sequence[Mapping[str, Any]]) -> Row:
    """Of all seeds of a method, on the test split; on the validation split where there is none."""

    def column(key: str, section: str = "test") -> Values:
        found = [(run[section] if run["test"] else run["val"]).get(key) for run in runs]
        return tuple(value for value in found if value is not None)

    criterion = criterion_of(runs[0])
    return Row(
        method=method,
        criterion=criterion.key,
        score=column(criterion.key),
        beside=column(criterion.beside),
        ece=column("ece"),
        ece_after=column("ece", "test_calibrated"),
        nll=column("nll"),
        seconds=tuple(run["seconds"] for run in runs),
        collapsed=any(run["collapse"] for run in runs),
        list_hash=_list_hash(runs[0]),
    )


def _list_hash(run: Mapping[str, Any]) -> str:
    lists = run.get("lists", {})
    return str(lists.get("labeled") or lists.get("train") or "")[:SHOWN_DIGITS]


def spread(values: Values, scale: float, digits: int) -> str:
    """Mean, and ± standard deviation where there are several."""
    if not values:
        return "–"
    text = f"{scale * mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {scale * stdev(values):.{digits}f}"


def one_line(run: Mapping[str, Any]) -> str:
    """The figures of one run in words."""
    part = "test" if run["test"] else "val"
    found = run[part]
    if not found:
        return f"no held-out labels to measure with, {run['seconds']:.0f} s"
    criterion, images = criterion_of(run), "test" if part == "test" else "validation"
    return (
        f"{criterion.name} {100 * found[criterion.key]:.1f} %, ECE {100 * found['ece']:.1f} %, "
        f"NLL {found['nll']:.2f} on {run['images'][part]:,} {images} images, {run['seconds']:.0f} s"
    )

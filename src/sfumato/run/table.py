"""Final metrics as rows for people: fractions become percents here and nowhere before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

Values = tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One method, one value a seed in each column."""

    method: str
    accuracy: Values
    balanced: Values
    ece: Values
    ece_after: Values  # temperature scaling
    nll: Values
    seconds: Values
    collapsed: bool

    def as_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    def cells(self) -> list[str]:
        """Accuracy, ECE, ECE after scaling, NLL, seconds."""
        return [
            spread(self.accuracy, 100, 1),
            spread(self.ece, 100, 1),
            spread(self.ece_after, 100, 1),
            spread(self.nll, 1, 2),
            spread(self.seconds, 1, 0),
        ]


def row(method: str, runs: Sequence[Mapping[str, Any]]) -> Row:
    """Of all seeds of a method, on the test split; on the validation split where there is none."""

    def column(key: str, section: str = "test") -> Values:
        found = [(run[section] if run["test"] else run["val"]).get(key) for run in runs]
        return tuple(value for value in found if value is not None)

    return Row(
        method=method,
        accuracy=column("acc"),
        balanced=column("balanced_acc"),
        ece=column("ece"),
        ece_after=column("ece", "test_calibrated"),
        nll=column("nll"),
        seconds=tuple(run["seconds"] for run in runs),
        collapsed=any(run["collapse"] for run in runs),
    )


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
    return (
        f"accuracy {100 * found['acc']:.1f} %, ECE {100 * found['ece']:.1f} %, NLL {found['nll']:.2f} on "
        f"{run['images'][part]:,} {'test' if part == 'test' else 'validation'} images, {run['seconds']:.0f} s"
    )

"""The trainings of a run that takes several: rounds of self-training, generations, or a first one to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sfumato.criterion import Criterion
from sfumato.report import load, wording
from sfumato.report.records import Entry, Stage


@dataclass(frozen=True, slots=True)
class StageRow:
    """One training: means over the seeds that have it, and the images of the first of them."""

    number: int
    method: str
    labeled: str
    joined: str
    right: str
    unlabeled: str
    val: str
    test: str


def read_stages(metrics: Mapping[str, object], criterion: Criterion) -> tuple[Stage, ...]:
    """What metrics.json says of them, the last one included; nothing of a run with one training."""
    earlier = metrics.get("rounds")
    found = [one for one in earlier if isinstance(one, Mapping)] if isinstance(earlier, list) else []
    return tuple(_stage(one, criterion) for one in (*found, metrics)) if found else ()


def _stage(held: Mapping[str, object], criterion: Criterion) -> Stage:
    images, joined = load.numbers(held.get("images")), load.numbers(held.get("joined"))
    return Stage(
        method=str(held.get("method") or ""),
        images={part: int(count) for part, count in images.items()},
        joined=int(joined.get("images", 0)),
        right=joined.get("right"),
        val=load.numbers(held.get("val")).get(criterion.key),
        test=load.numbers(held.get("test")).get(criterion.key),
    )


def rows(entry: Entry | None) -> tuple[StageRow, ...]:
    runs = [run.stages for run in entry.runs if run.stages] if entry is not None else []
    return tuple(
        _row(number, [stages[number] for stages in runs if number < len(stages)])
        for number in range(max(map(len, runs), default=0))
    )


def _row(number: int, seeds: Sequence[Stage]) -> StageRow:
    first = seeds[0]

    def counted(part: str) -> str:
        return wording.whole(first.images[part]) if part in first.images else wording.DASH

    def mean(values: Sequence[float | None]) -> str:
        return wording.percents([value for value in values if value is not None])

    return StageRow(
        number=number + 1,
        method=first.method,
        labeled=counted("labeled"),
        joined=wording.whole(first.joined),
        right=mean([one.right for one in seeds]),
        unlabeled=counted("unlabeled"),
        val=mean([one.val for one in seeds]),
        test=mean([one.test for one in seeds]),
    )

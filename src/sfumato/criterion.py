"""The metric that a task is judged by, and the one shown beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Criterion:
    key: str  # in metrics.json
    name: str  # for people
    beside: str  # the key of a metric that weighs rare classes more
    beside_name: str


CRITERIA = {
    found.key: found
    for found in (
        Criterion("acc", "accuracy", "balanced_acc", "balanced"),
        Criterion("miou", "mIoU", "miou_rare", "mIoU, rare"),
    )
}


def criterion_of(metrics: object) -> Criterion:
    """That of a run, from its metrics.json."""
    key = metrics.get("criterion") if isinstance(metrics, dict) else None
    return CRITERIA.get(str(key), CRITERIA["acc"])

"""The labels that a run gives reason to doubt: suspects.csv, what metrics.json says of it, and the words for them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from sfumato.errors import DataError
from sfumato.report import load, wording
from sfumato.report.records import Doubt, DoubtedPair, Doubts

SHOWN = 12
PAIRS = 10
LITTLE = 0.5  # of the labels learned: below, a list holds what the network did not learn rather than what is wrong
_COLUMNS = ("file", "label", "suggested", "margin", "confidence")


def sentence(doubts: Doubts) -> str:
    """What the list is worth, or why there is none."""
    if doubts.limit is not None:
        return (
            "There is no list of labels to doubt: it takes a look at all of them at each evaluation, which is done for "
            f"up to {wording.whole(doubts.limit)} labels, and there are {wording.whole(doubts.labels)}."
        )
    times = "evaluation" if doubts.evaluations == 1 else f"{wording.whole(doubts.evaluations)} evaluations"
    told = (
        f"Of {wording.whole(doubts.labels)} training labels, {wording.whole(doubts.listed)} contradict what the "
        f"network made of their images, on average over its {times}. It was trained on these very labels and comes to "
        "know wrong ones by heart: some will be missing, and a hard image may be listed with its right label."
    )
    if doubts.agreement is not None and doubts.agreement < LITTLE:
        told += (
            f" It preferred only {wording.percent(doubts.agreement)} of the labels: too few for the list to say much."
        )
    if doubts.recall is None:
        return told
    right = f"{wording.percent(doubts.precision)} of the listed are, and " if doubts.listed else ""
    return (
        f"{told} Some labels were made wrong on purpose: {right}{wording.percent(doubts.recall)} of those are listed."
    )


def read_doubts(folder: Path, metrics: object) -> Doubts | None:
    """What a run folder holds of them; None where there is no list. Raises `DataError` for one that is broken."""
    if not isinstance(metrics, dict):
        return None
    path = folder / "suspects.csv"
    listed, labels = load.whole(metrics.get("listed")), load.whole(metrics.get("labels"))
    return Doubts(
        listed=listed or 0,
        labels=labels or 0,
        evaluations=load.whole(metrics.get("evaluations")) or 0,
        precision=load.number(metrics.get("precision")),
        recall=load.number(metrics.get("recall")),
        first=_first(path) if path.is_file() else (),
        agreement=load.number(metrics.get("agreement")),
        pairs=tuple(_pairs(metrics.get("pairs")))[:PAIRS],
        kinds=load.whole(metrics.get("kinds")) or 0,
        limit=load.whole(metrics.get("limit")),
    )


def _pairs(value: object) -> Iterator[DoubtedPair]:
    for one in value if isinstance(value, list) else []:
        count, of = (load.whole(one.get(key)) for key in ("count", "of")) if isinstance(one, dict) else (None, None)
        if count and of:
            yield DoubtedPair(str(one.get("label")), str(one.get("suggested")), count, of)


def _first(path: Path) -> tuple[Doubt, ...]:
    found: list[Doubt] = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if len(found) == SHOWN:
                break
            if any(row.get(column) is None for column in _COLUMNS):
                raise DataError(f"{path}: line {len(found) + 2} lacks a column. Training writes {', '.join(_COLUMNS)}.")
            figures = [_number(row[column]) for column in ("margin", "confidence")]
            found.append(Doubt(row["file"], row["label"], row["suggested"], *figures))
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        return load.number(float(text))
    except ValueError:
        return None

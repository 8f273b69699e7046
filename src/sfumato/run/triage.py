"""Labels that a training gives reason to doubt: a list to look at, scored where it is known which are wrong."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch

from sfumato import label_history
from sfumato.batches import TrainData
from sfumato.data import Splits, Table
from sfumato.data.pairs import PairTable
from sfumato.image_data import ImageData
from sfumato.label_history import LabelHistory, Suspects, doubted_pairs, suspects
from sfumato.run import files
from sfumato.run.ranks import is_first

SUSPECTS = "suspects.csv"
COLUMNS = ("rank", "file", "label", "suggested", "margin", "confidence")
PAIRS = 100  # of classes that metrics.json keeps


def unwatched(table: Table | PairTable, splits: Splits) -> list[str]:
    """Says, before training, that it will end without a list because there are too many labels; empty otherwise."""
    labels, limit = len(splits.labeled), label_history.LARGEST
    if isinstance(table, PairTable) or labels <= limit:
        return []
    return [f"No list of labels to doubt (suspects.csv): it is for up to {limit:,} labels, and there are {labels:,}."]


def triage(history: LabelHistory | None, data: TrainData, folder: Path) -> dict[str, Any] | None:
    """Write suspects.csv, and tell what metrics.json keeps of it; None for masks.

    pairs are the joint counts of confident learning off the diagonal: how many labels of a class may be of another, the
    most first. precision and recall are of the labels that were made wrong on purpose, where some were. Where there are
    too many labels for a history, their number and the limit are all that is kept.
    """
    if history is None:
        known = isinstance(data, ImageData)
        return {"labels": len(data.own_labeled), "limit": label_history.LARGEST} if known else None
    found = suspects(history)
    rows = data.own_labeled[found.places.numpy()]
    if is_first():
        names = [data.names[row] for row in rows]
        files.write_text(folder / SUSPECTS, _table(found, names, data.classes, history.labels))
    told: dict[str, Any] = {
        "listed": len(found),
        "labels": len(history.labels),
        "evaluations": int(history.seen),
        "agreement": float((history.p.argmax(dim=1) == history.labels).float().mean()),  # little: a list by chance
    }
    pairs, given = doubted_pairs(history), torch.bincount(history.labels, minlength=len(data.classes))
    told["kinds"] = len(pairs)
    told["pairs"] = [
        {"label": data.classes[label], "suggested": data.classes[other], "count": count, "of": int(given[label])}
        for label, other, count in pairs[:PAIRS]
    ]
    wrong = {int(row) for row in data.splits.labeled if int(row) in data.splits.wrong}
    if wrong:
        right = sum(int(row) in wrong for row in rows)
        told |= {"precision": right / len(found) if len(found) else None, "recall": right / len(wrong)}
    return told


def _table(found: Suspects, names: list[str], classes: list[str], labels: torch.Tensor) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    given, suggested = labels[found.places].tolist(), found.suggested.tolist()
    figures = zip(found.margin.tolist(), found.confidence.tolist(), strict=True)
    for rank, (name, label, other, (margin, confidence)) in enumerate(
        zip(names, given, suggested, figures, strict=True), start=1
    ):
        writer.writerow([rank, name, classes[label], classes[other], f"{margin:.4f}", f"{confidence:.4f}"])
    return text.getvalue()

"""The verdict of runs that lie in folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sfumato.errors import DataError
from sfumato.verdict import compare
from sfumato.verdict_iou import compare_iou

NO_UNLABELED = "Cannot tell whether unlabelled images help: there are none."
BOTH_SPLITS = ("test", "val")


def judge(method: Sequence[Path], baseline: Sequence[Path], *, name: str, against: str) -> dict[str, Any]:
    """The content of verdict.json: runs of a method against those of a baseline, paired by seed and by image.

    On the test split; where there is none on the validation split, which the sentence then says.
    """
    part = next((p for p in BOTH_SPLITS if all(len(_load(run, p)["rows"]) for run in (*method, *baseline))), "test")
    mine, theirs = ([_load(run, part) for run in runs] for runs in (method, baseline))
    for run, arrays in zip((*method, *baseline), (*mine, *theirs), strict=True):
        if not np.array_equal(arrays["rows"], mine[0]["rows"]):
            raise DataError(
                f"{run} and {method[0]} were tested on different images, so they cannot be compared. "
                "Train both with the same data and split_seed."
            )
    if all("counts" in arrays for arrays in (*mine, *theirs)):  # a class for each pixel
        both = ([arrays["counts"] for arrays in mine], [arrays["counts"] for arrays in theirs])
        found = asdict(compare_iou(*both, name=name, against=against))
    else:
        both = ([_right(arrays) for arrays in mine], [_right(arrays) for arrays in theirs])
        found = asdict(compare(*both, name=name, against=against))
    if part == "val":
        found["sentence"] += " These were the validation images: there is no test split."
    return found | {"split": part}


def no_unlabeled() -> dict[str, Any]:
    """What verdict.json holds where there was nothing to compare."""
    return {"answer": "cannot tell", "sentence": NO_UNLABELED}


def _load(run: Path, part: str) -> dict[str, Any]:
    path = run / "predictions" / f"{part}.npz"
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as archive:  # numpy leaks a broken file it opens
            of_pixels = ("counts",) if "counts" in archive.files else ()
            return {key: archive[key] for key in ("rows", "logits", "labels", *of_pixels)}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. `sfumato eval {run}` writes it anew.") from error
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: not readable ({error}). `sfumato eval {run}` writes it anew.") from error


def _right(arrays: dict[str, Any]) -> Any:
    return arrays["logits"].argmax(axis=1) == arrays["labels"]

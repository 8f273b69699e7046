"""Files of a run folder, one function each. A file that is missing or broken is named, with what makes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import yaml
from numpy.typing import NDArray

from sfumato.errors import DataError
from sfumato.report.records import Gallery, Ints, Maps, Predictions, Series

_ANEW = "`sfumato eval` writes it anew."


def number(value: object) -> float | None:
    """A finite float, or None for null, NaN, text and whatever else is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def whole(value: object) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def numbers(value: object) -> dict[str, float]:
    """The finite numbers of a JSON object, without the rest; empty for null."""
    if not isinstance(value, Mapping):
        return {}
    return {str(key): found for key, item in value.items() if (found := number(item)) is not None}


def texts(value: object) -> tuple[str, ...]:
    """The strings of a JSON list; empty for null."""
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else ()


def json_object(path: Path, maker: str) -> dict[str, object]:
    """A JSON object from a file that must be there. `maker` ends the message: what writes this file."""
    if not path.is_file():
        raise DataError(f"{path}: missing. {maker}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}). Once it is deleted, {maker}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(found).__name__}. {maker}")
    return found


def optional_object(path: Path, maker: str) -> dict[str, object]:
    """As `json_object`, but empty where there is no such file."""
    return json_object(path, maker) if path.exists() else {}


def metrics_lines(path: Path) -> tuple[dict[str, Series], tuple[str, ...]]:
    """The curves of `metrics.jsonl` by metric name, and the warnings it notes.

    A last line that was cut short, as after a kill, is passed over; a broken line before it is an error.
    A step that was logged twice, as after a resume, keeps its later value.
    """
    if not path.is_file():
        return {}, ()
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    points: dict[str, dict[float, float]] = {}
    warnings: dict[str, None] = {}
    for place, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            if place == len(lines):
                break
            raise DataError(
                f"{path}, line {place}: not a JSON object ({error.msg}). `sfumato train` writes one object a line; "
                "delete the line to go on without it."
            ) from error
        if not isinstance(entry, dict):
            continue
        if isinstance(entry.get("warning"), str):
            warnings[entry["warning"]] = None
        step = number(entry.get("step"))
        for key, value in numbers(entry).items() if step is not None else ():
            if key != "step":
                points.setdefault(key, {})[step or 0.0] = value
    return {key: _series(found) for key, found in points.items()}, tuple(warnings)


def _series(points: Mapping[float, float]) -> Series:
    steps = sorted(points)
    return Series(np.array(steps, np.float64), np.array([points[step] for step in steps], np.float64))


def predictions(path: Path, classes: int | None, *, masks: bool = False) -> Predictions | None:
    """`predictions/test.npz`, or None where there is none. Images without a label are left out.

    masks: the file is of images with masks, and holds the confusion matrix of each.
    """
    if not path.is_file():
        return None
    held = _arrays(path)
    needed = ("logits", "labels", *(("rows", "counts") if masks else ()))
    absent = [key for key in needed if key not in held]
    if absent:
        expected = "rows, names, counts, logits, labels" if masks else "rows, names, logits, labels"
        raise DataError(f"{path}: holds no array '{absent[0]}'. Expected {expected}. {_ANEW}")
    logits, labels = np.asarray(held["logits"], np.float32), np.asarray(held["labels"], np.int64)
    if logits.ndim != 2 or len(logits) != len(labels):
        raise DataError(f"{path}: logits {logits.shape} do not match labels {labels.shape}; expected (N, C) and (N,).")
    if classes is not None and logits.shape[1] != classes:
        columns = logits.shape[1]
        raise DataError(f"{path}: {columns} columns of logits, but metrics.json names {classes} classes. {_ANEW}")
    if labels.max(initial=-1) >= logits.shape[1]:
        raise DataError(f"{path}: label {labels.max()} is beyond the {logits.shape[1]} columns of logits. {_ANEW}")
    rows = np.asarray(held.get("rows", np.arange(len(labels))), np.int64)
    names = tuple(str(name) for name in held.get("names", rows))
    keep = np.flatnonzero(labels >= 0)
    # A collapsed run may predict NaN: it then knows nothing, which equal logits say.
    finite = np.nan_to_num(logits, nan=0.0, posinf=1e4, neginf=-1e4)[keep]
    if masks:
        return Predictions(rows, names, finite, labels[keep], _summed(path, held["counts"], len(rows), logits.shape[1]))
    return Predictions(rows[keep], tuple(names[place] for place in keep), finite, labels[keep])


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as archive:  # numpy leaks a broken file it opens
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        raise DataError(f"{path}: not readable as npz ({error}). {_ANEW}") from error


def _summed(path: Path, counts: NDArray[Any], images: int, classes: int) -> Ints:
    """(N, C, C) -> (C, C)"""
    if counts.shape != (images, classes, classes):
        raise DataError(f"{path}: counts {counts.shape}, expected ({images}, {classes}, {classes}). {_ANEW}")
    total: Ints = counts.sum(axis=0, dtype=np.int64)
    return total


def gallery(path: Path) -> Gallery | None:
    """`predictions/gallery.npz`, or None where there is none."""
    if not path.is_file():
        return None
    held = _arrays(path)
    colors = held.get("colors")
    if colors is None or colors.ndim != 2 or colors.shape[1] != 3:
        found = "none" if colors is None else str(colors.shape)
        raise DataError(f"{path}: expected an array 'colors' (classes, 3), found {found}. {_ANEW}")
    return Gallery(colors.astype(np.uint8), _maps(path, held, "test"), _maps(path, held, "unlabeled"))


def _maps(path: Path, held: Mapping[str, NDArray[Any]], kind: str) -> tuple[Maps, ...]:
    rows = held.get(f"{kind}-rows", np.zeros(0, np.int64))
    names = held.get(f"{kind}-names", [f"image {row}" for row in rows])
    found = []
    for place, name in enumerate(names):
        keys = [f"{kind}-{part}-{place}" for part in ("image", "truth", "labels", "entropy")]
        absent = [key for key in keys if key not in held]
        if absent:
            raise DataError(f"{path}: holds no array '{absent[0]}'. {_ANEW}")
        image, *planes = (held[key] for key in keys)
        if any(plane.shape != image.shape[1:] for plane in planes):
            shapes = ", ".join(str(held[key].shape) for key in keys)
            raise DataError(f"{path}: '{keys[0]}' and its maps are of shapes {shapes}; expected one size. {_ANEW}")
        found.append(Maps(str(name), image, *planes))
    return tuple(found)


def config(path: Path) -> tuple[str, dict[str, object]]:
    """The text of `config.yaml` and its flattened settings, `section.key` by name; both empty where there is none."""
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place is not None else ""
        raise DataError(f"{path}{where}: not readable as YAML. Mend the line, or run `sfumato train` again.") from error
    return text.rstrip("\n"), flatten(parsed)


def flatten(value: object, prefix: str = "") -> dict[str, object]:
    """Nested objects as one level of dotted names; lists stay values."""
    if not isinstance(value, Mapping):
        return {prefix: value} if prefix else {}
    flat: dict[str, object] = {}
    for key, item in value.items():
        flat.update(flatten(item, f"{prefix}.{key}" if prefix else str(key)))
    return flat

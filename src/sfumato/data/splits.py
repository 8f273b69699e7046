"""Who is labelled, unlabelled, for validation and for testing: frozen in a file that a person can read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sfumato.data.listing import examples
from sfumato.data.stratify import Rows
from sfumato.errors import DataError

PARTS = ("labeled", "unlabeled", "val", "test")
VERSION = 1


class Splittable(Protocol):
    """What splits are drawn from: named rows, and what of them must not change."""

    @property
    def source(self) -> str: ...

    @property
    def names(self) -> list[str]: ...

    def contents(self, rows: Rows) -> dict[str, Sequence[object]]:
        """The columns by name, and the pixels (as hashes) of `rows`, in this order."""


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """Rows of a table, each part sorted. `labeled` may be part of `unlabeled`; nothing else overlaps."""

    labeled: Rows
    unlabeled: Rows
    val: Rows
    test: Rows
    seed: int
    fingerprint: str  # of the table's rows, labels, splits and classes, and of the pixels of labeled, val and test
    notes: list[str] = field(default_factory=list)
    split_seed: int = 0
    names: Sequence[str] = ()  # of all rows of the table
    hashes: dict[str, str] = field(default_factory=dict)  # what the fingerprint is made of
    lists: dict[str, str] = field(default_factory=dict)  # list of the source -> SHA-256: which published split it is
    wrong: dict[int, int] = field(default_factory=dict)  # row -> its label in place of the right one: label noise

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part}={len(getattr(self, part))}" for part in PARTS)
        return f"Splits({sizes}, seed={self.seed}, split_seed={self.split_seed})"

    def told(self, labels: Rows) -> Rows:
        """The labels (N,) that training and validation get to see, of the right ones."""
        if not self.wrong:
            return labels
        seen = labels.copy()
        seen[list(self.wrong)] = list(self.wrong.values())
        return seen

    def save(self, path: Path) -> None:
        """Write JSON that lists every part by the names of its images."""
        content = {
            "version": VERSION,
            "seed": self.seed,
            "split_seed": self.split_seed,
            "fingerprint": self.fingerprint,
            "hashes": self.hashes,
            "lists": self.lists,
            "notes": self.notes,
            **{part: [self.names[row] for row in getattr(self, part)] for part in PARTS},
            "left_out": [self.names[row] for row in self._left_out()],
            "wrong_labels": {self.names[row]: label for row, label in self.wrong.items()},
        }
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path, table: Splittable) -> Splits:
        """The splits of a file, for the table they were drawn from.

        Raises DataError when the file cannot be read or the table is no longer the same, saying what changed.
        """
        content = _read(path)
        _refuse_other_rows(path, content, table)
        row_of = {name: row for row, name in enumerate(table.names)}
        parts = {part: np.array([row_of[name] for name in content[part]], dtype=np.int64) for part in PARTS}
        hashes = fingerprint_parts(table, np.concatenate([parts["labeled"], parts["val"], parts["test"]]))
        changed = [part for part, value in hashes.items() if value != content["hashes"].get(part)]
        if "names" in changed:
            changed = ["names"]  # other rows are meant now, so what else differs says nothing
        if changed:
            what = ", ".join(CHANGED[part] for part in changed)
            raise DataError(f"{path}: made for other data than {table.source}: changed since: {what}. {MEND}")
        return cls(
            **parts,
            seed=content["seed"],
            split_seed=content["split_seed"],
            fingerprint=content["fingerprint"],
            notes=content["notes"],
            names=table.names,
            hashes=hashes,
            lists=content.get("lists", {}),
            wrong={row_of[name]: label for name, label in content.get("wrong_labels", {}).items()},
        )

    def _left_out(self) -> Rows:
        used = np.concatenate([getattr(self, part) for part in PARTS])
        return np.setdiff1d(np.arange(len(self.names)), used)


CHANGED = {
    "names": "the order or names of the images",
    "labels": "labels",
    "known": "which images have a mask",
    "may_label": "which masks may be labels",
    "split": "the split column",
    "classes": "the class names",
    "images": "which images are labelled, validation or test, or their pixels",
    "pairs": "which images are labelled, validation or test, or the pixels of them or their masks",
}
MEND_FILE = "Restore the file, or start a new run, which draws new splits."
MEND = "Restore the data, or start a new run, which draws new splits."


def fingerprint_parts(table: Splittable, rows: Rows) -> dict[str, str]:
    """A hash of each thing that must not change: the columns of the table and the pixels of `rows`, in this order."""
    return {name: _hash(values) for name, values in table.contents(rows).items()}


def fingerprint(parts: dict[str, str]) -> str:
    return _hash(f"{name}={value}" for name, value in sorted(parts.items()))


def _hash(values: Iterable[object]) -> str:
    """sha256 of a list of values; as JSON, so that ['a', 'b'] and ['ab'] differ."""
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. A run writes its splits here when it starts.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a splits file ({error}). {MEND_FILE}") from error
    wanted = {"seed", "split_seed", "fingerprint", "hashes", "notes", *PARTS}
    missing = sorted(wanted - set(content)) if isinstance(content, dict) else sorted(wanted)
    if missing:
        raise DataError(f"{path}: not a splits file: it has no {', '.join(missing)}. {MEND_FILE}")
    return dict(content)


def _refuse_other_rows(path: Path, content: dict[str, Any], table: Splittable) -> None:
    """Name the images that came or went, which a hash cannot."""
    before = {name for part in (*PARTS, "left_out") for name in content.get(part, [])}
    gone = sorted(before - set(table.names))
    new = [name for name in table.names if name not in before]
    if gone or new:
        changes = [
            f"{len(names)} {what} ({examples(names)})" for what, names in (("gone", gone), ("new", new)) if names
        ]
        raise DataError(f"{path}: made for other data than {table.source}: images {' and '.join(changes)}. {MEND}")

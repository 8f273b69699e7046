"""Drawing splits: what is held out depends on `split_seed` alone, the few labels on `seed`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sfumato.data.apart import HeldOut, as_splits, draw_apart
from sfumato.data.label_noise import LabelNoise
from sfumato.data.listing import examples, plural
from sfumato.data.long_tail import LongTail
from sfumato.data.request import LabelRequest, hold_out_size
from sfumato.data.splits import PARTS, Splits
from sfumato.data.stratify import Rows, carve
from sfumato.data.table import Table
from sfumato.errors import DataError


def draw_splits(
    table: Table,
    *,
    labels: int | None = None,
    labels_per_class: int | None = None,
    fraction: float | None = None,
    val: int | float = 0.2,
    test: int | float = 0.2,
    seed: int = 0,
    split_seed: int = 0,
    include_labeled: bool = True,
    long_tail: LongTail | None = None,
    noise: LabelNoise | None = None,
) -> Splits:
    """Labelled, unlabelled, validation and test rows of a table.

    The table's own split column decides where it names val or test rows. Otherwise they are carved, class by class,
    from the labelled rows: an int is a number of images, a float a share of the labelled ones, 0 none. If a share would
    leave a class without a label to train on, nothing is carved and a note says so.

    Of the labelled rows that remain, `labels` are drawn evenly over the classes, or `labels_per_class` of each, or a
    `fraction` of each; all of them when none of the three is given. The unlabelled pool is every other row that is not
    held out, and the labelled rows too when `include_labeled`; it is empty, with a note, when there are no others.

    long_tail: frequencies of the labelled and of the unlabelled classes that fall off; what does not fit is left out of
    training, and a tail of unlabelled images holds no labelled ones. Validation and test images stay as they are.
    noise: labels that are made wrong, recorded in the splits.

    Images with the pixels of a carved image are never drawn as labels. Raises DataError when the labels do not suffice,
    or when a labelled image is also in a val or test split that the table prescribes.
    """
    tail, noise = long_tail or LongTail(), noise or LabelNoise()
    request = LabelRequest(labels, labels_per_class, fraction, tail)
    if errors := class_errors(table.source, table.labels, table.split, table.classes):
        raise DataError("\n".join(errors))
    held = _hold_out(table, val, test, split_seed)
    pool = np.setdiff1d(trainable(table.labels, table.split), held.rows)
    labeled, copies = draw_apart(
        table, table.images.digests, held, pool, lambda rows: request.draw(table, rows, held.aside(), seed)
    )

    include = include_labeled and tail.unlabeled is None  # its counts are those of the unlabelled images alone

    def keep(rows: Rows) -> Rows:
        return tail.keep_unlabeled(table, rows, seed)

    splits = as_splits(
        table, held, labeled, copies, seed=seed, split_seed=split_seed, include_labeled=include, keep=keep
    )
    wrong: dict[int, int] = {}
    of = 0
    for rows in (labeled, held.val) if noise.val else (labeled,):  # each by itself: a share of both
        wrong |= noise.flipped(table.names, table.labels, len(table.classes), rows, seed)
        of += len(rows)
    told = [*_tail_notes(table, splits, tail), *_noise_note(splits, noise, wrong, of)]
    return replace(splits, wrong=wrong, notes=[*splits.notes, *told])


def class_counts(table: Table, splits: Splits) -> dict[str, list[int]]:
    """Images of each class, (C,), of every part, by the right labels; of the unlabelled those whose class is known."""
    found = {}
    for part in PARTS:
        labels = table.labels[getattr(splits, part)]
        found[part] = np.bincount(labels[labels >= 0], minlength=len(table.classes)).tolist()
    return found


def class_errors(source: str, labels: Rows, split: NDArray[np.str_], classes: list[str]) -> list[str]:
    """What is wrong with the classes: no label at all, fewer than two classes, or one without a label to train on."""
    if not (labels >= 0).any():
        return [f"{source}: no image has a label. Label at least one image of each class."]
    if len(classes) < 2:
        return [f"{source}: only one class, '{classes[0]}'. Expected two or more; is a folder inside it meant?"]
    counts = np.bincount(labels[trainable(labels, split)], minlength=len(classes))
    empty = [classes[label] for label in np.flatnonzero(counts == 0)]
    if not empty:
        return []
    return [
        f"{source}: {plural(len(empty), 'class')} without a labelled image to train on: {examples(empty)}. "
        "Label at least one image of each (val and test images do not count), or take the class away."
    ]


def trainable(labels: Rows, split: NDArray[np.str_]) -> Rows:
    """Rows with a label that the table does not hold out."""
    return np.flatnonzero((labels >= 0) & ~np.isin(split, ["val", "test"]))


def _hold_out(table: Table, val: int | float, test: int | float, split_seed: int) -> HeldOut:
    """The rows that the table prescribes, and those carved for the parts that it does not."""
    rows = {part: np.flatnonzero((table.split == part) & (table.labels >= 0)) for part in ("val", "test")}
    given = tuple(part for part in rows if (table.split == part).any())
    pool = trainable(table.labels, table.split)
    shares = {part: share for part, share in (("test", test), ("val", val)) if part not in given}
    sizes = {part: hold_out_size(part, share, len(pool)) for part, share in shares.items()}
    notes = _blank_notes(table)
    if sum(sizes.values()) > len(pool) - len(table.classes):
        exact = any(isinstance(share, int) and share > 0 for share in shares.values())
        notes.append(_too_few(table, sizes, len(pool), exact))
        sizes = {}
    for part, size in sizes.items():
        rows[part] = carve(table.labels, pool, size, (part, split_seed))
        pool = np.setdiff1d(pool, rows[part])
    for part in ("val", "test"):
        notes += _missing_classes_note(table, part, rows[part])
    return HeldOut(rows["val"], rows["test"], given, notes)


def _too_few(table: Table, wanted: dict[str, int], known: int, exact: bool) -> str:
    sizes = " and ".join(f"{size} for {part}" for part, size in wanted.items() if size)
    message = (
        f"{plural(known, 'label')} for {plural(len(table.classes), 'class')} are too few to set aside {sizes} and "
        "leave each class one to train on"
    )
    if exact:
        raise DataError(f"{table.source}: {message}. Ask for fewer (val=…, test=…) or label more.")
    return f"{message}: none are set aside, so nothing can be measured. Label more, or name val and test images."


def _tail_notes(table: Table, splits: Splits, tail: LongTail) -> list[str]:
    """How frequent the classes are from head to tail, where they were asked to be a long tail."""
    counts, notes = class_counts(table, splits), []
    order = [table.classes.index(name) for name in tail.order or table.classes]
    for part, gamma in (("labeled", tail.gamma_labeled), ("unlabeled", tail.unlabeled)):
        if gamma is not None:
            found = counts[part]
            notes.append(
                f"Long tail of the {part.replace('beled', 'belled')} images, gamma {gamma:g}: {found[order[0]]:,} of "
                f"'{table.classes[order[0]]}' to {found[order[-1]]:,} of '{table.classes[order[-1]]}', "
                f"{sum(found):,} in all."
            )
    return notes


def _noise_note(splits: Splits, noise: LabelNoise, wrong: dict[int, int], of: int) -> list[str]:
    if not noise.share:
        return []
    where = "training and validation labels" if noise.val and len(splits.val) else "training labels"
    return [f"Label noise: {len(wrong):,} of {of:,} {where} are wrong ({noise}); splits.json lists them."]


def _blank_notes(table: Table) -> list[str]:
    blank = int((np.isin(table.split, ["val", "test"]) & (table.labels < 0)).sum())
    return [f"{plural(blank, 'val or test image')} without a label left out."] if blank else []


def _missing_classes_note(table: Table, part: str, rows: Rows) -> list[str]:
    missing = np.setdiff1d(np.arange(len(table.classes)), table.labels[rows])
    if not len(rows) or not len(missing):
        return []
    names = examples([table.classes[label] for label in missing])
    return [f"The {part} split has no image of {plural(len(missing), 'class')}: {names}."]

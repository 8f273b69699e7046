"""From a table of pairs to frozen splits: what to hold out depends on `split_seed`, which labels on `seed`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sfumato.data.apart import HeldOut, as_splits, draw_apart
from sfumato.data.listing import examples, plural
from sfumato.data.pairs.table import PairTable
from sfumato.data.request import hold_out_size
from sfumato.data.shuffle import permutation
from sfumato.data.splits import Splits
from sfumato.data.stratify import Rows
from sfumato.errors import DataError, UsageError

TRIES = 500  # draws compared when the first lacks a class


def draw_pair_splits(
    table: PairTable,
    *,
    labels: int | None = None,
    fraction: float | None = None,
    val: int | float = 0.2,
    test: int | float = 0.2,
    seed: int = 0,
    split_seed: int = 0,
    include_labeled: bool = True,
) -> Splits:
    """Labelled, unlabelled, validation and test rows of a table of pairs.

    The table's own split column decides where it names val or test rows. Otherwise they are carved from the images
    with a mask: an int is a number of images, a float a share of them, 0 none.

    Of the images with a mask that remain, `labels` are drawn, or a `fraction` of them; all when neither is given. Where
    the source lists the labelled images, only they are drawn from. Draws that hold every class are preferred: the
    first of a fixed number of draws that does, and else the one with the most classes, with a note. The unlabelled
    pool is every other row that is not held out, and the labelled rows too when `include_labeled`.

    Images with the pixels of a carved image are never drawn as labels. Raises DataError when a class is in no mask to
    train on, when a validation image has no mask, when there are fewer masks than asked for, or when a labelled image
    is also in a val or test split that the table prescribes.
    """
    _check_request(labels, fraction)
    if errors := pair_errors(table):
        raise DataError("\n".join(errors))
    held = _hold_out(table, val, test, split_seed)
    pool = np.setdiff1d(label_rows(table), held.rows)

    def draw(rows: Rows) -> Rows:
        size = _label_count(table, rows, labels, fraction, held.aside())
        return _choose(table, rows, size, ("labels", seed))

    labeled, copies = draw_apart(table, table.images.image_digests, held, pool, draw)
    notes, lists = _lacking_note(table, labeled), {file.part: file.sha256 for file in table.lists}
    splits = as_splits(
        table, held, labeled, copies, seed=seed, split_seed=split_seed, include_labeled=include_labeled, notes=notes
    )
    return replace(splits, lists=lists)


def pair_errors(table: PairTable) -> list[str]:
    """What makes training impossible: no mask, one class, a class that no mask shows, a val image without a mask."""
    errors = []
    training = table.known & ~np.isin(table.split, ["val", "test"])
    if not training.any() or not len(label_rows(table)):
        errors.append(f"{table.source}: no image to train on has a mask. Give at least one image a mask.")
    if len(table.classes) < 2:
        errors.append(
            f"{table.source}: only one class, '{table.classes[0]}', in the masks. Expected two or more; the background "
            "is a class of its own."
        )
    absent = [table.classes[label] for label in np.flatnonzero(~present(table)[training].any(axis=0))]
    if absent and not errors:
        errors.append(
            f"{table.source}: {plural(len(absent), 'class')} absent from the labeled masks: {examples(absent)}. Mark "
            "at least one image of each (val and test images do not count), or take the class out of the class table."
        )
    blank = [table.names[row] for row in np.flatnonzero((table.split == "val") & ~table.known)]
    if blank:
        errors.append(
            f"{table.source}: {plural(len(blank), 'validation image')} without a mask: {examples(blank)}. Give each a "
            "mask, or take it out of the validation split."
        )
    return errors


def label_rows(table: PairTable) -> Rows:
    """Rows whose mask may be a label."""
    return np.flatnonzero(table.known & table.may_label & ~np.isin(table.split, ["val", "test"]))


def present(table: PairTable) -> NDArray[np.bool_]:
    """(N, C) whether a mask shows a class."""
    return table.counts[:, :-1] > 0


def _check_request(labels: int | None, fraction: float | None) -> None:
    if labels is not None and fraction is not None:
        raise UsageError("labels and fraction were both given; expected one of them, or none for all masks.")
    if labels is not None and labels < 1:
        raise UsageError(f"labels={labels}: expected 1 or more.")
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"fraction={fraction}: expected more than 0 and at most 1 (all masks).")


def _hold_out(table: PairTable, val: int | float, test: int | float, split_seed: int) -> HeldOut:
    """The rows that the table prescribes, and those carved for the parts that it does not."""
    rows = {part: np.flatnonzero((table.split == part) & table.known) for part in ("val", "test")}
    given = tuple(part for part in rows if (table.split == part).any())
    pool = label_rows(table)
    shares = {part: share for part, share in (("test", test), ("val", val)) if part not in given}
    sizes = {part: hold_out_size(part, share, len(pool)) for part, share in shares.items()}
    if sum(sizes.values()) >= len(pool):
        asked = " and ".join(f"{size} for {part}" for part, size in sizes.items() if size)
        raise DataError(
            f"{table.source}: {plural(len(pool), 'image')} with a mask are too few to set aside {asked} and have one "
            "left to train on. Ask for fewer (val=…, test=…) or mark more."
        )
    for part, size in sizes.items():
        rows[part] = _choose(table, pool, size, (part, split_seed), leave=True)
        pool = np.setdiff1d(pool, rows[part])
    blank = int(((table.split == "test") & ~table.known).sum())
    notes = [f"{plural(blank, 'test image')} without a mask left out."] if blank else []
    for part in ("val", "test"):
        notes += _unseen_note(table, part, rows[part])
    return HeldOut(rows["val"], rows["test"], given, notes)


def _label_count(table: PairTable, pool: Rows, labels: int | None, fraction: float | None, aside: str) -> int:
    if fraction is not None:
        return max(1, round(fraction * len(pool)))
    if labels is not None and labels > len(pool):
        raise DataError(
            f"{table.source}: labels={labels} asked for, but there are only {plural(len(pool), 'image')} with a mask "
            f"to draw from{aside}. Ask for fewer, or for no number to use all of them."
        )
    return len(pool) if labels is None else labels


def _choose(table: PairTable, pool: Rows, size: int, key: tuple[str, int], *, leave: bool = False) -> Rows:
    """`size` random rows of the pool, sorted: of the first TRIES draws, the first with the most classes.

    leave: the most classes in what is left, and only then in what is taken.
    """
    if size in (0, len(pool)):
        return pool[:size]
    shown = present(table)[pool]
    reachable = int(shown.any(axis=0).sum())
    best, best_score = np.empty(0, dtype=np.int64), (-1, -1)
    for attempt in range(TRIES):
        order = permutation(len(pool), *key, *([attempt] if attempt else []))
        taken, left = order[:size], order[size:]
        inside = int(shown[taken].any(axis=0).sum())
        score = (int(shown[left].any(axis=0).sum()) if leave else inside, inside)
        if score > best_score:
            best, best_score = taken, score
        if score == (reachable, reachable):
            break
    return np.sort(pool[best])


def _lacking_note(table: PairTable, labeled: Rows) -> list[str]:
    training = ~np.isin(table.split, ["val", "test"])
    lacking = present(table)[training].any(axis=0) & ~present(table)[labeled].any(axis=0)
    if not lacking.any():
        return []
    names = examples([table.classes[label] for label in np.flatnonzero(lacking)])
    count = plural(int(lacking.sum()), "class")
    return [f"The {plural(len(labeled), 'labelled mask')} show nothing of {count}: {names}. More labels would help."]


def _unseen_note(table: PairTable, part: str, rows: Rows) -> list[str]:
    unseen = np.flatnonzero(~present(table)[rows].any(axis=0))
    if not len(rows) or not len(unseen):
        return []
    names = examples([table.classes[label] for label in unseen])
    return [f"The {part} split shows nothing of {plural(len(unseen), 'class')}: {names}."]

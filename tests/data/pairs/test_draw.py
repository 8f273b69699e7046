"""Splits of pairs: what must hold for every draw, every refusal, and the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data import Splits
from sfumato.data.pairs import PairTable, draw_pair_splits, load_pairs, pairs_from_arrays
from sfumato.errors import DataError, UsageError
from tests.data.pairs.fakes import mask_of, table_of, write_plain

steady = settings(deadline=None, derandomize=True, max_examples=60)
RARE_ROW = 17


def common(count: int = 30, unlabeled: int = 5) -> PairTable:
    """Classes 0 and 1 everywhere, class 2 in one mask of three, class 3 in a single one."""
    masks = [[0, 1] + ([2] if row % 3 == 0 else []) + ([3] if row == RARE_ROW else []) for row in range(count)]
    return table_of([*masks, *[None] * unlabeled])


def classes_of(table: PairTable, rows: np.ndarray) -> set[int]:
    return set(np.flatnonzero(table.counts[rows, :-1].any(axis=0)).tolist())


@steady
@given(
    st.integers(2, 40),
    st.integers(0, 6),
    st.sampled_from([{}, {"labels": 1}, {"fraction": 0.3}]),
    st.sampled_from([0, 0.2, 1]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.booleans(),
)
def test_parts_are_disjoint_and_complete(
    known: int, blank: int, request: dict[str, Any], share: float, seed: int, split_seed: int, include: bool
) -> None:
    table = table_of([[0, 1]] * known + [None] * blank)
    if share and 2 * max(1, round(share * known) if isinstance(share, float) else share) >= known:
        return
    splits = draw_pair_splits(
        table, **request, val=share, test=share, seed=seed, split_seed=split_seed, include_labeled=include
    )
    held = [*splits.val.tolist(), *splits.test.tolist()]
    labeled, unlabeled = set(splits.labeled.tolist()), set(splits.unlabeled.tolist())
    assert len(held) == len(set(held))
    assert not labeled & set(held)
    assert not unlabeled & set(held)
    assert labeled | unlabeled | set(held) == set(range(len(table)))
    assert table.known[[*labeled, *held]].all()
    assert bool(labeled & unlabeled) == (include and len(unlabeled) > 0)


def test_sizes_and_seeds() -> None:
    table = common()
    splits = draw_pair_splits(table, labels=4, val=5, test=0.2)
    assert (len(splits.labeled), len(splits.val), len(splits.test), len(splits.unlabeled)) == (4, 5, 6, 24)
    same = draw_pair_splits(table, labels=4, val=5, test=0.2)
    assert np.array_equal(same.labeled, splits.labeled)
    assert same.fingerprint == splits.fingerprint
    other = draw_pair_splits(table, labels=4, val=5, test=0.2, seed=1)
    assert not np.array_equal(other.labeled, splits.labeled)
    assert np.array_equal(other.val, splits.val)
    moved = draw_pair_splits(table, labels=4, val=5, test=0.2, split_seed=1)
    assert not np.array_equal(moved.val, splits.val)


def test_fraction_is_of_the_masks_that_remain() -> None:
    splits = draw_pair_splits(common(), fraction=0.5, val=10, test=0)
    assert len(splits.labeled) == 10
    assert len(draw_pair_splits(common(), fraction=0.001, val=10, test=0).labeled) == 1


def test_a_draw_that_holds_every_class_is_preferred() -> None:
    table = common()
    for seed in range(5):
        splits = draw_pair_splits(table, labels=4, val=0, test=0, seed=seed)
        assert classes_of(table, splits.labeled) == {0, 1, 2, 3}
        assert RARE_ROW in splits.labeled
        assert not [note for note in splits.notes if "show nothing" in note]


def test_a_draw_that_cannot_hold_every_class_says_so() -> None:
    table = table_of([[0, 1], [0, 1], [0, 2], [0, 3], [0, 1]])
    splits = draw_pair_splits(table, labels=2, val=0, test=0)
    assert len(classes_of(table, splits.labeled)) == 3
    note = next(note for note in splits.notes if "show nothing" in note)
    assert note.startswith("The 2 labelled masks show nothing of 1 class: 'class ")
    assert note.endswith("'. More labels would help.")


def test_carving_leaves_a_rare_class_to_train_on() -> None:
    table = common()
    for split_seed in range(8):
        splits = draw_pair_splits(table, val=10, test=10, split_seed=split_seed)
        assert RARE_ROW in splits.labeled
        assert any(note.startswith("The val split shows nothing of 1 class: 'class 3'") for note in splits.notes)


def test_prescribed_splits_are_kept() -> None:
    split = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    splits = draw_pair_splits(table_of([[0, 1]] * 8 + [[0], None], split), labels=3)
    assert splits.val.tolist() == [6, 7]
    assert splits.test.tolist() == [8]
    assert splits.unlabeled.tolist() == [0, 1, 2, 3, 4, 5]
    assert "1 test image without a mask left out." in splits.notes


def test_masks_that_are_no_labels_are_never_drawn() -> None:
    table = dataclasses.replace(table_of([[0, 1]] * 6), may_label=np.array([True, True, False, False, False, False]))
    splits = draw_pair_splits(table, val=0, test=0)
    assert splits.labeled.tolist() == [0, 1]
    assert splits.unlabeled.tolist() == [0, 1, 2, 3, 4, 5]


# copies -------------------------------------------------------------------------------------------------------------


def with_copy(split: list[str]) -> PairTable:
    """Six images, the last a copy of the first with another mask."""
    table = table_of([[0, 1]] * 5)
    images = [table.images.image(row).permute(1, 2, 0).numpy() for row in [0, 1, 2, 3, 4, 0]]
    masks = [np.asarray(mask_of([0, 1]))] * 5 + [np.asarray(mask_of([1, 0, 0]))]
    return pairs_from_arrays(images, masks, split=split)


def test_a_label_that_is_also_in_the_test_split_is_an_error() -> None:
    with pytest.raises(DataError, match=r"1 labelled image also in the validation or test split.*000000 = 000005 \(te"):
        draw_pair_splits(with_copy(["train"] * 5 + ["test"]), val=0)


def test_copies_of_carved_images_are_passed_over() -> None:
    for split_seed in range(30):
        splits = draw_pair_splits(with_copy([""] * 6), val=0, test=1, split_seed=split_seed)
        if splits.test[0] in (0, 5):
            assert not {0, 5} & set(splits.labeled.tolist())
            assert any("1 image left out as exact copies of val or test images" in note for note in splits.notes)
            return
    pytest.fail("no draw carved the copied image")


# refusals -----------------------------------------------------------------------------------------------------------


def refuse(message: str, table: PairTable, **options: Any) -> None:
    with pytest.raises(DataError) as error:
        draw_pair_splits(table, **options)
    assert str(error.value) == message


def test_a_class_absent_from_the_labeled_masks() -> None:
    table = table_of([[0, 1], [0, 1], [0, 2], None], ["train", "train", "val", "train"], classes=4)
    refuse(
        "arrays: 2 classes absent from the labeled masks: 'class 2', 'class 3'. Mark at least one image of each (val "
        "and test images do not count), or take the class out of the class table.",
        table,
    )


def test_a_validation_image_without_a_mask() -> None:
    refuse(
        "arrays: 1 validation image without a mask: '000002'. Give each a mask, or take it out of the validation "
        "split.",
        table_of([[0, 1], [0, 1], None], ["train", "train", "val"]),
    )


def test_too_few_masks() -> None:
    refuse(
        "arrays: labels=5 asked for, but there are only 3 images with a mask to draw from after 1 val image and 1 test "
        "image were set aside. Ask for fewer, or for no number to use all of them.",
        table_of([[0, 1]] * 5),
        labels=5,
    )
    refuse(
        "arrays: 3 images with a mask are too few to set aside 1 for test and 2 for val and have one left to train on. "
        "Ask for fewer (val=…, test=…) or mark more.",
        table_of([[0, 1]] * 3),
        val=2,
        test=1,
    )


def test_nothing_to_learn_from() -> None:
    refuse(
        "arrays: no image to train on has a mask. Give at least one image a mask.",
        table_of([None, None, [0, 1]], ["train", "train", "test"]),
    )
    refuse(
        "arrays: only one class, 'class 0', in the masks. Expected two or more; the background is a class of its own.",
        table_of([[0], [0]]),
    )


def test_requests_that_cannot_be() -> None:
    table = table_of([[0, 1]] * 3)
    for options, message in (
        ({"labels": 1, "fraction": 0.5}, "labels and fraction were both given"),
        ({"labels": 0}, "labels=0: expected 1 or more"),
        ({"fraction": 1.5}, "fraction=1.5: expected more than 0 and at most 1"),
        ({"val": -1}, "val=-1: expected a number of images"),
    ):
        with pytest.raises(UsageError, match=message):
            draw_pair_splits(table, **options)


def test_without_unlabeled_images_there_is_a_note() -> None:
    splits = draw_pair_splits(table_of([[0, 1]] * 3), val=0, test=0)
    assert not len(splits.unlabeled)
    assert any(note.startswith("There are no unlabelled images") for note in splits.notes)


# the file -----------------------------------------------------------------------------------------------------------


def test_splits_come_back_from_their_file(tmp_path: Path) -> None:
    write_plain(tmp_path / "data", {"a": [0, 1], "b": [0, 1], "c": [1, 0], "d": None})
    table = load_pairs(tmp_path / "data")
    splits = draw_pair_splits(table, labels=2, val=0, test=0)
    splits.save(tmp_path / "splits.json")
    again = Splits.load(tmp_path / "splits.json", load_pairs(tmp_path / "data", resize=4))
    assert again.fingerprint == splits.fingerprint
    assert again.labeled.tolist() == splits.labeled.tolist()


@pytest.mark.parametrize(
    ("change", "what"),
    [("mask", "which images are labelled, validation or test, or the pixels of them or their masks"),
     ("image", "which images are labelled, validation or test, or the pixels of them or their masks"),
     ("known", "which images have a mask"),
     ("classes", "the class names")],
)  # fmt: skip
def test_splits_refuse_data_that_changed(change: str, what: str, tmp_path: Path) -> None:
    folder = write_plain(tmp_path / "data", {"a": [0, 1], "b": [0, 1], "c": None})
    draw_pair_splits(load_pairs(folder), val=0, test=0).save(tmp_path / "splits.json")
    match change:
        case "mask":
            mask_of([1, 0, 0]).save(folder / "masks" / "a.png")
        case "image":
            (folder / "images" / "a.png").write_bytes((folder / "images" / "c.png").read_bytes())
        case "known":
            mask_of([0, 1]).save(folder / "masks" / "c.png")
        case "classes":
            (folder / "classes.txt").write_text("sea\nland\n")
    with pytest.raises(DataError, match="made for other data than") as error:
        Splits.load(tmp_path / "splits.json", load_pairs(folder))
    assert what in str(error.value)

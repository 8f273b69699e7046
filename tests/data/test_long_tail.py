"""Long tails: the published counts, orders, heads that follow from the data, and every refusal."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data import LongTail, Splits, Table, class_counts, draw_splits
from sfumato.data.long_tail import tail_counts
from sfumato.errors import DataError, UsageError
from tests.data.pictures import table_of

steady = settings(deadline=None, derandomize=True)
TABLE = table_of([row % 5 for row in range(1000)])  # 200 of each of 5 classes


def drawn(tail: LongTail, table: Table = TABLE, **options: Any) -> tuple[Splits, dict[str, list[int]]]:
    splits = draw_splits(table, **({"val": 0, "test": 0} | options), long_tail=tail)
    return splits, class_counts(table, splits)


@pytest.mark.parametrize(
    ("head", "gamma", "classes", "wanted"),
    [
        (1500, 100, 10, [1500, 899, 539, 323, 193, 116, 69, 41, 25, 15]),  # as in papers on CIFAR-10-LT
        (500, 100, 10, [500, 299, 179, 107, 64, 38, 23, 13, 8, 5]),
        (500, -100, 10, [5, 8, 13, 23, 38, 64, 107, 179, 299, 500]),
        (1000, 1000, 4, [1000, 100, 10, 1]),  # whole numbers are not lost to rounding
        (7, 1, 3, [7, 7, 7]),
        (9, 2, 2, [9, 4]),
    ],
)
def test_counts(head: int, gamma: float, classes: int, wanted: list[int]) -> None:
    assert tail_counts(head, gamma, classes).tolist() == wanted


@steady
@given(st.integers(1, 5000), st.floats(1, 1000), st.integers(2, 120))
def test_counts_fall_from_head_to_tail(head: int, gamma: float, classes: int) -> None:
    counts = tail_counts(head, gamma, classes)
    assert counts[0] == head
    assert counts[-1] in (int(head / gamma), int(head / gamma * (1 + 1e-9)))
    assert (np.diff(counts) <= 0).all()
    assert tail_counts(head, -gamma, classes).tolist() == counts[::-1].tolist()


def test_both_tails_are_drawn_independently_and_nothing_is_in_both() -> None:
    splits, counts = drawn(LongTail(10, 4, head_labeled=20, head_unlabeled=100))
    assert counts["labeled"] == [20, 11, 6, 3, 2]
    assert counts["unlabeled"] == [100, 70, 50, 35, 25]
    assert not set(splits.labeled) & set(splits.unlabeled)
    assert "Long tail of the labelled images, gamma 10: 20 of 'class 0' to 2 of 'class 4', 42 in all." in splits.notes
    assert "Long tail of the unlabelled images, gamma 4: 100 of 'class 0'" in splits.notes[-1]
    again, _ = drawn(LongTail(10, 4, head_labeled=20, head_unlabeled=100))
    assert again.unlabeled.tolist() == splits.unlabeled.tolist()
    other, _ = drawn(LongTail(10, 4, head_labeled=20, head_unlabeled=100), seed=1)
    assert other.unlabeled.tolist() != splits.unlabeled.tolist()


def test_reversed_by_a_word_or_a_sign() -> None:
    word, by_word = drawn(LongTail(10, "reversed", head_labeled=20, head_unlabeled=100))
    sign, _ = drawn(LongTail(10, -10, head_labeled=20, head_unlabeled=100))
    assert by_word["unlabeled"] == [10, 17, 31, 56, 100]
    assert word.unlabeled.tolist() == sign.unlabeled.tolist()


def test_labels_alone_leave_the_unlabeled_as_they_are() -> None:
    splits, counts = drawn(LongTail(10, head_labeled=20))
    assert counts["unlabeled"] == [200] * 5  # the labelled ones among them, as include_labeled says
    assert set(splits.labeled) <= set(splits.unlabeled)


def test_unlabeled_alone_with_labels_alike() -> None:
    _, counts = drawn(LongTail(gamma_unlabeled=5), labels_per_class=4)
    assert counts["labeled"] == [4] * 5
    assert counts["unlabeled"] == [196, 131, 87, 58, 39]  # the largest head that the data has


def test_classes_in_an_order_of_ones_own() -> None:
    names = ("class 4", "class 2", "class 0", "class 1", "class 3")
    splits, counts = drawn(LongTail(10, head_labeled=20, order=names))
    assert counts["labeled"] == [6, 3, 11, 2, 20]
    assert "20 of 'class 4' to 2 of 'class 3'" in splits.notes[-1]


def test_the_test_split_and_validation_stay_as_they_are() -> None:
    plain = draw_splits(TABLE, val=0.1, test=0.1)
    splits, counts = drawn(LongTail(10, 10, head_labeled=20, head_unlabeled=100), val=0.1, test=0.1)
    assert splits.test.tolist() == plain.test.tolist()
    assert splits.val.tolist() == plain.val.tolist()
    assert counts["test"] == counts["val"] == [20] * 5


def test_the_head_follows_from_the_number_of_labels_or_from_the_data() -> None:
    _, counts = drawn(LongTail(10), labels=42)
    assert counts["labeled"] == [20, 11, 6, 3, 2]
    for labels in range(42, 60):  # the largest tail that is not larger
        _, counts = drawn(LongTail(10), labels=labels)
        assert sum(counts["labeled"]) <= labels < tail_counts(counts["labeled"][0] + 1, 10, 5).sum()
    _, counts = drawn(LongTail(10))
    assert counts["labeled"] == [200, 112, 63, 35, 20]
    few = table_of([0] * 50 + [1] * 30 + [2] * 30)
    _, counts = drawn(LongTail(2), few)
    assert counts["labeled"] == [43, 30, 21]  # class 1 has no more


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ({"gamma_labeled": 0.5}, "gamma_labeled=0.5: expected at least 1 (balanced), the images of the largest class"),
        ({"gamma_labeled": 0}, "gamma_labeled=0: expected at least 1"),
        ({"gamma_labeled": float("nan")}, "gamma_labeled=nan: expected at least 1"),
        ({"gamma_unlabeled": -0.9}, "gamma_unlabeled=-0.9: expected at least 1 (balanced), the images of the largest"),
        ({"gamma_unlabeled": "reversed"}, "gamma_unlabeled=reversed turns the labelled tail round: give gamma_labeled"),
        (
            {"head_labeled": 5},
            "head_labeled=5: nothing would use it: it is the largest class of a long tail. Give gamma",
        ),
        ({"head_unlabeled": 5}, "head_unlabeled=5: nothing would use it"),
        (
            {"gamma_labeled": 20, "head_labeled": 10},
            "gamma_labeled=20 leaves the last class no label of head_labeled=10.",
        ),
        ({"gamma_labeled": 2, "head_labeled": 0}, "head_labeled=0: expected 1 image or more."),
        ({"order": ("a", "b")}, "class_order: nothing would use it: give gamma_labeled or gamma_unlabeled."),
    ],
)
def test_what_cannot_be(tail: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        LongTail(**tail)
    assert message in str(caught.value)


def test_a_class_with_too_few_images_is_named_with_what_it_needs_and_has() -> None:
    with pytest.raises(DataError) as caught:
        drawn(LongTail(2, head_labeled=190), test=0.2)
    assert str(caught.value) == (
        "arrays: class 'class 0' has 160 images after 200 test images were set aside, and the labelled long tail "
        "(head_labeled=190, gamma_labeled=2) needs 190. Take head_labeled=160 or less, hold out fewer images (val=…, "
        "test=…), or give another class_order."
    )
    with pytest.raises(
        DataError, match=r"class 'class 0' has 180 images beside the labels, .* needs 190. Take head_un"
    ):
        drawn(LongTail(10, 10, head_labeled=20, head_unlabeled=190))
    drawn(LongTail(10, 10, head_labeled=20, head_unlabeled=180))


def test_too_few_labels_for_every_class_to_have_one() -> None:
    with pytest.raises(DataError, match=r"leaves the last class without a label: labels=30 are too few. Ask for 145"):
        drawn(LongTail(100), labels=30)
    with pytest.raises(DataError, match=r"there are images for a head of 200 at most. Take gamma_labeled=200 or less."):
        drawn(LongTail(300))
    with pytest.raises(DataError, match=r"200 at most, and labels=30 for fewer. Take gamma_labeled=") as told:
        drawn(LongTail(300), labels=30)  # no number of labels would do
    found = re.search(r"gamma_labeled=(\d+) or", str(told.value))
    assert found is not None
    steepest = int(found[1])
    drawn(LongTail(steepest), labels=30)
    with pytest.raises(DataError, match="labels=30 are too few"):
        drawn(LongTail(steepest + 1), labels=30)
    with pytest.raises(DataError, match=r"Take gamma_labeled=-200 or nearer to -1."):
        drawn(LongTail(-300))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("x",), "LongTail(gamma_labeled='x'): expected a number, or None."),
        ((20, "revers", 80), "LongTail(gamma_unlabeled='revers'): expected a number, or \"reversed\", or None."),
        ((20, None, "80"), "LongTail(head_labeled='80'): expected a number, or None."),
    ],
)
def test_what_is_no_number(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        LongTail(*values)
    assert str(caught.value) == message


def test_numbers_of_labels_that_exclude_a_tail() -> None:
    for asked in ({"labels_per_class": 4}, {"fraction": 0.1}):
        with pytest.raises(
            UsageError, match=r"and gamma_labeled were both given: the labels of a long tail are not alike"
        ):
            drawn(LongTail(10), **asked)
    with pytest.raises(UsageError, match="labels and head_labeled were both given"):
        drawn(LongTail(10, head_labeled=20), labels=40)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (("class 0", "clas 1", "class 2", "class 3", "class 4"), "there is no class 'clas 1'. Did you mean 'class 1'?"),
        (("class 0", "class 1"), "it lacks 'class 2', 'class 3', 'class 4'."),
        (("class 0", "class 0", "class 1", "class 2", "class 3", "class 4"), "it names a class twice."),
    ],
)
def test_an_order_of_other_classes(order: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError) as caught:
        drawn(LongTail(10, order=order))
    assert f"class_order: {message} Expected each of the 5 classes once" in str(caught.value)


def test_unlabeled_images_of_unknown_class_have_no_tail() -> None:
    table = table_of([row % 5 for row in range(100)] + [-1] * 7)
    with pytest.raises(
        DataError, match=r"gamma_unlabeled=5 needs the class of every unlabelled image, and 7 images have"
    ):
        drawn(LongTail(5, 5, head_labeled=10), table)
    _, counts = drawn(LongTail(5, head_labeled=10), table)
    assert sum(counts["unlabeled"]) == 100


@steady
@given(st.floats(1, 20), st.floats(1, 20), st.booleans(), st.integers(0, 5))
def test_what_is_drawn_is_what_the_formula_says(labeled: float, unlabeled: float, reverse: bool, seed: int) -> None:
    tail = LongTail(labeled, -unlabeled if reverse else unlabeled, 25, 60)
    splits, counts = drawn(tail, seed=seed)
    assert counts["labeled"] == tail_counts(25, labeled, 5).tolist()
    assert counts["unlabeled"] == tail_counts(60, -unlabeled if reverse else unlabeled, 5).tolist()
    assert len(set(splits.labeled) | set(splits.unlabeled)) == len(splits.labeled) + len(splits.unlabeled)

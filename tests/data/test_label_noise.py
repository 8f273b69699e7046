"""Labels that are wrong on purpose: how many, which, and where they are written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data import LabelNoise, Splits, draw_splits
from sfumato.data.label_noise import _CIFAR100_SUPERCLASSES
from sfumato.errors import UsageError
from tests.data.pictures import table_of

steady = settings(deadline=None, derandomize=True)
TABLE = table_of([row % 10 for row in range(1000)])
LABELS = TABLE.labels


def flipped(share: float, kind: Any = "symmetric", *, seed: int = 0, count: int = 1000, **more: Any) -> dict[int, int]:
    return LabelNoise(share, kind, **more).flipped(TABLE.names, LABELS, 10, np.arange(count), seed)


@steady
@given(st.floats(0, 0.99), st.integers(0, 3), st.integers(10, 1000))
def test_symmetric_noise_turns_that_share_of_labels_to_another_class(share: float, seed: int, count: int) -> None:
    found = flipped(share, seed=seed, count=count)
    assert len(found) == round(share * count)
    assert all(label != LABELS[row] and 0 <= label < 10 for row, label in found.items())


def test_every_other_class_is_as_likely() -> None:
    found = flipped(0.99)
    offsets = np.bincount([(label - LABELS[row]) % 10 for row, label in found.items()], minlength=10)
    assert offsets[0] == 0
    assert (abs(offsets[1:] - 110) < 40).all()


def test_a_function_of_the_seed_and_the_image() -> None:
    assert flipped(0.2) == flipped(0.2)
    assert flipped(0.2) != flipped(0.2, seed=1)
    less, more = flipped(0.2), flipped(0.4)
    assert less.items() <= more.items()  # and to the same wrong label
    few = flipped(0.4, count=500)
    assert all(more[row] == label for row, label in few.items() if row in more)


def test_asymmetric_noise_confuses_a_class_with_the_next() -> None:
    found = flipped(0.3, "asymmetric")
    assert len(found) == 300
    assert all(label == (LABELS[row] + 1) % 10 for row, label in found.items())


def test_the_published_pairs_of_cifar10() -> None:
    found = flipped(0.4, "asymmetric", protocol="cifar10")
    pairs = {(int(LABELS[row]), label) for row, label in found.items()}
    assert pairs == {(9, 1), (2, 0), (4, 7), (3, 5), (5, 3)}
    assert len(found) == 200  # 40 % of the labels of five classes


def test_classes_of_cifar100_stay_within_their_superclass() -> None:
    table = table_of([row % 100 for row in range(300)])
    found = LabelNoise(0.9, "asymmetric", protocol="cifar100").flipped(
        table.names, table.labels, 100, np.arange(300), 0
    )
    superclass = np.array(_CIFAR100_SUPERCLASSES)
    assert np.bincount(superclass).tolist() == [5] * 20
    assert np.flatnonzero(superclass == 0).tolist() == [4, 30, 55, 72, 95]  # beaver, dolphin, otter, seal, whale
    assert all(superclass[label] == superclass[table.labels[row]] for row, label in found.items())
    assert {(int(table.labels[row]), label) for row, label in found.items()} >= {(95, 4), (4, 30)}


@pytest.mark.parametrize("share", [-0.1, 1.0, 20, float("nan")])
def test_a_share_that_cannot_be(share: float) -> None:
    with pytest.raises(UsageError, match=f"noise={share:g}: expected a share of the labels, at least 0 and below 1"):
        LabelNoise(share)


def test_other_kinds_and_noise_on_nothing() -> None:
    with pytest.raises(UsageError, match="Did you mean 'symmetric'"):
        LabelNoise(0.1, "symetric")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="noise_val: nothing would use it without noise"):
        LabelNoise(val=True)
    assert not flipped(0)


def test_only_training_labels_are_wrong_unless_validation_is_asked_for() -> None:
    splits = draw_splits(TABLE, labels=100, val=0.2, test=0.2, noise=LabelNoise(0.4))
    assert set(splits.wrong) <= set(splits.labeled)
    assert len(splits.wrong) == 40
    assert splits.notes[-1] == (
        "Label noise: 40 of 100 training labels are wrong (symmetric noise of 40 %); splits.json lists them."
    )
    both = draw_splits(TABLE, labels=100, val=0.2, test=0.2, noise=LabelNoise(0.4, val=True))
    assert len(both.wrong) == 120
    assert set(both.wrong) <= {*both.labeled, *both.val}
    assert "of 300 training and validation labels" in both.notes[-1]
    plain = draw_splits(TABLE, labels=100, val=0.2, test=0.2)
    assert not plain.wrong
    for part in ("labeled", "unlabeled", "val", "test"):
        assert getattr(plain, part).tolist() == getattr(splits, part).tolist()
    assert plain.fingerprint == splits.fingerprint


def test_what_is_told_and_what_is_kept(tmp_path: Path) -> None:
    splits = draw_splits(TABLE, labels=100, noise=LabelNoise(0.3))
    told = splits.told(LABELS)
    assert {row for row in range(1000) if told[row] != LABELS[row]} == set(splits.wrong)
    assert (np.arange(1000) % 10 == LABELS).all()  # the table's own stay right
    splits.save(tmp_path / "splits.json")
    kept = json.loads((tmp_path / "splits.json").read_text())["wrong_labels"]
    assert kept == {TABLE.names[row]: label for row, label in splits.wrong.items()}
    assert Splits.load(tmp_path / "splits.json", TABLE).wrong == splits.wrong


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.2, "foo"), "LabelNoise(kind='foo'): expected one of symmetric, asymmetric."),
        (("0.2",), "LabelNoise(share='0.2'): expected a number, such as 0.2."),
    ],
)
def test_what_cannot_be_is_told_by_the_names_of_its_arguments(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        LabelNoise(*values)
    assert str(caught.value) == message

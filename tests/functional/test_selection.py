"""What is taken as labeled: against loops, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import SelfTrainingClassifier
from torch import Tensor

from sfumato.functional.selection import (
    equally_many,
    frequency_rank,
    place_in_class,
    progressive_power,
    sampling_rates,
    surer_than,
    surest,
    surest_of_each_class,
)
from sfumato.rules.picking import EquallyMany, RarestFirst, SurerThan, Surest
from sfumato.types import Pick

COUNTS = torch.tensor([10, 40, 5, 20])


def some_p(n: int = 60, classes: int = 4, seed: int = 0) -> Tensor:
    return torch.softmax(2 * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_place_in_class_counts_the_surer_ones_of_the_same_label() -> None:
    confidence = torch.tensor([0.5, 0.9, 0.5, 0.7, 0.9, 0.6])
    label = torch.tensor([0, 2, 0, 0, 2, 1])
    assert place_in_class(confidence, label, 4).tolist() == [1, 0, 2, 0, 1, 0]
    assert place_in_class(confidence[:0], label[:0], 4).tolist() == []


def test_rates_go_by_the_rank_of_the_frequency() -> None:
    assert frequency_rank(COUNTS).tolist() == [2, 0, 3, 1]
    # sorted 40, 20, 10, 5: the head has the rate of 5 / 40, the second 10 / 40, the third 20 / 40, the last 1
    wanted = [(20 / 40) ** 0.5, (5 / 40) ** 0.5, 1.0, (10 / 40) ** 0.5]
    assert sampling_rates(COUNTS, 2.0).tolist() == pytest.approx(wanted)
    order = torch.tensor([2, 0, 3, 1])  # of the classes: the rates go with them
    assert sampling_rates(COUNTS[order], 2.0).tolist() == pytest.approx([wanted[c] for c in order])
    official = sampling_rates(COUNTS, 2.0, "official")
    assert not torch.allclose(official, sampling_rates(COUNTS, 2.0, "rank"))
    assert torch.equal(sampling_rates(COUNTS[order], 2.0, "official"), official)  # blind to whose counts they are


@pytest.mark.parametrize("rates", ["counts", "rank", "official"])
@pytest.mark.parametrize("counts", [[7, 7, 7], [9, 0, 3], [4, 1]])
def test_rates_are_shares(counts: list[int], rates: str) -> None:
    found = sampling_rates(torch.tensor(counts), 3.0, rates)  # type: ignore[arg-type]
    assert ((found >= 0) & (found <= 1)).all()
    assert found.max() == 1
    assert len(set(counts)) > 1 or (found == 1).all()


@pytest.mark.parametrize("rates", ["counts", "rank", "official"])
def test_a_class_without_labels_is_as_the_rarest(rates) -> None:
    """As one of no image, the most frequent class would have the rate 0 by it."""
    given, meant = torch.tensor([1000, 500, 100, 0]), torch.tensor([1000, 500, 100, 100])
    assert sampling_rates(given, 3.0, rates).tolist() == pytest.approx(sampling_rates(meant, 3.0, rates).tolist())
    assert sampling_rates(given, 3.0, rates).tolist()[0] == pytest.approx(0.1 ** (1 / 3))
    assert sampling_rates(torch.tensor([0, 0]), 3.0, rates).tolist() == [1.0, 1.0]


def test_a_larger_alpha_takes_more_of_the_frequent() -> None:
    some, more = (sampling_rates(COUNTS, alpha) for alpha in (1.0, 3.0))
    assert (more >= some).all()
    assert more[1] > some[1]


def test_of_each_class_the_surest_share() -> None:
    p, rates = some_p(), torch.tensor([0.25, 0.0, 1.0, 0.5], dtype=torch.float64)
    confidence, label = p.max(dim=1)
    wanted = []
    for c, rate in enumerate(rates.tolist()):
        members = sorted(torch.nonzero(label == c).flatten().tolist(), key=lambda i: -confidence[i])
        wanted += members[: int(rate * len(members))]
    assert surest_of_each_class(p, rates).tolist() == sorted(wanted)
    assert torch.equal(RarestFirst(3.0, "counts")(p, COUNTS), surest_of_each_class(p, sampling_rates(COUNTS, 3.0)))


def test_a_threshold_is_passed_from_above() -> None:
    p = torch.tensor([[0.75, 0.25], [0.8, 0.2], [0.1, 0.9]])
    assert surer_than(p, 0.75).tolist() == [1, 2]
    assert surest(p, 2).tolist() == [1, 2]
    assert surest(p, 1).tolist() == [2]
    assert surest(p, 9).tolist() == [0, 1, 2]


def test_every_class_that_is_predicted_is_seen_equally_often() -> None:
    p = torch.tensor([[0.6, 0.3, 0.1], [0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.7, 0.2]])
    assert equally_many(p, 2).tolist() == [1, 2, 3, 3]
    assert equally_many(p, 5).tolist() == [0, 1, 1, 2, 2, 3, 3, 3, 3, 3]
    assert EquallyMany(0.65, 2)(p, COUNTS).tolist() == [1, 2, 3, 3]
    assert EquallyMany(0.65, None)(p, COUNTS).tolist() == [1, 2, 3]
    assert EquallyMany(0.95, 2)(p, COUNTS).tolist() == []


def test_the_power_sinks_evenly() -> None:
    assert [progressive_power(g, 3, 0.5) for g in (1, 2, 3)] == [1.0, 0.75, 0.5]


def features(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """90 points of three clouds, and labels of six of them."""
    rng = np.random.default_rng(seed)
    truth = np.arange(90) % 3
    x = rng.normal(size=(90, 5)) + 1.6 * np.eye(3, 5)[truth]
    return x, np.where(np.arange(90) < 6, truth, -1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("pick", "told"),
    [(SurerThan(0.75), {"threshold": 0.75}), (Surest(7), {"criterion": "k_best", "k_best": 7})],
    ids=["threshold", "k_best"],
)
def test_rounds_of_a_linear_model_are_those_of_scikit_learn(pick: Pick, told: dict[str, object], seed: int) -> None:
    """Which points join after which round and under which label, and how often the model is fitted."""
    x, y = features(seed)
    theirs = SelfTrainingClassifier(LogisticRegression(), max_iter=4, **told).fit(x, y)
    labels, round_of, model = y.copy(), np.where(y >= 0, 0, -1), LogisticRegression()
    for number in range(1, 5 + 1):  # trainings: max_iter and one more
        model.fit(x[labels >= 0], labels[labels >= 0])
        left = np.flatnonzero(labels < 0)
        if number == 5 or not len(left):
            break
        p = torch.from_numpy(model.predict_proba(x[left]))
        places = pick(p, torch.tensor([2, 2, 2]))
        if not len(places):
            break
        rows = left[places.numpy()]
        labels[rows], round_of[rows] = p.argmax(dim=1)[places].numpy(), number
    assert np.array_equal(labels, theirs.transduction_)
    assert np.array_equal(round_of, theirs.labeled_iter_)
    assert round_of.max() > 1
    assert np.allclose(model.predict_proba(x), theirs.predict_proba(x))

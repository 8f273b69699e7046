from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data import StepSampler
from sfumato.data.shuffle import permutation
from sfumato.errors import UsageError

steady = settings(deadline=None, derandomize=True)  # a busy machine is no failure


def sequence(sampler: StepSampler, steps: int) -> np.ndarray:
    return np.concatenate([sampler.rows(step) for step in range(steps)])


@steady
@given(st.integers(1, 30), st.integers(1, 50), st.integers(0, 5))
def test_each_pass_visits_every_row_once(count: int, batch_size: int, seed: int) -> None:
    rows = np.arange(count) * 7
    steps = -(-3 * count // batch_size)
    seen = sequence(StepSampler(rows, batch_size, seed=seed, purpose="labeled"), steps)
    assert len(seen) == steps * batch_size
    for start in range(0, 3 * count, count):
        assert sorted(seen[start : start + count]) == rows.tolist()


@steady
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 10**6))
def test_a_step_needs_no_earlier_step(count: int, batch_size: int, step: int) -> None:
    used, fresh = (StepSampler(range(count), batch_size, seed=1, purpose="labeled") for _ in range(2))
    for earlier in (0, step + 3, step - 1 if step else 7):
        used.rows(earlier)
    assert np.array_equal(used.rows(step), fresh.rows(step))
    assert np.array_equal(used.rows(step), fresh.rows(step))


def test_batch_size_does_not_change_the_sequence() -> None:
    """Ranks and accumulation take slices of a batch; the endless sequence is the same for all sizes."""
    small, large = (StepSampler(range(100), size, seed=3, purpose="unlabeled") for size in (8, 32))
    assert np.array_equal(sequence(small, 40), sequence(large, 10))


def test_slices_of_the_global_batch_are_the_ranks() -> None:
    sampler = StepSampler(range(50), 12, seed=0, purpose="labeled")
    batch = sampler.rows(9)
    per_rank = [
        StepSampler(range(50), 12, seed=0, purpose="labeled").rows(9)[4 * rank : 4 * rank + 4] for rank in range(3)
    ]
    assert np.array_equal(np.concatenate(per_rank), batch)


def test_seeds_purposes_and_passes_differ() -> None:
    def order(seed: int, purpose: str, step: int = 0) -> list[int]:
        return StepSampler(range(100), 100, seed=seed, purpose=purpose).rows(step).tolist()

    orders = [order(0, "labeled"), order(1, "labeled"), order(0, "unlabeled"), order(0, "labeled", 1)]
    assert len({tuple(entry) for entry in orders}) == 4


def test_orders_are_drawn_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def counting(count: int, *key: int | str) -> np.ndarray:
        drawn.append(key[-1])
        return permutation(count, *key)

    monkeypatch.setattr("sfumato.data.sampler.permutation", counting)
    sequence(StepSampler(range(100), 8, seed=0, purpose="labeled"), 25)
    assert drawn == [0, 1]


def test_permutation_never_changes() -> None:
    """Splits and orders of old runs depend on these very numbers."""
    assert permutation(8, "order", 0, "labeled", 0).tolist() == [6, 5, 1, 2, 4, 0, 7, 3]
    assert sorted(permutation(1000, "x")) == list(range(1000))
    assert permutation(0, "x").tolist() == []


def test_positions_are_uniform() -> None:
    first = np.array([permutation(5, "uniform", seed)[0] for seed in range(2000)])
    assert abs(np.bincount(first) / 2000 - 0.2).max() < 0.035


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match=r"StepSampler\(labeled\): expected at least one row, got shape \(0,\)."):
        StepSampler([], 4, seed=0, purpose="labeled")
    with pytest.raises(UsageError, match="batch_size=0; expected 1 or more"):
        StepSampler([1], 0, seed=0, purpose="labeled")


def test_threads_that_ask_at_once_get_their_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One reads the batch ahead while another draws: an order replaced by one must not reach into the other's batch."""
    sampler, fresh = (StepSampler(range(10), 10, seed=0, purpose="labeled") for _ in range(2))
    want = fresh.rows(3)
    empty = np.empty

    def meanwhile(*args: object, **keywords: object) -> np.ndarray:
        monkeypatch.setattr(np, "empty", empty)
        sampler.rows(4)  # as another thread would, between the choice of the order and its use
        return np.full(10, -1)

    monkeypatch.setattr(np, "empty", meanwhile)
    assert np.array_equal(sampler.rows(3), want)

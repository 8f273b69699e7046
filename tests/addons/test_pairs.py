"""Every add-on with every method that it fits, through the laws of methods. A new add-on needs no line here.

By default each add-on goes with one method, its options too; all pairs are slow.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sfumato.addons import ADDONS
from sfumato.methods import METHODS
from tests.addons.cases import joined, pairs
from tests.methods.cases import assert_same, rounding
from tests.methods.conformance import run, trajectory

PAIRS = pairs()
IDS = [f"{name}+{addon}-{task.name}" for addon, name, task in PAIRS]
FEW = [pair for pair in PAIRS if pair[1] == "fixmatch"]
FEW_IDS = [f"{addon}-{task.name}" for addon, _, task in FEW]


def run_joined(addon, name, task, *, options=False):
    case = joined(addon, name, task)
    return run(case if options else replace(case, builder=None))


def trajectory_of(addon, name, task):
    return trajectory(joined(addon, name, task))


def assert_ranks_agree(two_ranks, addon, name, task):
    alone, limit = trajectory_of(addon, name, task), rounding(joined(addon, name, task))
    for rank in two_ranks.call(trajectory_of, addon, name, task):
        for gradients, tolerance in ((False, 1e-6), (True, limit)):
            got, want = (
                {key: value for key, value in side.items() if key.startswith("gradient") == gradients}
                for side in (rank, alone)
            )
            assert_same(got, want, tolerance)


@pytest.mark.parametrize(("addon", "name", "task"), FEW, ids=FEW_IDS)
def test_with_fixmatch_and_all_options(addon, name, task):
    run_joined(addon, name, task, options=True)


@pytest.mark.parametrize(("addon", "name", "task"), FEW, ids=FEW_IDS)
def test_with_fixmatch_on_two_ranks(addon, name, task, two_ranks):
    first, second = two_ranks.call(run_joined, addon, name, task)
    assert first == second
    assert_ranks_agree(two_ranks, addon, name, task)


@pytest.mark.slow
@pytest.mark.parametrize(("addon", "name", "task"), PAIRS, ids=IDS)
def test_every_pair(addon, name, task):
    run_joined(addon, name, task)


@pytest.mark.slow
@pytest.mark.parametrize(("addon", "name", "task"), PAIRS, ids=IDS)
def test_every_pair_on_two_ranks_is_the_pair_on_one(addon, name, task, two_ranks):
    assert_ranks_agree(two_ranks, addon, name, task)


def test_every_add_on_fits_some_method_and_says_why_it_fits_no_other():
    assert list(ADDONS) == sorted(ADDONS)
    for addon in ADDONS:
        fitting = {name for other, name, _ in PAIRS if other == addon}
        assert fitting
        assert fitting <= METHODS.keys()

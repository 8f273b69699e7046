"""Every add-on with every method that it fits, through the laws of methods. A new add-on needs no line here.

By default each add-on goes with one method, its options too. All pairs on one rank are slow, and so are some
pairs on two, in which each add-on and each method comes; `pytest -m pairs` has all of them on two.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sfumato.addons import ADDONS
from sfumato.methods import METHODS
from tests.addons.cases import joined, pairs
from tests.methods.cases import assert_same, rounding
from tests.methods.conformance import run, trajectory
from tests.methods.laws_parts import what_is_read_is_a_part

PAIRS = pairs()
IDS = [f"{name}+{addon}-{task.name}" for addon, name, task in PAIRS]
FIRST = {name: PAIRS.index(next(pair for pair in PAIRS if pair[1] == name)) for _, name, _ in PAIRS}  # of each method
SOME = [pair for number, pair in enumerate(PAIRS) if number % 8 == 0 or FIRST[pair[1]] == number]
SOME_IDS = [IDS[PAIRS.index(pair)] for pair in SOME]
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
@pytest.mark.parametrize(("addon", "name", "task"), SOME, ids=SOME_IDS)
def test_some_pairs_on_two_ranks_are_the_pairs_on_one(addon, name, task, two_ranks):
    assert_ranks_agree(two_ranks, addon, name, task)


@pytest.mark.pairs
@pytest.mark.parametrize(("addon", "name", "task"), PAIRS, ids=IDS)
def test_every_pair_on_two_ranks_is_the_pair_on_one(addon, name, task, two_ranks):
    assert_ranks_agree(two_ranks, addon, name, task)


def test_each_add_on_and_each_method_is_among_the_pairs_on_two_ranks():
    assert {addon for addon, _, _ in SOME} == ADDONS.keys()
    assert {name for _, name, _ in SOME} == {name for _, name, _ in PAIRS}


def test_every_add_on_fits_some_method_and_says_why_it_fits_no_other():
    assert list(ADDONS) == sorted(ADDONS)
    for addon in ADDONS:
        fitting = {name for other, name, _ in PAIRS if other == addon}
        assert fitting
        assert fitting <= METHODS.keys()


@pytest.mark.parametrize("addon", ADDONS)
def test_no_rule_that_another_reads_is_dropped(addon):
    for _, name, task in (pair for pair in PAIRS if pair[0] == addon):
        what_is_read_is_a_part(joined(addon, name, task))

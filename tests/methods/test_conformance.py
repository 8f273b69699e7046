"""Every method of the table, on both tasks or maps alone, on one rank and on two. A new method needs no line here."""

from __future__ import annotations

import pytest

from sfumato.methods import METHODS
from tests.methods.cases import allowed, assert_same, rounding
from tests.methods.conformance import CHECKS, Report, registered, run, trajectory
from tests.methods.problems import TASKS

RANKS = (1, 2)
ENTRIES = [(name, task) for name in sorted(METHODS) for task in TASKS if allowed(METHODS[name], task)]
RAN: dict[tuple[str, str, int], Report] = {}
each = pytest.mark.parametrize(("name", "task"), ENTRIES, ids=[f"{name}-{task.name}" for name, task in ENTRIES])


def run_registered(name, task) -> Report:
    return run(registered(name, task))


def trajectory_of(name, task):
    return trajectory(registered(name, task))


@each
def test_one_rank(name, task):
    RAN[name, task.name, 1] = run_registered(name, task)


@each
def test_two_ranks(name, task, two_ranks):
    first, second = two_ranks.call(run_registered, name, task)
    assert first == second
    RAN[name, task.name, 2] = first


@each
def test_two_ranks_of_half_a_batch_equal_one_rank(name, task, two_ranks):
    alone = trajectory_of(name, task)
    limit = rounding(registered(name, task))
    for rank in two_ranks.call(trajectory_of, name, task):
        for gradients, tolerance in ((False, 1e-6), (True, limit)):
            got, want = (
                {key: value for key, value in side.items() if key.startswith("gradient") == gradients}
                for side in (rank, alone)
            )
            assert_same(got, want, tolerance)


def test_how_much_ran(request, files_stay_whole):
    """entry x task x ranks x check, all of them; what applies to no method is for add-ons (tests/addons)."""
    mine = [item for item in request.session.items if item.fspath == request.node.fspath]
    if len(mine) != 3 * len(ENTRIES) + 1 or not files_stay_whole:
        pytest.skip("counts only when this file runs whole, in one process")
    assert len(ENTRIES) == sum(1 if e.dense_only or e.classes_only else len(TASKS) for e in METHODS.values())
    assert RAN.keys() == {(name, task.name, ranks) for name, task in ENTRIES for ranks in RANKS}
    for report in RAN.values():
        assert sorted([*report.held, *report.not_applicable]) == sorted(CHECKS)
    held = {check: sum(check in report.held for report in RAN.values()) for check in CHECKS}
    never = {check for check, count in held.items() if count == 0}
    assert never == {"held_out_labels_are_survived", "what_held_out_labels_taught_is_resumed"}
    total = sum(held.values())
    skipped = sum(len(report.not_applicable) for report in RAN.values())
    assert total + skipped == len(ENTRIES) * len(RANKS) * len(CHECKS)
    print(
        f"\n{len(METHODS)} methods, {len(ENTRIES)} with their tasks, x {len(RANKS)} ranks x {len(CHECKS)} checks: "
        f"{total} held, {skipped} do not apply; and {len(ENTRIES)} comparisons of two ranks with one"
    )

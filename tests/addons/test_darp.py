"""DARP in a method: the table, when it is refined, what it changes and what not; the reference's sequence."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from sfumato.addons.darp import RefinedTargets
from sfumato.config import load
from sfumato.errors import UsageError
from sfumato.functional.darp import alternated
from sfumato.methods import Facts
from sfumato.rules import FixedThreshold, Hard, Prior, Soft
from sfumato.running import memory
from sfumato.types import Progress
from tests.addons.cases import joined
from tests.given import learn, step
from tests.methods.problems import CLASSIFICATION, SEGMENTATION

darp = sys.modules["sfumato.addons.darp"]  # the name in the package is that of the function


def refined(prior=(0.5, 0.3, 0.2), *, target=None, samples=12, **options):
    prior = Prior(len(prior), (), prior) if isinstance(prior, tuple) else prior
    return RefinedTargets(target or Soft(), prior, prior.num_classes, samples, **{"start": 0.5, "every": 2, **options})


def table(samples=12, classes=3, *, seed=0):
    return torch.softmax(2 * torch.randn(samples, classes, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("case", ["darp_00", "darp_01"])
def test_the_references_sequence(shared, case):
    with np.load(shared / "golden" / f"{case}.npz") as stored:
        given = {key: torch.from_numpy(np.asarray(stored[key])) for key in stored.files}
    start, budget = given["initial_prob"], given["target_counts"]
    rule = refined(
        Prior(len(budget), (), tuple((budget / budget.sum()).tolist())),
        samples=len(start),
        start=0.0,
        every=int(given["refine_every"]),
        alpha=float(given["alpha"]),
        rounds=int(given["newton_outer_iters"]),
    )
    rule.table.rows[:-1] = start
    for k, (index, p) in enumerate(zip(given["idx"], given["batch_prob"], strict=True)):
        got = learn(rule, p, index=index, progress=Progress(k, 100))
        torch.testing.assert_close(got, given["refined"][k], rtol=0, atol=5e-3)


def test_targets_are_as_ever_before_the_start_and_follow_the_prior_after():
    rule, p = refined((0.1, 0.2, 0.7)), table()
    before = learn(rule, p, progress=Progress(4, 10))
    assert torch.equal(before, p)
    after = learn(rule, p, progress=Progress(5, 10))
    torch.testing.assert_close(after.sum(dim=0), 12 * torch.tensor([0.1, 0.2, 0.7]), rtol=0, atol=2e-3)


def test_rows_of_the_last_refinement_are_read_until_the_next():
    rule = refined()
    first = learn(rule, table(), progress=Progress(5, 10))
    assert torch.equal(learn(rule, table(seed=1), progress=Progress(6, 10)), first)
    assert not torch.equal(learn(rule, table(seed=1), progress=Progress(7, 10)), first)


def test_every_sample_has_its_own_row():
    rule, p = refined(), table()
    learn(rule, p, progress=Progress(5, 10))
    order = torch.tensor([7, 2, 9])
    got = learn(rule, p[order], index=order, progress=Progress(6, 10))
    assert torch.equal(got, rule.refined[order])


def test_a_sample_that_comes_twice_has_its_last_row():
    rule, p = refined(), table(2)
    learn(rule, p, index=torch.tensor([4, 4]), progress=Progress(0, 10))
    assert torch.equal(rule.table.value[4], p[1])
    torch.testing.assert_close(rule.table.value[5], torch.full((3,), 1 / 3))


def test_the_prior_may_be_another_than_the_labels():
    """A reversed tail: by the labels' prior most rows would be of the first class."""
    p = table(60, 4)
    p[:, 3] += 1
    p /= p.sum(dim=1, keepdim=True)
    rules = {
        "labeled": refined(Prior(4, (40, 20, 10, 5)), samples=60),
        "given": refined((0.1, 0.1, 0.2, 0.6), samples=60),
    }
    sums = {name: learn(rule, p, progress=Progress(5, 10)).sum(dim=0) for name, rule in rules.items()}
    assert sums["labeled"].argmax() == 0
    assert sums["given"].argmax() == 3


def test_an_estimated_prior_learns_from_predictions_before_any_correction():
    facts = Facts(4, 60, label_counts=(40, 20, 10, 5))
    method = joined("darp", "fixmatch", CLASSIFICATION).make(facts, {"prior": "estimated", "start": 0.0, "every": 1})
    before = method.target.prior.value
    reversed_tail = 4 * torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + 2 * torch.arange(4)
    labeled = torch.tensor([4.0, 3.0, 2.0, 1.0]).repeat(40, 1)
    for k in range(30):
        step(method, reversed_tail, reversed_tail, labeled=labeled, progress=Progress(k, 30))
    after = method.target.prior.value
    assert before.argmax() == 0
    assert after.argmax() == 3
    torch.testing.assert_close(method.target.refined.sum(dim=0), 60 * after, rtol=0, atol=0.1)


def test_a_predicted_prior_has_a_momentum():
    facts, p = Facts(3, 12, label_counts=(6, 3, 1)), table(4)
    method = joined("darp", "fixmatch", CLASSIFICATION).make(facts, {"prior": "predicted", "momentum": 0.0})
    step(method, p.log(), p.log())
    torch.testing.assert_close(method.target.prior.value, p.mean(dim=0))


@pytest.mark.parametrize("recipe", ["quick", "frozen"])
def test_short_recipes_let_a_predicted_prior_move_within_them(recipe):
    found = load(overrides=[f"recipe={recipe}", "method=fixmatch", "addon=darp", "addon.prior=predicted"])
    assert found.addon.options["momentum"] == 0.99


def test_tables_larger_than_the_memory_are_refused_before_they_are_taken(monkeypatch):
    """The two tables alone would fit."""
    monkeypatch.setattr(memory, "machine_memory", lambda: 64 * 2**30)
    text = (
        "The predictions that darp keeps for 1,281,167 samples and 1,000 classes, with the float64 copies in which it "
        "refines them all at once, take 85.9 GiB, and this machine has 64.0 GiB of memory. A file would not help. "
        "Train on fewer unlabeled images, or use an add-on that keeps no such table, as crest_plus and "
        "distribution_alignment."
    )
    with pytest.raises(UsageError) as error:
        joined("darp", "fixmatch", CLASSIFICATION).make(Facts(1000, 1_281_167, label_counts=(3,) * 1000), {})
    assert str(error.value) == text


def test_what_has_no_solution_is_still_a_target(monkeypatch):
    calls = []
    monkeypatch.setattr(
        darp, "alternated", lambda a, q, rounds: calls.append(rounds) or alternated(a, q, rounds=rounds)
    )
    sure = torch.zeros(12, 3)
    sure[:, 0] = 1.0
    monkeypatch.setattr(darp, "pruned", lambda p, q, keep: p.double())
    for p, unsolved in ((torch.full((12, 3), 1 / 3), 0), (sure, 1)):
        got = learn(refined((0.4, 0.3, 0.3)), p, progress=Progress(5, 10))
        assert len(calls) == unsolved
        assert got.isfinite().all()
        torch.testing.assert_close(got.sum(dim=1), torch.ones(12))
    assert calls == [10]


def test_without_a_refinement_yet_the_prediction_is_the_target():
    """As when a warm start without unlabeled images went past the first one."""
    rule, p = refined(every=4), table()
    assert torch.equal(learn(rule, p, progress=Progress(7, 10)), p)


def test_a_step_of_several_batches_refines_once(monkeypatch):
    rule, calls = refined(), []
    monkeypatch.setattr(rule, "_refine", lambda: calls.append(1))
    for k in (5, 5, 6, 6, 7, 7):
        learn(rule, table(), progress=Progress(k, 10))
    assert len(calls) == 2


def test_the_weight_is_of_the_prediction_as_it_was():
    case = joined("darp", "fixmatch", CLASSIFICATION)
    method = case.make(Facts(3, 12, label_counts=(1, 1, 40)), {"start": 0.0, "every": 1})
    p = torch.tensor([[0.97, 0.02, 0.01], [0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.9, 0.06, 0.04]])
    losses = step(method, p.log(), p.log(), labeled=torch.zeros(2, 3), y=torch.tensor([0, 1]))
    assert isinstance(method.weigh, FixedThreshold)
    assert isinstance(method.target.target, Hard)
    assert torch.equal(losses.pseudo.weight, torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert losses.pseudo.target.tolist() == method.target.refined[:4].argmax(dim=1).tolist()
    assert 2 in losses.pseudo.target.tolist()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"start": 1.5}, "darp(start=1.5): expected a share of training, 0 to 1."),
        ({"every": 0}, "expected every and rounds of at least 1, and alpha above 0"),
        ({"alpha": -1.0}, "expected every and rounds of at least 1, and alpha above 0"),
        ({"prior": (0.5, 0.5)}, "prior has 2 numbers: expected one for each of the 3 classes."),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(UsageError) as error:
        joined("darp", "fixmatch", CLASSIFICATION).make(Facts(3, 12, label_counts=(3, 2, 1)), options)
    assert text in str(error.value)


def test_it_is_not_for_masks():
    with pytest.raises(UsageError, match="darp is for one class per image only: it keeps a prediction for every"):
        joined("darp", "fixmatch", SEGMENTATION).make(Facts(3, 12, dense=True, label_counts=(3, 2, 1)), {})

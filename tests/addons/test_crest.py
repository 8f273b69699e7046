"""CReST and CReST+ in a method: what they plan, and how far CReST+ moves predictions in each generation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato.addons import fits
from sfumato.errors import UsageError
from sfumato.functional.probability import probability
from sfumato.functional.selection import progressive_power
from sfumato.rules import ProgressiveAlignment
from sfumato.rules.picking import RarestFirst
from sfumato.types import Generations
from tests.addons.long_tail import CLASSES, COUNTS, FACTS, method_with, trained
from tests.given import step


def progressive(method: torch.nn.Module) -> ProgressiveAlignment:
    (rule,) = (module for module in method.modules() if isinstance(module, ProgressiveAlignment))
    return rule


def test_the_plans_of_the_papers() -> None:
    assert method_with("crest").rounds == Generations(6, RarestFirst(3.0, "counts"))
    assert method_with("crest_plus").rounds == Generations(6, RarestFirst(3.0, "counts"), last_power=0.5)
    given = method_with("crest_plus", generations=3, alpha=2.0, t_min=0.1, rates="official")
    assert given.rounds == Generations(3, RarestFirst(2.0, "official"), last_power=0.1)


def test_crest_leaves_the_loss_as_it_is() -> None:
    assert torch.equal(trained(method_with("crest"), steps=3), trained(method_with(None), steps=3))


@pytest.mark.parametrize("generation", [1, 3, 6])
def test_predictions_are_aligned_with_the_power_of_the_generation(generation: int) -> None:
    """By hand after one step, on whose mean prediction the ratio is taken: q ~ p share^t / mean p."""
    method = method_with("crest_plus")
    rule, counts = progressive(method), torch.tensor(COUNTS)
    rule.enter(progressive_power(generation, 6, 0.5), counts)
    weak = 4 * torch.randn((64, CLASSES), generator=torch.Generator().manual_seed(0))
    losses = step(method, weak, weak, labeled=weak[:CLASSES], y=torch.arange(CLASSES))
    p = probability(weak).double()
    goal = (counts / counts.sum()).double() ** (1 - 0.5 * (generation - 1) / 5)
    q = p * (goal / goal.sum()) / p.mean(dim=0)
    q = q / q.sum(dim=1, keepdim=True)
    assert losses.pseudo is not None
    assert torch.equal(losses.pseudo.target, q.argmax(dim=1))
    assert torch.equal(losses.pseudo.weight > 0, q.amax(dim=1) >= 0.95)


def test_a_generation_is_aligned_with_the_labels_that_were_there_before() -> None:
    method = method_with("crest_plus")
    progressive(method).enter(0.5, torch.tensor([1, 1, 1, 5]))
    powered = torch.tensor([1.0, 1, 1, 5]) ** 0.5
    torch.testing.assert_close(progressive(method).goal, powered / powered.sum())
    other = method_with("crest_plus")
    other.load_state_dict(method.state_dict())
    assert torch.equal(progressive(other).prior, progressive(method).prior)


def test_a_class_without_labels_is_as_the_rarest() -> None:
    """Aligned with a share of 0, it would never be predicted again."""
    method = method_with("crest_plus", facts=replace(FACTS, label_counts=(80, 10, 10, 0)))
    shares = torch.tensor([80.0, 10, 10, 10]) / 110
    torch.testing.assert_close(progressive(method).goal, shares)
    progressive(method).enter(1.0, torch.tensor([80, 10, 10, 0]))
    torch.testing.assert_close(progressive(method).goal, shares)


def test_the_prior_may_be_another_than_the_labels() -> None:
    """A given one keeps its shares in every generation, to the power; what joins is by the labels' counts still."""
    method = method_with("crest_plus", prior=(1, 2, 3, 4))
    progressive(method).enter(0.5, torch.tensor(COUNTS))
    powered = torch.tensor([1.0, 2, 3, 4]) ** 0.5
    torch.testing.assert_close(progressive(method).goal, powered / powered.sum())
    assert method.rounds == method_with("crest_plus").rounds


def test_an_estimated_prior_learns_from_predictions_before_the_alignment() -> None:
    method = method_with("crest_plus", prior="estimated", momentum=0.9)
    rule = progressive(method)
    rule.enter(1.0, torch.tensor(COUNTS))
    before = rule.goal.clone()
    reversed_tail = 4 * torch.randn((64, CLASSES), generator=torch.Generator().manual_seed(0)) + 2 * torch.arange(4)
    labeled = torch.tensor([4.0, 3.0, 2.0, 1.0]).repeat(40, 1)
    for _ in range(30):
        step(method, reversed_tail, reversed_tail, labeled=labeled)
    torch.testing.assert_close(before, torch.tensor(COUNTS) / sum(COUNTS))
    assert rule.goal.argmax() == CLASSES - 1


@pytest.mark.parametrize("name", ["crest", "crest_plus"])
def test_what_does_not_fit_says_why(name: str) -> None:
    assert "whole images join the labeled set" in (fits(name, "fixmatch", dense=True) or "")
    if name == "crest":
        for method in ("st", "noisy_student", "self_training"):
            assert "this method has rounds of its own" in (fits(name, method) or "")
        assert "method=self_training lets images join" in (fits(name, "supervised") or "")
    assert fits(name, "softmatch") is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"generations": 1}, "crest_plus.generations=1: expected 2 or more; with one, the method does without it."),
        ({"alpha": -1.0}, "crest_plus.alpha=-1.0: expected a number above 0, such as 3; the larger, the more joins."),
        ({"t_min": 1.5}, "crest_plus.t_min=1.5: expected a power from 0 (even shares) to 1 (the prior itself)."),
    ],
)
def test_options_out_of_range(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        method_with("crest_plus", **options)
    assert str(caught.value) == text

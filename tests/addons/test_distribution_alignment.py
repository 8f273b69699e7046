"""The rule has tests of its own: here are its place and its targets."""

from __future__ import annotations

import pytest
import torch

from sfumato.addons import join
from sfumato.errors import UsageError
from sfumato.functional.probability import probability
from sfumato.functional.refine import align
from sfumato.methods import Facts, build
from sfumato.rules import Prior
from tests.addons.long_tail import CLASSES, COUNTS, FACTS, method_with
from tests.functional.test_prior_shift import SHIFTS, distance, long_tail, world
from tests.given import step
from tests.rules.test_prior import COUNTS as TEN


def some(seed: int) -> torch.Tensor:
    return 2 * torch.randn((40, CLASSES), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("prior", "target"),
    [
        ("labeled", torch.tensor(COUNTS) / sum(COUNTS)),
        ("uniform", torch.full((CLASSES,), 1 / CLASSES)),
        ((1.0, 2.0, 3.0, 4.0), torch.tensor([0.1, 0.2, 0.3, 0.4])),
    ],
)
def test_mask_and_target_are_of_aligned_predictions(prior, target):
    weak, strong = some(0), some(1)
    pseudo = step(method_with("distribution_alignment", prior=prior), weak, strong).pseudo
    p = probability(weak)
    aligned = align(p, target, p.mean(dim=0))
    assert torch.equal(pseudo.target, aligned.argmax(dim=1))
    assert torch.equal(pseudo.weight, (aligned.amax(dim=1) >= 0.95).float())
    if prior != "uniform":
        assert (pseudo.target != p.argmax(dim=1)).any()


def test_it_follows_the_methods_own_correction():
    method = method_with("debiaspl", momentum=0.0)
    join("distribution_alignment", method, FACTS, {"prior": (1.0, 2.0, 3.0, 4.0)})
    step(method, some(0), some(1))
    assert method.refine.second.goal.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    inner = method.refine.first(probability(some(0)))
    torch.testing.assert_close(method.refine.second.model.value, inner.mean(dim=0))


def test_an_estimated_prior_is_that_of_the_unlabeled_set():
    """And not the labels', which are its reverse, though these are what the predictions lean to."""
    facts = Facts(10, label_counts=TEN)
    method, predictions = method_with("distribution_alignment", facts=facts, prior="estimated"), world()
    for _ in range(300):
        weak, labeled = predictions(24, SHIFTS["reversed"]).log().float(), predictions(8, long_tail(100)).log().float()
        step(method, weak, weak, labeled=labeled)
    assert distance(method.refine.second.goal, SHIFTS["reversed"]) < 0.1


def test_wrong_settings():
    with pytest.raises(UsageError, match=r"^distribution_alignment\.window=0: expected a number of batches"):
        method_with("distribution_alignment", window=0)
    with pytest.raises(UsageError, match=r"^distribution_alignment\.power=-3\.0: expected a number of 0 or more"):
        method_with("distribution_alignment", power=-3)
    method_with("distribution_alignment", power=0)
    with pytest.raises(UsageError, match=r"^prior has 2 numbers: expected one for each of the 4 classes\.$"):
        method_with("distribution_alignment", prior=(0.5, 0.5))


@pytest.mark.parametrize("name", ["fixmatch", "adamatch", "uncertainty_weighted"])
def test_the_estimate_is_of_predictions_before_the_methods_own_alignment_and_made_once(name):
    """Aligned to the labels, or to equal classes, they say nothing of the unlabeled set any more."""
    facts = Facts(10, label_counts=TEN)
    given = {"uncertainty_weighted": {"align": "uniform"}, "adamatch": {"interpolate": False}}
    method = build(name, facts, given.get(name))
    join("distribution_alignment", method, facts, {"prior": "estimated"})
    predictions = world()
    for _ in range(300):
        weak, labeled = predictions(24, SHIFTS["reversed"]).log().float(), predictions(8, long_tail(100)).log().float()
        step(method, weak, weak, labeled=labeled)
    assert distance(method.refine.second.goal, SHIFTS["reversed"]) < 0.1
    (prior,) = (module for module in method.modules() if isinstance(module, Prior))
    assert prior.estimate.batches == 300

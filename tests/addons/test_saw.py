"""Weights of labels and pseudo-labels, beside masks, bells and soft targets."""

from __future__ import annotations

import torch

from sfumato.addons.saw import saw
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.functional.rebalance import effective_number_weights
from sfumato.methods import Consistency
from sfumato.rules import All, Soft
from tests.addons.long_tail import CLASSES, COUNTS, FACTS, method_with, recalls, trained
from tests.given import step

WEIGHTS = effective_number_weights(torch.tensor(COUNTS).float())


def some(seed: int, n: int = 40) -> torch.Tensor:
    z = 3 * torch.randn((n, CLASSES), generator=torch.Generator().manual_seed(seed))
    return z + torch.tensor([2.0, 0.0, 0.0, -1.0])


def unlabeled_weights(z: torch.Tensor) -> torch.Tensor:
    """What a pass over an unlabeled set with these predictions would give, scaled to its size."""
    return effective_number_weights(torch.bincount(z.argmax(dim=1), minlength=CLASSES) / len(z) * FACTS.num_unlabeled)


def test_by_hand_with_a_mask():
    """The peer's mean over the batch in place of each sample's charge leaves a mask nothing to choose from."""
    weak, strong, labeled = some(0), some(1), some(2)
    y = torch.arange(40) % CLASSES
    losses = step(method_with("saw", momentum=0.0), weak, strong, labeled=labeled, y=y)
    torch.testing.assert_close(losses.supervised, (WEIGHTS[y] * cross_entropy(labeled, y)).mean())
    guess, sure = weak.argmax(dim=1), probability(weak).amax(dim=1) >= 0.95
    assert 0 < sure.sum() < len(sure)
    charge = unlabeled_weights(weak)[guess] * cross_entropy(strong, guess)
    torch.testing.assert_close(losses.unsupervised, (charge * sure).mean())


def test_a_soft_target_stays_soft():
    """The peer makes it hard."""
    weak, strong = some(0), some(1)
    method = Consistency(weigh=All(), target=Soft())
    saw(method, CLASSES, FACTS.num_unlabeled, COUNTS, momentum=0.0)
    p = probability(weak)
    charge = (p @ unlabeled_weights(weak)) * cross_entropy(strong, p)
    torch.testing.assert_close(step(method, weak, strong).unsupervised, charge.mean())


def test_bells_and_masks_of_other_methods_stay_what_they_are():
    """Weights of the pseudo-labels are not touched, whichever method they come from."""
    for name in ("softmatch", "flexmatch", "uncertainty_weighted", "uda"):
        mine, theirs = (step(method_with(addon, name), some(0), some(1)) for addon in ("saw", None))
        assert torch.equal(mine.pseudo.weight, theirs.pseudo.weight)
        assert mine.unsupervised.isfinite()


def test_all_pseudo_labels_weigh_alike_at_first_and_then_by_what_is_predicted():
    method = method_with("saw", momentum=0.5)
    assert method.divergence.weights.tolist() == [1.0] * CLASSES
    for k in range(40):
        step(method, some(k), some(k + 50))
    assert (method.divergence.weights.diff() > 0).sum() >= 2
    assert method.divergence.weights[3] > 2 * method.divergence.weights[0]
    torch.testing.assert_close(method.charge.weights, WEIGHTS)  # those of the labels stay


def test_other_priors():
    counts = torch.tensor(COUNTS) / sum(COUNTS) * FACTS.num_unlabeled
    torch.testing.assert_close(method_with("saw", prior="labeled").divergence.weights, effective_number_weights(counts))


def test_rare_classes_are_found_more_often():
    without, with_it = (recalls(trained(method_with(addon), steps=100)) for addon in (None, "saw"))
    assert with_it[-1] > without[-1] + 0.3
    assert with_it.mean() > without.mean() + 0.05

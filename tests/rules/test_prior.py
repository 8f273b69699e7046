"""Where a prior comes from, and that the estimated one follows the unlabeled set and not the labels."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sfumato import distributed
from sfumato.errors import UsageError
from sfumato.functional.adjust import prior_offset
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.prior_shift import estimate_prior
from sfumato.rules.charge import Adjusted
from sfumato.rules.prior import Borrowed, Debiased, Prior, Watch
from sfumato.types import Context, Progress
from tests.functional.test_prior_shift import CLASSES, SHIFTS, distance, long_tail, world
from tests.given import context, learn

COUNTS = tuple((1500 * long_tail(100) / long_tail(100)[0]).round().int().tolist())


def shown(prior: Prior, predictions, unlabeled: torch.Tensor, *, steps: int = 600) -> Prior:
    for k in range(steps):
        p, labeled = predictions(24, unlabeled).float(), predictions(8, long_tail(100)).float()
        context = Context(Progress(k, steps), torch.arange(24), labeled.log(), torch.zeros(8).long(), torch.ones(8))
        prior.observe(p, torch.ones(24), context)
    return prior


def test_labeled_and_given():
    assert Prior(3, (6, 3, 1)).value.tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert Prior(3, (6, 0, 2)).value.tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert Prior(3, source=(1.0, 1.0, 2.0)).value.tolist() == [0.25, 0.25, 0.5]
    assert not any(Prior(3, (6, 3, 1), source).learns for source in ("labeled", (1.0, 1.0, 2.0)))


@pytest.mark.parametrize("shift", SHIFTS)
def test_estimated_follows_the_unlabeled_set(shift):
    """In small batches, and close to what the whole set would give at once."""
    prior = Prior(CLASSES, COUNTS, "estimated")
    torch.testing.assert_close(prior.value, long_tail(100).float(), rtol=0, atol=1e-3)
    found = shown(prior, world(), SHIFTS[shift]).value
    assert found.sum().item() == pytest.approx(1)
    assert distance(found, SHIFTS[shift]) < 0.06
    assert distance(found, estimate_prior(world()(20_000, SHIFTS[shift]), long_tail(100))) < 0.06


def test_predicted_follows_the_network():
    """The leaning of the network remains: it is not the prior of the unlabeled set."""
    blurred = world(2.0)
    found = shown(Prior(CLASSES, source="predicted", momentum=0.99), blurred, SHIFTS["reversed"]).value
    assert distance(found, blurred(20_000, SHIFTS["reversed"]).mean(dim=0)) < 0.05
    assert distance(found, SHIFTS["reversed"]) > 0.3
    hard = shown(Prior(CLASSES, source="predicted", momentum=0.99, hard=True), blurred, SHIFTS["reversed"]).value
    top = torch.bincount(blurred(20_000, SHIFTS["reversed"]).argmax(dim=1), minlength=CLASSES) / 20_000
    assert distance(hard, top) < 0.05


def test_predicted_starts_even_and_the_network_that_knows_nothing_moves_no_estimate():
    assert Prior(4, source="predicted").value.tolist() == [0.25] * 4

    def ignorant(n, prior):
        return torch.full((n, CLASSES), 1 / CLASSES)

    prior = Prior(CLASSES, COUNTS, "estimated")
    before = prior.value
    assert distance(shown(prior, ignorant, SHIFTS["reversed"]).value, before) < 1e-3


def test_maps_are_their_pixels():
    predictions, (one, other) = world(), (Prior(CLASSES, COUNTS, "estimated") for _ in range(2))
    p, z = predictions(24, SHIFTS["even"]).float(), predictions(12, long_tail(100)).float().log()
    flat = Context(Progress(0, 1), torch.arange(24), z, torch.zeros(12).long(), torch.ones(12))
    dense = Context(
        Progress(0, 1),
        torch.arange(2),
        z.reshape(1, 3, 4, CLASSES).movedim(-1, 1),
        torch.zeros(1, 3, 4).long(),
        torch.ones(1, 3, 4),
    )
    one.observe(p, torch.ones(24), flat)
    other.observe(p.reshape(2, 3, 4, CLASSES).movedim(-1, 1), torch.ones(2, 3, 4), dense)
    torch.testing.assert_close(one.value, other.value)


def on_this_rank() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    priors = {source: Prior(5, (9, 5, 3, 2, 1), source) for source in ("labeled", "predicted", "estimated")}
    priors["hard"] = Prior(5, source="predicted", hard=True)
    for _ in range(4):
        p, z = torch.softmax(2 * torch.randn((8, 5), generator=draw), dim=1), torch.randn((6, 5), generator=draw)
        valid = (torch.rand(8, generator=draw) < 0.7).float()
        mine, labeled = (torch.arange(n).chunk(distributed.world_size())[distributed.rank()] for n in (8, 6))
        for prior in priors.values():
            prior.observe(p[mine], valid[mine], context(p[mine], labeled=z[labeled]))
    return {name: prior.value for name, prior in priors.items()}


def test_two_ranks_of_half_a_batch_equal_one_rank(two_ranks):
    alone = on_this_rank()
    for both in two_ranks.call(on_this_rank):
        torch.testing.assert_close(both, alone, rtol=0, atol=1e-6)


WRONG = {
    "Prior(source='labelled'): expected one of labeled, predicted, estimated. Did you mean 'labeled'?": (
        lambda: Prior(3, (1, 1, 1), "labelled")
    ),
    "label_counts has 0 numbers: expected how many labels there are of each of the 3 classes.": lambda: Prior(3),
    "label_counts has 2 numbers: expected how many": lambda: Prior(3, (1, 2), "estimated"),
    "prior has 2 numbers: expected one for each of the 3 classes.": lambda: Prior(3, source=(0.5, 0.5)),
    "prior[1]=0.0: expected a positive share of each class": lambda: Prior(3, source=(0.5, 0.0, 0.5)),
    "prior[0]=nan: expected a positive share of each class": lambda: Prior(2, source=(float("nan"), 1.0)),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings_say_what_is_expected(message):
    with pytest.raises(UsageError) as error:
        WRONG[message]()
    assert str(error.value).startswith(message)


def test_a_prior_that_another_rule_keeps_is_saved_once_and_is_the_same():
    prior = Prior(3, source="predicted", momentum=0.0)
    charge = Adjusted(cross_entropy, Borrowed(prior))
    assert not charge.state_dict()
    p = torch.tensor([[0.7, 0.2, 0.1]])
    learn(Watch(prior), p)
    torch.testing.assert_close(charge.prior.value, p[0])
    both = copy.deepcopy(torch.nn.ModuleList([Watch(prior), charge]))
    learn(both[0], p.flip(1))
    torch.testing.assert_close(both[1].prior.value, p[0].flip(0))  # the copy has a prior of its own
    torch.testing.assert_close(charge.prior.value, p[0])


def test_watching_changes_nothing_and_takes_what_the_loss_adds_into_account():
    """With adjusted logits the network's own are balanced, and say nothing of how frequent the labels are."""
    balanced = world(1.5, learned=SHIFTS["even"])
    plain, told = (Prior(CLASSES, COUNTS, "estimated") for _ in range(2))
    watches = Watch(plain), Watch(told, offset=prior_offset(long_tail(100).float()))
    for k in range(600):
        p, labeled = balanced(24, long_tail(100)).float(), balanced(8, long_tail(100)).float()
        for watch in watches:
            watch.observe(p, torch.ones(24), replace(context(p, labeled=labeled.log()), progress=Progress(k, 600)))
            assert watch(p) is p
    assert distance(told.value, long_tail(100)) < 0.06
    assert distance(plain.value, long_tail(100)) > 0.2


def test_debiased_by_hand():
    """The prior is the average of what came in, of this batch too, not of what goes out."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]])
    rule = Debiased(Prior(3, source="predicted", momentum=0.0), tau=0.5)
    got = learn(rule, p)
    want = p / p.mean(dim=0).sqrt()
    torch.testing.assert_close(got, want / want.sum(dim=1, keepdim=True))
    torch.testing.assert_close(learn(Debiased(Prior(3, (1, 1, 1)), tau=1.0), p), p)

"""Offsets and thresholds in the slots of other methods; what is learned is tested with its searches."""

from __future__ import annotations

import pytest
import torch

import sfumato.rules.threshold
from sfumato.addons import fits, join
from sfumato.addons.seval import THRESHOLDS
from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.methods import METHODS, Facts, build
from sfumato.rules import (
    Bell,
    ClassOffset,
    ClassThreshold,
    Coverage,
    DistributionAlignment,
    EntropyGate,
    FixedThreshold,
    Instead,
    NoRefinement,
    OffsetFirst,
    Product,
    TruncatedGaussian,
    Weigher,
)
from sfumato.types import HeldOut
from tests.functional.test_offsets import problem
from tests.given import context, step

CLASSES = 6


def with_seval(name="fixmatch", given=None, **options):
    """After one evaluation."""
    facts = Facts(CLASSES, 100, num_labeled=60, label_counts=(20, 15, 10, 7, 5, 3))
    method = build(name, facts, given)
    join("seval", method, facts, options)
    z, y = problem(400, CLASSES)
    method.calibrate(HeldOut(z.float(), y, torch.ones(400)))
    return method


def logits(seed=0, n=64):
    return problem(n, CLASSES, seed=seed)[0].float()


def test_a_step_by_hand():
    """The label is the argmax of the refined logits, kept by its threshold; the strong logits are charged as such."""
    method, weak, strong = with_seval(target_precision=0.9), logits(1), logits(2)
    b, tau = method.refine.curriculum.offset, method.weigh.thresholds
    assert tau.unique().numel() > 2
    p = probability(weak - b)
    top, label = p.max(dim=1)
    assert (label != weak.argmax(dim=1)).any()
    kept = (top >= tau[label]).float()
    assert 0 < kept.sum() < len(kept)
    losses = step(method, weak, strong)
    assert torch.equal(losses.pseudo.target, label)
    assert torch.equal(losses.pseudo.weight, kept)
    torch.testing.assert_close(losses.unsupervised, (kept * cross_entropy(strong, label)).mean())


def test_labels_are_charged_to_logits_that_are_not_refined():
    y = torch.arange(64) % CLASSES
    plain, refined = build("fixmatch", Facts(CLASSES)), with_seval()
    one, other = (step(method, logits(1), logits(2), labeled=logits(3), y=y) for method in (plain, refined))
    assert torch.equal(one.supervised, other.supervised)


def test_thresholds_are_replaced_and_other_weights_multiplied():
    assert isinstance(with_seval("fixmatch").weigh, ClassThreshold)
    soft = with_seval("softmatch").weigh
    assert isinstance(soft, Product)
    assert isinstance(soft.second, ClassThreshold)
    assert any(isinstance(rule, TruncatedGaussian) for rule in soft.first.modules())
    both = with_seval("uncertainty_weighted").weigh
    assert isinstance(both, Product)
    kinds = [type(rule) for rule in both.modules()]
    assert {EntropyGate, Bell, ClassThreshold} <= set(kinds)


def test_soft_weights_keep_what_the_thresholds_let_pass():
    given = {"align": "none", "momentum": 0.0}
    alone, both = build("softmatch", Facts(CLASSES), given), with_seval("softmatch", given, target_precision=0.5)
    weak = logits(1)
    weights = step(both, weak, logits(2)).pseudo.weight
    kept = both.weigh.second(both.refine(probability(weak)))
    assert torch.equal(weights > 0, kept > 0)
    assert ((weights > 0) & (weights < 1)).any()
    assert step(alone, weak, logits(2)).pseudo.weight.min() > 0


def test_a_replaced_rule_that_others_read_goes_on_learning():
    """FreeMatch's fairness reads the prior that its threshold remembers."""
    method, plain = with_seval("freematch"), build("freematch", Facts(CLASSES))
    assert isinstance(method.weigh, Instead)
    weak = logits(1)
    (fairness,) = method.extras
    before = fairness._threshold[0].prior.value.clone()
    step(method, weak, logits(2))
    step(plain, weak - method.refine.curriculum.offset, logits(2))
    assert not torch.equal(fairness._threshold[0].prior.value, before)
    torch.testing.assert_close(fairness._threshold[0].prior.value, plain.weigh.prior.value)
    flex = with_seval("flexmatch").weigh
    assert isinstance(flex, Instead)


@pytest.mark.parametrize(
    ("choice", "kind"), [("replace", ClassThreshold), ("multiply", Product), ("none", FixedThreshold)]
)
def test_what_becomes_of_the_methods_weights(choice, kind):
    method = with_seval(thresholds=choice)
    assert type(method.weigh) is kind
    refined = method.refine(probability(logits(1)))
    if choice == "multiply":
        assert torch.equal(method.weigh(refined), method.weigh.first(refined) * method.weigh.second(refined))
    soft = with_seval("softmatch", thresholds=choice)
    assert isinstance(soft.weigh, {"replace": Instead, "multiply": Product}.get(choice, Weigher))


def test_corrections_of_the_method_are_of_refined_predictions():
    method = with_seval("uncertainty_weighted", {"align": "uniform"})
    assert isinstance(method.refine, OffsetFirst)
    assert isinstance(method.refine.second, DistributionAlignment)
    assert isinstance(with_seval("fixmatch").refine, ClassOffset)
    assert isinstance(build("fixmatch", Facts(CLASSES)).refine, NoRefinement)


@pytest.mark.parametrize("name", ["fixmatch", "adamatch", "comatch", "simmatch", "softmatch"])
def test_a_leaning_head_on_even_classes_is_corrected_once(name):
    """Whether or not the method aligns too: twice would lean the other way."""
    lean, draw = torch.tensor([0.49, 0.06, 0.0025]).log(), torch.Generator().manual_seed(0)

    def leaning(n):
        y = torch.randint(3, (n,), generator=draw)
        return 1.5 * torch.randn(n, 3, generator=draw) + 2 * torch.eye(3)[y] + lean, y

    facts = Facts(3, 512, num_labeled=64, label_counts=(100, 10, 1))
    method = build(name, facts)
    join("seval", method, facts, {"ridge": 0.0})
    z, y = leaning(4000)
    method.calibrate(HeldOut(z, y, torch.ones(4000)))
    valid = torch.ones(512)
    for _ in range(40):
        (z, y), (labeled, known) = leaning(512), leaning(64)
        p = probability(z)
        method.refine.observe(p, valid, context(p, labeled=labeled, y=known))
    share = torch.bincount(method.refine(p).argmax(dim=1), minlength=3) / 512
    truth = torch.bincount(y, minlength=3) / 512
    assert (share - truth).abs().max() < 0.06, share
    right = (method.refine(p).argmax(dim=1) == y).float().mean()
    assert right > (z.argmax(dim=1) == y).float().mean() + 0.15
    assert right > ((z - lean).argmax(dim=1) == y).float().mean() - 0.03


def test_every_threshold_of_the_package_is_known():
    """A new rule of that file is to be decided on: a threshold is replaced, all else multiplied."""
    found = {
        value
        for value in vars(sfumato.rules.threshold).values()
        if isinstance(value, type) and issubclass(value, Weigher) and value.__module__ == "sfumato.rules.threshold"
    }
    assert found - {*THRESHOLDS} == {Coverage}


def test_whose_labels_teach():
    assert with_seval().held_labels == "extra"
    assert with_seval(val="split_estimate").held_labels == "split_estimate"
    assert build("fixmatch", Facts(CLASSES)).held_labels is None


def test_methods_that_it_does_not_fit_are_told_why():
    fitting = [name for name in METHODS if fits("seval", name) is None]
    assert {"fixmatch", "flexmatch", "freematch", "softmatch", "uncertainty_weighted"} <= {*fitting}
    assert "it changes the correction of predictions, and Supervised has none" in fits("seval", "supervised")


def test_the_long_tail_is_neither_forgotten_nor_taught_wrongly():
    """Of the same logits, against one threshold of 0.95: more labels of rare classes, and all as right as is asked."""
    z, y = problem(4000, CLASSES, seed=7, tilt=2.0)
    held = HeldOut(z[:2000].float(), y[:2000], torch.ones(2000))
    method = build("fixmatch", Facts(CLASSES))
    join("seval", method, Facts(CLASSES), {"target_precision": 0.6, "balanced": False})
    method.calibrate(held)
    p = method.refine(probability(z[2000:].float()))
    label, kept, truth = p.argmax(dim=1), method.weigh(p) > 0, y[2000:]
    raw = probability(z[2000:].float())
    fixed = raw.amax(dim=1) >= 0.95
    rare = torch.tensor([3, 4, 5])
    assert torch.isin(label[kept], rare).sum() > 5 * torch.isin(raw.argmax(dim=1)[fixed], rare).sum()
    for c in range(CLASSES):
        mine = kept & (label == c)
        if mine.sum() >= 100:
            assert float((truth[mine] == c).float().mean()) > 0.5, c


def test_messages():
    for options, text in (
        ({"target_precision": 1.2}, "target_precision=1.2: expected a precision above 0 and up to 1, such as 0.75"),
        ({"pi_limit": 0.5}, "pi_limit=0.5: expected a number above 1, such as 30"),
        ({"decay": 1.0}, "decay=1.0: expected at least 0 and below 1"),
        ({"val": "split_estimate", "test_refine": "current"}, "the second training follows the averages"),
        ({"val": "split"}, "seval.val='split': input should be 'extra', 'split_online' or 'split_estimate'"),
    ):
        with pytest.raises(UsageError, match=text):
            with_seval(**options)

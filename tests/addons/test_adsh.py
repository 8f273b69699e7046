"""Thresholds of a method with Adsh; those of the rule are tested with it."""

from __future__ import annotations

import pytest
import torch

from sfumato.addons import join
from sfumato.rules import EqualShare, Instead
from sfumato.types import Progress
from tests.addons.long_tail import CLASSES, FACTS, method_with
from tests.given import step
from tests.rules.test_equal_share import predictions

LAST = FACTS.__class__(CLASSES, num_unlabeled=600, label_counts=(6, 25, 100, 400))  # its head is class 3


def seen(confidence: dict[int, list[float]]) -> torch.Tensor:
    """Logits of predictions of these classes with these confidences."""
    label = torch.tensor([c for c, values in confidence.items() for _ in values])
    return predictions(torch.tensor([v for values in confidence.values() for v in values]), label, CLASSES).log()


HALF = {3: [0.97] * 10 + [0.6] * 10, 0: [0.9, 0.8, 0.7, 0.6], 1: [0.9]}


def test_the_first_threshold_is_095():
    """The peer's is 0.387, and most of a batch passes."""
    z = seen({0: [0.94, 0.5, 0.96], 1: [0.4]})
    assert step(method_with("adsh"), z, z).pseudo.weight.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_each_class_lets_in_what_the_head_lets_in():
    """The head is the class with most labels, not class 0; a single prediction is not the least confident but let in;
    a class never seen keeps the threshold.
    """
    method, z = method_with("adsh", facts=LAST), seen(HALF)
    weight = step(method, z, z).pseudo.weight
    assert weight[:20].tolist() == [1.0] * 10 + [0.0] * 10
    assert weight[20:].tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]
    torch.testing.assert_close(method.weigh.thresholds[2:], torch.tensor([0.95, 0.95]))


def test_without_a_sure_prediction_of_the_head_none_is_let_in():
    """The peer lets in all of them."""
    z = seen(HALF | {3: [0.94] * 20})
    assert step(method_with("adsh", facts=LAST), z, z).pseudo.weight.sum() == 0


def test_it_takes_the_place_of_the_methods_weights():
    for name in ("fixmatch", "softmatch", "flexmatch"):
        method, z = method_with("adsh", name, facts=LAST), seen(HALF)
        mine = method.weigh.second if isinstance(method.weigh, Instead) else method.weigh
        assert isinstance(mine, EqualShare)
        assert isinstance(method.weigh, EqualShare) == (name == "fixmatch")  # of which nothing is remembered
        assert set(step(method, z, z).pseudo.weight.tolist()) <= {0.0, 1.0}


def test_the_head_may_be_what_is_predicted():
    z = seen({2: [0.97] * 10 + [0.6] * 10, 0: [0.9, 0.8]})
    weight = step(method_with("adsh", prior="predicted", momentum=0.0), z, z).pseudo.weight
    assert weight[20:].tolist() == [1.0, 0.0]
    assert step(method_with("adsh"), z, z).pseudo.weight[20:].tolist() == [0.0, 0.0]  # by labels it is class 0


@pytest.mark.parametrize("prior", ["predicted", "estimated"])
def test_the_prior_is_of_predictions_before_any_correction(prior):
    """An alignment makes them even, or as the labels are: of these there is nothing to learn."""
    plain, z = method_with("adsh", prior=prior, momentum=0.0), 3 * seen(HALF)
    aligned = method_with("distribution_alignment", prior="uniform")
    join("adsh", aligned, FACTS, {"prior": prior, "momentum": 0.0})
    for method in (plain, aligned):
        step(method, z, z, labeled=z)
    assert plain.weigh.prior.value.std() > 0.01
    assert torch.equal(aligned.weigh.prior.value, plain.weigh.prior.value)
    keys = [key for key in aligned.state_dict() if "prior" in key]
    assert keys
    assert all(key.startswith("refine.first.prior") for key in keys)  # and once


def test_what_it_replaces_goes_on_learning_for_the_rules_that_read_it():
    """FreeMatch's fairness reads the prior of its threshold, and is saved with it."""
    method, plain, z = method_with("adsh", "freematch", facts=LAST), method_with(None, "freematch"), seen(HALF)
    for one in (method, plain):
        step(one, z, z)
    (fairness,) = method.extras
    assert plain.weigh.prior.value.unique().numel() > 1
    assert torch.equal(fairness._threshold[0].prior.value, plain.weigh.prior.value)
    assert any(key.startswith("weigh.first.prior") for key in method.state_dict())


def test_with_dash_targets_turn_hard_and_there_is_no_warm_up():
    method, z, labeled = method_with("adsh", "dash", facts=LAST), seen(HALF), 9 * torch.eye(CLASSES)
    hard = []
    for k in (0, 99):
        pseudo = step(method, z, z, labeled=labeled, progress=Progress(k, 100)).pseudo
        assert pseudo.weight.tolist() == [1.0] * 10 + [0.0] * 10 + [1.0, 1.0, 0.0, 0.0, 1.0]
        hard.append(bool((pseudo.target.amax(dim=1) == 1).all()))
    assert hard == [False, True]

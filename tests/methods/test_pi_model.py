"""The Pi-model against its formula, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.addons import join
from sfumato.errors import UsageError
from sfumato.methods import Facts, build
from sfumato.types import Progress, Pseudo
from tests.given import step

N, C = 12, 5
END = Progress(9, 10)
SPACES = pytest.mark.parametrize("space", [(), (3, 4)], ids=str)


def given(space):
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.randn((N, C, *space), generator=draw, dtype=torch.float64) * 3 for _ in range(2))
    valid = (torch.rand((N, *space), generator=draw) < 0.7).double()
    return first.requires_grad_(), second.requires_grad_(), valid


def by_hand(first, second, valid):
    squares = (first.softmax(1) - second.softmax(1)).square().mean(1)
    return 10 * (squares * valid).sum() / valid.sum()


@SPACES
def test_one_branch(space):
    first, second, valid = given(space)
    losses = step(build("pi_model", Facts(C)).double(), first, second, valid=valid, progress=END)
    want = by_hand(first, second, valid)
    torch.testing.assert_close(losses.unsupervised, want)
    got = torch.autograd.grad(losses.total, (first, second), allow_unused=True)
    assert got[0] is None
    torch.testing.assert_close(got[1], torch.autograd.grad(want, second)[0])


@SPACES
def test_both_branches(space):
    first, second, valid = given(space)
    method = build("pi_model", Facts(C), {"gradient": "both"}).double()
    losses = step(method, first, second, valid=valid, progress=END)
    want = by_hand(first, second, valid)
    torch.testing.assert_close(losses.total - losses.supervised, want)
    got, wanted = (torch.autograd.grad(loss, (first, second)) for loss in (losses.total - losses.supervised, want))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_both_branches_of_mixed_images():
    first, second, valid = given((3, 4))

    def warp(pseudo):
        return Pseudo(pseudo.target.flip(0), pseudo.weight.flip(0), pseudo.valid.flip(0))

    method = build("pi_model", Facts(C), {"gradient": "both"}).double()
    losses = step(method, first, second, valid=valid, progress=END, warp=warp)
    want = by_hand(first.flip(0), second, valid.flip(0))
    got, wanted = (torch.autograd.grad(loss, (first, second)) for loss in (losses.total - losses.supervised, want))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("gradient", ["one", "both"])
def test_the_weight_rises_as_in_the_paper(gradient):
    first, second, valid = given(())

    def pull(k, **options):
        method = build("pi_model", Facts(C), {"gradient": gradient, "ramp": 0.5, **options}).double()
        losses = step(method, first, second, valid=valid, progress=Progress(k, 11))
        return torch.autograd.grad(losses.total - losses.supervised, second if gradient == "one" else first)[0]

    end = pull(10)
    for k, share in ((0, math.exp(-5)), (2, math.exp(-5 * 0.6**2)), (5, 1.0)):
        torch.testing.assert_close(pull(k), share * end)
    torch.testing.assert_close(pull(2, rise="linear"), 0.4 * end)


def test_both_views_are_weak():
    assert build("pi_model", Facts(C)).views.further == "weak"


def test_wrong_options_say_what_is_expected():
    with pytest.raises(UsageError, match=r"pi_model.gradient='two': input should be 'one' or 'both'"):
        build("pi_model", Facts(C), {"gradient": "two"})
    with pytest.raises(UsageError, match=r"pi_model.rise='exponental': .*Did you mean 'exponential'"):
        build("pi_model", Facts(C), {"rise": "exponental"})


@pytest.mark.parametrize("addon", ["debiaspl", "saw", "distribution_alignment", "darp", "seval"])
def test_with_both_branches_no_add_on_may_come_between(addon):
    """Its correction would reach the value of the loss and not its gradient by the first view."""
    facts = Facts(C, 100, num_labeled=60, label_counts=(20, 15, 10, 7, 5))
    with pytest.raises(UsageError, match=r"does not fit method=pi_model as it is set: .*method\.gradient=one"):
        join(addon, build("pi_model", facts, {"gradient": "both"}), facts, method_name="pi_model")
    join(addon, build("pi_model", facts), facts, method_name="pi_model")

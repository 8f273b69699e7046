"""The leaning is one of each class, it acts on mask, target and loss, and it has a momentum of its own."""

from __future__ import annotations

import pytest
import torch

from sfumato.addons import join
from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.methods import build
from tests.addons.long_tail import CLASSES, FACTS, method_with
from tests.given import step


def leaning(seed: int = 0, n: int = 60) -> torch.Tensor:
    """Logits of a network that likes its first class."""
    z = 2 * torch.randn((n, CLASSES), generator=torch.Generator().manual_seed(seed))
    return z + torch.tensor([2.5, 0.0, 0.0, -2.0])


def test_by_hand():
    weak, strong, tau = leaning(), leaning(1), 0.8
    losses = step(method_with("debiaspl", tau=tau, momentum=0.0), weak, strong)
    average = probability(weak).mean(dim=0)
    p = probability(weak - tau * average.log())
    assert torch.equal(losses.pseudo.target, p.argmax(dim=1))
    assert torch.equal(losses.pseudo.weight, (p.amax(dim=1) >= 0.95).float())
    charge = cross_entropy(strong + tau * average.log(), p.argmax(dim=1))
    torch.testing.assert_close(losses.unsupervised, (charge * losses.pseudo.weight).mean())


def test_it_acts():
    """The peer's average is over the classes as well: a constant, which changes neither labels nor losses."""
    method, plain = method_with("debiaspl", tau=1.0, momentum=0.9), method_with(None)
    for k in range(30):
        mine, theirs = (step(m, leaning(k), leaning(k + 100)) for m in (method, plain))
    changed = mine.pseudo.target != theirs.pseudo.target
    assert changed.float().mean() > 0.1
    assert (theirs.pseudo.target[changed] == 0).float().mean() > 0.9  # away from the class it leans to
    assert (mine.unsupervised - theirs.unsupervised).abs() > 0.01
    shift = method.refine.first.prior.value.log()
    assert shift.std() > 0.5


def test_the_average_starts_even_and_has_its_own_momentum():
    """The peer's has that of the averaged weights, which is 0 in some protocols: then it is that of the last batch."""
    method, weak = method_with("debiaspl"), leaning()
    prior = method.refine.first.prior
    assert prior.value.tolist() == [1 / CLASSES] * CLASSES
    step(method, weak, weak)
    torch.testing.assert_close(prior.value, 0.999 / CLASSES + 0.001 * probability(weak).mean(dim=0))


def test_the_average_is_of_what_comes_before_any_correction():
    method, weak = method_with("distribution_alignment", prior="uniform"), leaning()
    join("debiaspl", method, FACTS, {"momentum": 0.0})
    step(method, weak, weak)
    torch.testing.assert_close(method.refine.first.prior.value, probability(weak).mean(dim=0))


def test_an_alignment_with_labeled_predictions_is_with_debiased_ones():
    """With plain ones it would take back what was corrected: predictions for both sets alike need no alignment."""
    z = leaning()
    method = build("adamatch", FACTS, {"target": "soft", "interpolate": False})
    join("debiaspl", method, FACTS, {"momentum": 0.0, "tau": 0.8})
    target = step(method, z, z, labeled=z).pseudo.target
    torch.testing.assert_close(target, probability(z - 0.8 * probability(z).mean(dim=0).log()), rtol=1e-3, atol=1e-5)


def test_labels_and_the_network_that_is_kept_are_as_they_were():
    weak, labeled = leaning(), leaning(2)
    losses = [step(m, weak, weak, labeled=labeled).supervised for m in (method_with("debiaspl"), method_with(None))]
    assert torch.equal(*losses)
    net = torch.nn.Linear(2, 2)
    assert method_with("debiaspl").deployed(net) is net


def test_wrong_settings():
    with pytest.raises(UsageError, match=r"^debiaspl\.tau=-0\.1: expected a number of 0 or more, such as 0\.4\.$"):
        method_with("debiaspl", tau=-0.1)

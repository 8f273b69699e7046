"""VAT's direction: against float64, finite differences and known curvature."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sfumato.functional.adversarial import adversarial_direction, normal, probability_change, unit
from sfumato.functional.divergence import kl
from sfumato.functional.probability import probability


def network(channels=3, classes=10):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2),
        nn.LeakyReLU(0.1),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(32 * 49, classes),
    )


def cosine_to_exact(step):
    """Of float32 with this step to float64 with a step of which the direction hardly depends."""
    net = network()
    draw = torch.Generator().manual_seed(0)
    x, start = (torch.randn(16, 3, 32, 32, generator=draw) for _ in range(2))
    got = adversarial_direction(net, x, start, step=step)
    exact = adversarial_direction(network().double(), x.double(), start.double(), step=1e-4)
    return F.cosine_similarity(got.double().flatten(1), exact.flatten(1))


def test_the_direction_is_that_of_double_precision():
    assert cosine_to_exact(1e-2).min() > 0.99
    assert cosine_to_exact(1e-6).mean() < 0.5  # the peers' step: the input hardly changes


def test_certain_predictions_have_a_direction_too():
    """The plain difference of probabilities, 1 - 1, is 0 in float32."""
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)) * 4
    x = 5 * weight  # the row of each class: logits some hundreds apart
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))

    def direction(kind):
        w = weight.to(kind)
        return adversarial_direction(lambda x: x @ w.T, x.to(kind), start.to(kind), step=1e-2)

    single, double = direction(torch.float32), direction(torch.float64)
    sure = probability(x @ weight.T).amax(dim=1)
    assert (sure == 1).any()
    alive = single.norm(dim=1) > 0
    assert (alive & (sure == 1)).any()
    assert F.cosine_similarity(single[alive].double(), double[alive]).min() > 0.99


def test_the_change_of_probabilities_is_the_gradient_of_kl():
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(20, 7, 2, generator=draw, dtype=torch.float64) * 6
    other = (z + torch.randn(z.shape, generator=draw, dtype=torch.float64)).requires_grad_()
    (want,) = torch.autograd.grad(kl(other, probability(z)).sum(), other)
    torch.testing.assert_close(probability_change(z, other), want)
    torch.testing.assert_close(probability_change(z.float(), other.float()), want.float(), rtol=1e-4, atol=1e-7)


def test_small_changes_of_sure_predictions_keep_their_digits():
    z = torch.tensor([[25.0, 0.0, -3.0]])
    other = z + torch.tensor([[1e-2, 0.0, -1e-2]])
    got, want = probability_change(z, other), probability_change(z.double(), other.double())
    assert probability(other)[0, 0] - probability(z)[0, 0] == 0
    torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=0)


def test_power_iterations_find_the_largest_curvature():
    """For linear logits and even predictions the KL of a step r is |W r|^2 / 2C with rows W centered."""
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x, start = torch.zeros(1, 8).double(), torch.ones(1, 8).double()
    centered = weight - weight.mean(dim=0)
    largest = torch.linalg.eigh(centered.T @ centered).eigenvectors[:, -1]
    cosines = [
        (adversarial_direction(lambda x: x @ weight.T, x, start, step=1e-4, iterations=n)[0] @ largest).abs().item()
        for n in (1, 3, 30)
    ]
    assert cosines == sorted(cosines)
    assert cosines[-1] > 0.9999


def test_no_gradient_reaches_the_parameters_and_norms_are_one():
    net = network()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    r = adversarial_direction(net, x, torch.randn_like(x), step=1e-2)
    assert not r.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    torch.testing.assert_close(r.flatten(1).norm(dim=1), torch.ones(4))


def test_rows_of_a_table_have_a_norm_each():
    """A peer leaves inputs of two dimensions as they are."""
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0], [1e30, 1e30]])
    want = torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0], [0.5**0.5, 0.5**0.5]])
    torch.testing.assert_close(unit(x), want)


def test_what_is_not_valid_has_no_say():
    net = nn.Conv2d(2, 3, 1).requires_grad_(False)
    x, start = torch.randn(2, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0)).unbind()
    valid = torch.ones(4, 5, 5)
    valid[:, :2], valid[3] = 0, 0
    r = adversarial_direction(net, x, start, step=1e-2, valid=valid)
    assert (r[:, :, :2] == 0).all()
    assert (r[3] == 0).all()
    assert (r[:3, :, 2:] != 0).all()


def test_normal_numbers():
    places = torch.arange(0, 2**24, 2**8) * 2.0**-24
    z = normal(places)
    assert z.isfinite().all()
    assert z.mean().abs() < 1e-3
    assert z.std().item() == pytest.approx(1.0, abs=1e-2)
    ends = normal(torch.tensor([0.0, 1 - 2.0**-24, 0.5]))
    assert ends[0] < -5 and ends[1] > 5  # noqa: PT018
    assert ends[2].abs() < 1e-6

import numpy as np
import pytest
import torch

from sfumato.functional.probability import confidence
from sfumato.functional.spectral import (
    gaussians,
    moments,
    principal_axis,
    residual_dispersion,
    spectral_split,
    winner_slot_dispersion,
)
from sfumato.rules import Spectral
from tests.given import context

each = pytest.mark.parametrize("name", ["csl_pcos_00", "csl_pcos_01"])


def close_but_few(got, want, tolerance):
    assert ((got - want).abs() <= tolerance).double().mean() >= 0.998


@each
def test_features_and_split(golden, name):
    want = {key: torch.from_numpy(np.asarray(value)) for key, value in golden(name).items()}
    p, valid = want["prob"], want["valid"]
    top, seen = confidence(p)[0].flatten(1), valid.flatten(1)
    for dispersion, values, parts in (
        (winner_slot_dispersion, "official_dispersion", "reliable"),
        (residual_dispersion, "true_dispersion", "true_dispersion_reliable"),
    ):
        v = dispersion(p)
        torch.testing.assert_close(v[valid].double(), want[values][valid].double(), rtol=1e-4, atol=1e-10)
        v = v.flatten(1)
        whole = moments(top, v, seen)
        first = spectral_split(whole, top, v)
        fit = gaussians(whole, moments(top, v, seen & first), larger=True)
        means = [(top * (seen & part)).sum(dim=1) / (seen & part).sum(dim=1) for part in (first, ~first)]
        reliable = first == (means[0] > means[1]).unsqueeze(1)
        agrees = reliable[seen] == (want[parts].flatten(1)[seen] == 1)
        assert agrees.double().mean() >= 0.998
        axis, *eigenvalues = principal_axis(whole)
        if values == "official_dispersion":
            torch.testing.assert_close(fit.center.float(), want["mean"], rtol=1e-3, atol=0)
            torch.testing.assert_close((fit.scale.square() - 1e-8).float(), want["var"], rtol=1e-3, atol=0)
            singular = torch.stack(eigenvalues, dim=1).sqrt().float()
            torch.testing.assert_close(singular, want["singular_values"], rtol=1e-3, atol=0)
        else:
            angle = torch.atan2(axis[:, 1], axis[:, 0])
            torch.testing.assert_close(angle, want["gram_angle"], rtol=1e-5, atol=0)
            torch.testing.assert_close(torch.stack(eigenvalues, dim=1), want["gram_eigenvalues"], rtol=1e-5, atol=0)


@each
@pytest.mark.parametrize("keep", ["or", "and"])
@pytest.mark.parametrize(("kernel", "formula"), [("z2_over_alpha", "eq10"), ("z_over_alpha_sq", "alg1")])
def test_weights(golden, name, keep, kernel, formula):
    want = golden(name)
    p, valid = torch.from_numpy(want["prob"]), torch.from_numpy(want["valid"])
    rule = Spectral(features="raw_winner_slot", keep=keep, kernel=kernel)
    rule.observe(p, valid.float(), context(p))
    close_but_few(rule(p)[valid], torch.from_numpy(want[f"weight_{keep}_{formula}"])[valid], 2e-3)

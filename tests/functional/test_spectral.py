import math
import statistics

import numpy as np
import pytest
import torch

from sfumato.functional import one_pass
from sfumato.functional.probability import probability
from sfumato.functional.spectral import (
    DISPERSIONS,
    KERNELS,
    Gaussians,
    component_split,
    fixed_split,
    gaussians,
    moments,
    principal_axis,
    reliability_weight,
    residual_dispersion,
    spectral_split,
)
from tests.functional.oracle import CLASSES, SPACES, logits_of


def features(groups=3, n=200, classes=7, seed=0):
    """Confidence, dispersion and validity of predictions between doubtful and sure."""
    draw = torch.Generator().manual_seed(seed)
    p = probability(logits_of(groups, classes, n, seed=seed) * torch.rand((groups, 1, n), generator=draw).double() * 2)
    return p.amax(dim=1), residual_dispersion(p), (torch.rand((groups, n), generator=draw) < 0.8).double()


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("block", [64, 2**17])
def test_dispersions_against_loops(classes, space, block, monkeypatch):
    monkeypatch.setattr(one_pass, "_BLOCK", block)
    p = probability(logits_of(3, classes, *space))
    for row, *got in zip(
        p.movedim(1, -1).reshape(-1, classes).tolist(),
        *(f(p).flatten().tolist() for f in DISPERSIONS.values()),
        strict=True,
    ):
        top = max(row)
        losers = list(row)
        losers.remove(top)
        v, mean = statistics.pvariance(losers), (1 - top) / len(losers)
        emptied = [0.0 if x == top else x for x in row]
        slot = sum((x - mean) ** 2 for x in emptied) / len(losers)
        assert got == pytest.approx([v, slot, math.sqrt(v), math.log(v + 1e-8)], rel=1e-6, abs=1e-12)


def test_the_dispersion_of_a_sure_prediction_keeps_its_digits():
    """1 - confidence is 2e-7 here, which float32 cannot tell from 1.2e-7 or 2.4e-7."""
    logits = torch.tensor([[16.0, 0.0, 0.0, 0.0], [16.0, 0.6, 0.0, -2.0]], dtype=torch.float64)
    want = residual_dispersion(probability(logits))
    got = residual_dispersion(probability(logits).float())
    assert want[0] < 1e-30
    assert got[0] < 1e-20
    assert float(got[1]) == pytest.approx(float(want[1]), rel=1e-4)


def test_one_rival_is_uneven_and_many_are_not():
    p = torch.tensor([[0.6, 0.4, 0.0, 0.0, 0.0], [0.6, 0.1, 0.1, 0.1, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]])
    rival, many, uniform = residual_dispersion(p).tolist()
    assert rival > 0.02
    assert many == uniform == 0


def test_moments_against_sums():
    c, d, valid = features()
    got = moments(c, d, valid)
    want = [(x * valid).sum(dim=1) for x in (torch.ones_like(c), c, d, c * c, c * d, d * d)]
    torch.testing.assert_close(got, torch.stack(want, dim=1), rtol=1e-12, atol=0)
    whole = moments(c, d, torch.ones_like(valid))
    torch.testing.assert_close(moments(c, d, valid) + moments(c, d, 1 - valid), whole, rtol=1e-12, atol=1e-15)
    assert moments(c.float(), d.float(), valid > 0).dtype == torch.float64


@pytest.mark.parametrize("block", [64, 2**17])
@pytest.mark.parametrize(
    "transform", [torch.clone, torch.sqrt, lambda d: (d + 1e-8).log(), lambda d: -d, lambda d: 1e4 * d]
)
def test_the_split_is_that_of_the_singular_vectors(transform, block, monkeypatch):
    monkeypatch.setattr(one_pass, "_BLOCK", block)
    c, d, valid = features()
    d = transform(d)
    sums = moments(c, d, valid)
    axis, first, second = principal_axis(sums)
    got = spectral_split(sums, c, d)
    for g in range(len(c)):
        kept = valid[g] > 0
        u, s, vt = np.linalg.svd(torch.stack([c[g], d[g]])[:, kept].numpy(), full_matrices=False)
        assert np.abs(axis[g].numpy() @ u[:, 0]) == pytest.approx(1, abs=1e-12)
        assert [float(first[g]), float(second[g])] == pytest.approx(list(s**2), rel=1e-6)
        assert got[g][kept].tolist() == (np.abs(vt[0]) >= np.abs(vt[1])).tolist()


def test_the_printed_split_cuts_the_ratio_and_not_the_confidence():
    c, d, _ = features()
    first = spectral_split(moments(c, d, torch.ones_like(c)), c, d)
    for ratio, part in zip(d / c, first, strict=True):
        assert ratio[part].max() < ratio[~part].min() or ratio[~part].max() < ratio[part].min()


def test_the_component_is_that_of_the_standardized_features():
    c, d, valid = features()
    got = component_split(moments(c, d, valid), c, d)
    for g in range(len(c)):
        kept = valid[g] > 0
        x = torch.stack([c[g], d[g]])[:, kept].numpy()
        z = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, ddof=1, keepdims=True)
        u, _, vt = np.linalg.svd(np.stack([z[0], -z[1]]), full_matrices=False)
        assert got[g][kept].tolist() == (vt[0] * np.sign(u[0, 0]) > 0).tolist()


def test_one_line_is_one_part():
    """All ratios are equal: the second singular vector is arbitrary, and would split at random."""
    c = torch.linspace(0.3, 0.9, 50).unsqueeze(0)
    ones = torch.ones_like(c)
    assert spectral_split(moments(c, 0.01 * c.double(), ones), c.double(), 0.01 * c.double()).all()
    assert spectral_split(moments(c, 0 * c, ones), c, 0 * c).all()
    assert component_split(moments(ones, c, ones), ones, c).all()
    assert fixed_split(moments(ones, c, ones), c, c).sum() == 0


def fitted(c, d, chosen, first, **about):
    return gaussians(moments(c, d, chosen), moments(c, d, chosen * first), **about)


def test_gaussians_of_the_more_confident_part():
    c, d, valid = features()
    first = d / c > (d / c).median()
    fit = fitted(c, d, valid, first, larger=True)
    for g in range(len(c)):
        parts = [(valid[g] > 0) & part for part in (first[g], ~first[g])]
        best = max(parts, key=lambda part: c[g][part].mean())
        for i, x in enumerate((c[g], d[g])):
            assert float(fit.center[g, i]) == pytest.approx(float(x[best].mean()), rel=1e-10)
            assert float(fit.scale[g, i]) == pytest.approx(math.sqrt(x[best].var().item() + 1e-8), rel=1e-10)
    assert not fit.small.any()
    given = fitted(c, d, valid, first, larger=False)
    parts = (valid > 0) & first
    assert float(given.center[0, 0]) == pytest.approx(float(c[0][parts[0]].mean()))


def test_an_empty_part_a_single_one_and_none_at_all():
    c, d = torch.tensor([[0.9, 0.8, 0.7]]).double(), torch.tensor([[0.01, 0.02, 0.03]]).double()
    everything, nothing = torch.ones_like(c), torch.zeros_like(c)
    for first in (everything, nothing):
        for larger in (True, False):
            fit = fitted(c, d, everything, first, larger=larger)
            torch.testing.assert_close(fit.center, torch.tensor([[0.8, 0.02]]).double())
    single = fitted(c, d, everything, torch.tensor([[1.0, 0.0, 0.0]]), larger=True)
    torch.testing.assert_close(single.scale, torch.full((1, 2), 1e-4).double())
    each = fitted(c, d, everything, torch.tensor([[1.0, 0.0, 0.0]]), larger=True, floor="each")
    torch.testing.assert_close(each.scale, torch.tensor([[1e-4, 1e-6]]).double())
    for chosen, small in ((nothing, True), (torch.tensor([[0.0, 1.0, 0.0]]).double(), True), (everything, False)):
        fit = fitted(c, d, chosen, everything, larger=True)
        assert fit.small.tolist() == [small]
        assert fit.center.isfinite().all()
        assert (fit.scale > 0).all()
    assert principal_axis(moments(c, d, nothing))[0].isfinite().all()


FIT = Gaussians(torch.tensor([[0.8, 0.02]]).double(), torch.tensor([[0.1, 0.01]]).double(), torch.tensor([False]))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("keep", ["or", "and", "onesided"])
def test_weights_against_loops(keep, kernel):
    c, d, _ = features(groups=1)
    got = reliability_weight(c, d, FIT, keep=keep, kernel=KERNELS[kernel])
    divisor = 8 if kernel == "z2_over_alpha" else 64

    def weight(c, d):
        sure, uneven = (c - 0.8) / 0.1, (d - 0.02) / 0.01
        if keep == "onesided":
            sure, uneven = min(sure, 0), max(uneven, 0)
        elif (any if keep == "or" else all)((sure > 0, uneven < 0)):
            return 1.0
        return math.exp(-(sure**2) / divisor) * math.exp(-(uneven**2) / divisor)

    assert got[0].tolist() == pytest.approx([weight(*x) for x in zip(c[0].tolist(), d[0].tolist(), strict=True)])
    assert (got == 1).any()
    assert (got < 0.999).any()


def test_or_keeps_what_is_flat_and_the_others_do_not():
    flat = torch.tensor([[0.15]]).double(), torch.tensor([[0.0]]).double()
    weights = {
        keep: float(reliability_weight(*flat, FIT, keep=keep, kernel=KERNELS["z2_over_alpha"]))
        for keep in ("or", "and", "onesided")
    }
    assert weights["or"] == 1
    assert weights["and"] < 0.01
    assert weights["onesided"] < 0.01


def test_onesided_is_one_where_and_is_one_and_has_no_jump():
    c = torch.linspace(0.5, 1, 1001).double().unsqueeze(0)
    d = torch.full_like(c, 0.0199)
    one, both = (reliability_weight(c, d, FIT, keep=k, kernel=KERNELS["z2_over_alpha"]) for k in ("onesided", "and"))
    away = (c - 0.8).abs() > 1e-6
    assert torch.equal((one == 1)[away], (both == 1)[away])
    assert one.diff(dim=1).abs().max() < 0.01


def test_a_set_too_small_keeps_what_is_certain():
    small = Gaussians(FIT.center, FIT.scale, torch.tensor([True]))
    c = torch.tensor([[0.5, 0.949, 0.951, 0.99]]).double()
    got = reliability_weight(c, c * 0, small, keep="or", kernel=KERNELS["z2_over_alpha"])
    assert got.tolist() == [[0.0, 0.0, 1.0, 1.0]]

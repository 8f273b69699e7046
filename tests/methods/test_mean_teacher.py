"""Mean Teacher and CutMix-Seg against their formulas, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, build, describe
from sfumato.teacher import Ema
from sfumato.types import Progress, Pseudo, ViewSpec
from tests.given import step
from tests.methods.problems import CLASSIFICATION, Tiny, image_batch

N, C = 12, 5
SPACES = [(), (3, 4)]


def given(space, seed=0):
    draw = torch.Generator().manual_seed(seed)
    weak = torch.randn((N, C, *space), generator=draw, dtype=torch.float64) * 4
    strong = weak + torch.randn(weak.shape, generator=draw, dtype=torch.float64)
    valid = (torch.rand((N, *space), generator=draw) < 0.7).double()
    return weak, strong.requires_grad_(), valid


def by_hand(weak, strong, valid, *, divergence, coverage, all_pixels):
    """The mean by a loop over predictions."""
    rows = [x.movedim(1, -1).reshape(-1, C) for x in (weak, strong)]
    sure, charges = [], []
    for z, s, v in zip(*rows, valid.flatten(), strict=True):
        t, q = z.softmax(0), s.softmax(0)
        if v:
            squares = (q - t).square().sum()
            charge = {"mse": squares / C, "sum_of_squares": squares, "cross_entropy": -(t * q.log()).sum()}[divergence]
            charges.append(charge)
            sure.append(float(coverage is None or t.max() >= coverage))
    mean = torch.stack(charges).sum() / (valid.numel() if all_pixels else len(charges))
    return mean * (sum(sure) / len(sure))


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("normalize", ["valid", "all"])
@pytest.mark.parametrize("coverage", [None, 0.8])
@pytest.mark.parametrize("divergence", ["mse", "sum_of_squares", "cross_entropy"])
def test_loss_and_gradient(space, normalize, coverage, divergence):
    weak, strong, valid = given(space)
    options = {"divergence": divergence, "coverage": coverage, "normalize": normalize, "lambda_u": 3.0}
    method = build("mean_teacher", Facts(C), options).double()
    losses = step(method, weak, strong, valid=valid, progress=Progress(9, 10))
    (got,) = torch.autograd.grad(losses.unsupervised, strong)
    want = 3 * by_hand(weak, strong, valid, divergence=divergence, coverage=coverage, all_pixels=normalize == "all")
    torch.testing.assert_close(losses.unsupervised, want, rtol=1e-9, atol=0)
    torch.testing.assert_close(got, torch.autograd.grad(want, strong)[0], rtol=1e-7, atol=1e-12)
    assert losses.unsupervised > 0.001  # a student compared with itself would have none


def test_the_weight_rises():
    weak, strong, _ = given(())
    slow = build("mean_teacher", Facts(C), {"ramp": 0.5, "rise": "exponential", "lambda_u": 1.0}).double()
    sizes = [step(slow, weak, strong, progress=Progress(k, 11)).unsupervised.item() for k in (0, 2, 5, 10)]
    assert sizes == pytest.approx([math.exp(-5) * sizes[-1], math.exp(-5 * 0.6**2) * sizes[-1], sizes[-1], sizes[-1]])
    method = build("mean_teacher", Facts(C), {"ramp": 0.5}).double()
    sizes = [step(method, weak, strong, progress=Progress(k, 11)).unsupervised.item() for k in (0, 2, 5, 10)]
    assert sizes == pytest.approx([0.0, 0.4 * sizes[-1], sizes[-1], sizes[-1]])
    constant = build("mean_teacher", Facts(C), {"ramp": 0.0}).double()
    assert step(constant, weak, strong).unsupervised.item() == pytest.approx(sizes[-1])


def test_the_usual_weight_goes_with_the_distance():
    weak, strong, _ = given(())
    for divergence, usual in (("mse", 10.0), ("sum_of_squares", 1.0), ("cross_entropy", 1.0)):
        sizes = [
            step(
                build("mean_teacher", Facts(C), {"divergence": divergence, "ramp": 0.0, **more}).double(), weak, strong
            )
            for more in ({}, {"lambda_u": 1.0})
        ]
        assert sizes[0].unsupervised.item() == pytest.approx(usual * sizes[1].unsupervised.item())


def test_the_teacher_labels_by_its_probabilities():
    weak, strong, _ = given((3, 4))
    losses = step(build("mean_teacher", Facts(C)).double(), weak, strong)
    assert torch.equal(losses.pseudo.target, weak.softmax(1))


def test_the_student_sees_another_weak_view_and_on_maps_a_strong_one():
    def views(name, dense, **options):
        return build(name, Facts(C, dense=dense), options).views

    weak, strong = (ViewSpec(teacher="ema", further=kind) for kind in ("weak", "strong"))
    assert views("mean_teacher", False) == weak
    assert views("mean_teacher", True) == strong
    assert views("mean_teacher", False, student_view="strong") == views("cutmix_seg", False) == strong
    assert views("mean_teacher", True, student_view="weak") == weak


def test_the_loss_teaches_the_student_and_not_the_teacher():
    """A peer library gives the student the teacher's logits: its loss is 0 and has no gradient."""
    method = build("mean_teacher", Facts(3), {"ramp": 0.0})
    student = Tiny(3, dense=False)
    nets = Nets(student, Ema(student, momentum=0.9))
    batch = image_batch(CLASSIFICATION, method.views)
    unsupervised = method.loss(nets, batch, Progress(0, 10)).unsupervised
    assert unsupervised > 1e-3
    grads = torch.autograd.grad(unsupervised, list(student.parameters()))
    assert all(grad.abs().sum() > 0 for grad in grads)
    assert not any(parameter.requires_grad for parameter in nets.teacher.parameters())


def test_cutmix_seg_mixes_probabilities_and_weighs_by_coverage():
    weak, strong, valid = given((4, 6))
    partner, region = torch.arange(N).flip(0), torch.zeros(4, 6, dtype=torch.bool)
    region[1:3, 2:5] = True

    def mixed(x):
        return torch.where(region, x[partner], x)

    def warp(pseudo):
        return Pseudo(mixed(pseudo.target), mixed(pseudo.weight), mixed(pseudo.valid))

    method = build("cutmix_seg", Facts(C, dense=True)).double()
    assert describe("cutmix_seg").defaults | {"coverage": None} == describe("mean_teacher").defaults | {
        "divergence": "sum_of_squares",
        "ramp": 0.0,
        "student_view": "strong",
        "normalize": "all",
    }
    losses = step(method, weak, strong, valid=valid, warp=warp)
    t = mixed(weak.softmax(1))
    sure = ((weak.softmax(1).amax(1) >= 0.97) * valid).sum() / valid.sum()
    want = sure * ((strong.softmax(1) - t).square().sum(1) * mixed(valid)).sum() / valid.numel()
    torch.testing.assert_close(losses.unsupervised, want, rtol=1e-9, atol=0)
    assert 0.1 < sure < 0.9


def test_wrong_options_say_what_is_expected():
    with pytest.raises(UsageError, match=r"mean_teacher.divergence='mes': input should be .*Did you mean 'mse'"):
        build("mean_teacher", Facts(C), {"divergence": "mes"})
    with pytest.raises(UsageError, match=r"Coverage\(threshold=97.0\): expected a probability between 0 and 1"):
        build("cutmix_seg", Facts(C), {"coverage": 97})

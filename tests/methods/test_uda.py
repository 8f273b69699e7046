"""UDA against its formulas, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, build
from sfumato.rules import DistributionAlignment
from sfumato.types import Progress
from tests.given import step
from tests.methods.problems import SEGMENTATION, Echo, logits_batch

N, C = 30, 5


def given(seed=0):
    draw = torch.Generator().manual_seed(seed)
    weak, strong, labeled = (torch.randn(N, C, generator=draw, dtype=torch.float64) * 3 for _ in range(3))
    return weak, strong, labeled, torch.randint(C, (N,), generator=draw)


def test_the_temperature_sharpens_the_target():
    weak, strong, *_ = given()
    losses = step(build("uda", Facts(C)).double(), weak, strong)
    sure = (weak.softmax(1).amax(1) >= 0.8).double()
    target = (weak / 0.4).softmax(1)
    want = (sure * -(target * strong.log_softmax(1)).sum(1)).sum() / N
    assert 0 < sure.mean() < 1
    torch.testing.assert_close(losses.unsupervised, want)
    torch.testing.assert_close(losses.pseudo.target, target)
    plain = step(build("uda", Facts(C), {"temperature": 1.0}).double(), weak, strong).unsupervised
    assert (plain - want).abs() > 1e-3  # the peer's loss at any temperature


def test_the_temperature_acts_after_alignment_and_the_threshold_before():
    weak, strong, *_ = given()
    method = build("uda", Facts(C)).double()
    method.refine = DistributionAlignment(C).double()
    pseudo = step(method, weak, strong).pseudo
    aligned = method.refine(weak.softmax(1))
    sharp = aligned ** (1 / 0.4)
    torch.testing.assert_close(pseudo.target, sharp / sharp.sum(1, keepdim=True))
    torch.testing.assert_close(pseudo.weight, (aligned.amax(1) >= 0.8).double())
    assert ((pseudo.target.amax(1) >= 0.8) & (pseudo.weight == 0)).any()


@pytest.mark.parametrize("form", ["paper", "peer"])
def test_learned_labels_stop_counting(form):
    weak, strong, labeled, y = given()
    method = build("uda", Facts(C), {"annealing": "linear", "annealing_form": form}).double()
    got = step(method, weak, strong, labeled=labeled, y=y, progress=Progress(5, 11)).supervised
    p = labeled.softmax(1)
    ce = -p[torch.arange(N), y].log()
    kept = (p[torch.arange(N), y] if form == "paper" else p.amax(1)) <= 0.5 * 0.8 + 0.2
    assert 0 < kept.sum() < N
    torch.testing.assert_close(got, (ce * kept).sum() / (kept.sum() if form == "paper" else N))


def test_labels_that_are_all_learned_cost_nothing():
    weak, strong, *_ = given()
    y = torch.arange(N) % C
    labeled = 30 * torch.nn.functional.one_hot(y, C).double().requires_grad_()
    method = build("uda", Facts(C), {"annealing": "exp"}).double()
    loss = step(method, weak, strong, labeled=labeled, y=y).supervised
    assert loss.item() == 0
    assert torch.autograd.grad(loss, labeled)[0].abs().sum() == 0


def test_labels_of_the_warm_start_are_annealed_too_and_void_ones_stay_out():
    method = build("uda", Facts(C), {"annealing": "linear"})
    batch = replace(logits_batch(SEGMENTATION, method.views, void=0.5), unlabeled=None)
    got = method.loss(Nets(Echo()), batch, Progress(4, 9)).supervised
    labels = batch.labeled
    z, y = labels.x.movedim(1, -1)[labels.valid > 0], labels.y[labels.valid > 0]
    ce = torch.nn.functional.cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(got, ce[ce.neg().exp() <= 0.6].mean())


def test_wrong_options_say_what_is_expected():
    with pytest.raises(UsageError, match=r"uda.annealing='liner': input should be .*Did you mean 'linear'"):
        build("uda", Facts(C), {"annealing": "liner"})
    with pytest.raises(UsageError, match=r"annealing_form='peer'\) needs annealing, such as annealing='linear'"):
        build("uda", Facts(C), {"annealing_form": "peer"})
    with pytest.raises(UsageError, match=r"temperature=0.0\): expected a number above 0"):
        build("uda", Facts(C), {"temperature": 0.0})

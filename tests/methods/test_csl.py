"""CSL: which images go through, what is masked of them, and what each term weighs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.functional.probability import probability
from sfumato.methods import Facts, build
from sfumato.rules import Spectral
from sfumato.types import Output, Progress, ViewSpec
from tests.given import context
from tests.methods.cases import nets_of
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, Echo, flip, logits_batch, with_warps

C = 5


class Recorder(Echo):
    """Writes down every forward: its images, and whether there is a gradient."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, perturb=None):
        self.seen.append((x, torch.is_grad_enabled()))
        return super().forward(x, perturb)


def made(task=SEGMENTATION, layout="split", change=None, **options):
    """The method, a batch, what its networks saw, and the losses."""
    method = build("csl", Facts(C, dense=task.dense), options)
    batch = logits_batch(task, method.views)
    if change is not None:
        batch = change(batch)
    net = Recorder()
    return method, batch, net.seen, method.loss(Nets(net, None, layout), batch, Progress(3, 9))


def expected(p, valid, **options):
    rule = Spectral(**options)
    rule.observe(p, valid, context(p))
    return rule(p)


def test_the_views_it_declares():
    views = build("csl", Facts(C)).views
    assert views == ViewSpec(strong=2, uncut=1, patches=True, feature_dropout=0.5)
    for options in ({"shares": (0.5, 0.5, 0.0)}, {"feature_dropout": 0.0}):
        whole = build("csl", Facts(C), options)
        assert whole.views == replace(views, feature_dropout=0.0)
        assert "feature_dropout" not in made(**options)[3].extras


@pytest.mark.parametrize("layout", ["split", "concat"])
def test_the_weak_view_goes_first_and_once(layout):
    _, batch, seen, _ = made(layout=layout)
    (weak, gradient), (joint, joint_gradient) = seen
    assert torch.equal(weak, batch.unlabeled.weak)
    assert not gradient
    assert joint_gradient
    labeled, dropped, strong, _ = joint.split([len(batch.labeled.x), *[len(weak)] * 3])
    assert torch.equal(labeled, batch.labeled.x)
    assert torch.equal(dropped, weak)
    assert torch.equal(strong, batch.unlabeled.strong[0])


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION], ids=lambda task: task.name)
@pytest.mark.parametrize("polarity", ["mask_reliable", "literal_eq13"])
def test_reliable_patches_are_masked(task, polarity):
    _, batch, seen, losses = made(task, polarity=polarity)
    u = batch.unlabeled
    masked = seen[1][0][-len(u.weak) :]
    trusted = (losses.pseudo.weight == 1) & (u.patches > 0)
    assert 0.05 < trusted.float().mean() < 0.6
    empty = trusted if polarity == "mask_reliable" else ~trusted
    pixels, originals = masked.movedim(1, -1), u.strong[1].movedim(1, -1)
    assert (pixels[empty] == 0).all()
    assert torch.equal(pixels[~empty], originals[~empty])


def test_of_an_image_with_one_label_all_drawn_patches_are_masked():
    method = build("csl", Facts(C), {"shares": (0.5, 0.5, 0.0)})
    batch = logits_batch(CLASSIFICATION, method.views)
    u = batch.unlabeled
    patches = torch.zeros(len(u.weak), 6, 6)
    patches[:, :2] = 1

    class Mean(torch.nn.Module):
        def forward(self, x):
            self.last = x
            return Output(x.mean(dim=(2, 3)) if x.dim() == 4 else x)

    def images(x):
        return x[..., None, None].expand(*x.shape, 6, 6)

    batch = replace(
        batch,
        labeled=replace(batch.labeled, x=images(batch.labeled.x)),
        unlabeled=replace(u, weak=images(u.weak), strong=tuple(map(images, u.strong)), patches=patches),
    )
    net = Mean()
    losses = method.loss(Nets(net), batch, Progress(0, 9))
    masked = net.last[-len(u.weak) :]
    reliable = losses.pseudo.weight == 1
    assert 0 < reliable.sum() < len(reliable)
    assert (masked[reliable][:, :, :2] == 0).all()
    assert torch.equal(masked[reliable][:, :, 2:], images(u.strong[1])[reliable][:, :, 2:])
    assert torch.equal(masked[~reliable], images(u.strong[1])[~reliable])


def test_the_mask_follows_the_geometry_of_its_view():
    _, _, plain, _ = made()
    _, _, turned, _ = made(change=lambda batch: with_warps(batch, flip, lambda x: x.flip(-1)))
    n = len(plain[0][0])
    assert torch.equal(turned[1][0][-n:], plain[1][0][-n:].flip(-1))


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION], ids=lambda task: task.name)
def test_all_terms_by_hand(task):
    _, batch, seen, losses = made(task, shares=(0.25, 0.35, 0.4), lambda_u=2.0)
    u = batch.unlabeled
    p = probability(u.weak)
    weight = expected(p, u.valid)
    torch.testing.assert_close(losses.pseudo.weight, weight)
    assert torch.equal(losses.pseudo.target, p.argmax(dim=1))
    masked = seen[1][0][-len(u.weak) :]
    kept = 2.0 * (u.draw("feature dropout", 1) >= 0.5)  # Echo drops an image whole
    assert 0 < kept.mean() < 2
    dropped = u.weak * kept.reshape(-1, *[1] * (u.weak.dim() - 1))
    terms = [
        (cross_entropy(view, p.argmax(dim=1), reduction="none") * weight * u.valid).sum() / u.valid.sum()
        for view in (u.strong[0], masked, dropped)
    ]
    torch.testing.assert_close(losses.unsupervised, 2 * (0.25 * terms[0] + 0.35 * terms[1]))
    torch.testing.assert_close(losses.extras["feature_dropout"], 2 * 0.4 * terms[2])
    assert losses.supervised > 0


def test_options_reach_the_weights():
    for options in (
        {"split": "pc1", "features": "sqrt", "keep": "onesided", "conf_floor": 0.5},
        {"split": "fixed", "keep": "and", "kernel": "z_over_alpha_sq", "floor": "each"},
    ):
        _, batch, _, losses = made(**options)
        u = batch.unlabeled
        torch.testing.assert_close(losses.pseudo.weight, expected(probability(u.weak), u.valid, **options))


def test_the_robust_one_trusts_no_flat_prediction():
    """A third of the predictions is flat and of low confidence: the released weights keep most of it, these do not."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn((2, C, 30, 30), generator=draw) * 0.05
    logits[:, 0, 10:] += 4 * torch.rand((2, 20, 30), generator=draw)
    p, ones = probability(logits), torch.ones(2, 30, 30)
    weights = {}
    for name in ("csl", "csl_robust"):
        rule = build(name, Facts(C)).weigh
        rule.observe(p, ones, context(p))
        weights[name] = rule(p)[:, :10].mean()
    assert weights["csl"] > 0.7
    assert weights["csl_robust"] == 0


def test_wrong_options_and_batches_are_explained():
    with pytest.raises(
        UsageError, match=r"csl\(shares=\(0.0, 0.0, 0.0\)\): expected three shares, of the strong, masked and dropped"
    ):
        build("csl", Facts(C), {"shares": (0.0, 0.0, 0.0)})
    with pytest.raises(UsageError, match=r"csl\(feature_dropout=1.0\): expected a share of the channels, 0 or more"):
        build("csl", Facts(C), {"feature_dropout": 1.0})
    with pytest.raises(UsageError, match=r"csl.split='abs': input should be 'absV', 'pc1' or 'fixed'"):
        build("csl", Facts(C), {"split": "abs"})
    method = build("csl", Facts(C))
    batch = logits_batch(SEGMENTATION, method.views)
    batch = replace(batch, unlabeled=replace(batch.unlabeled, patches=None))
    with pytest.raises(UsageError, match="declares patches of the last strong view, but the batch"):
        method.loss(nets_of(), batch, Progress(0, 9))

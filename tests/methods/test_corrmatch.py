"""CorrMatch against its formulas in float64, one region after another."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sfumato.errors import UsageError
from sfumato.methods import Facts, build
from sfumato.types import Output, Progress, Pseudo, ViewSpec
from sfumato.views.cutmix import from_boxes
from tests.methods.cases import nets_of
from tests.methods.problems import Echo, Task, Tiny, image_batch, logits_batch, on_images

C, SPACE = 3, (6, 8)
TASK = Task("segmentation", SPACE)
TAU, MOMENTUM, WIDTH, RATE = 0.5, 0.8, 7, 0.75


def made(net, **options):
    given = {"threshold": TAU, "momentum": MOMENTUM, "width": WIDTH, "grid": 5, "feature_dropout": RATE, "regions": 30}
    method = build("corrmatch", Facts(C, dense=True), {**given, **options})
    torch.manual_seed(0)
    method.attach(net)
    for parameter in method.parameters():
        parameter.data *= 4  # maps with something to see
    return method.double()


def boxed(u, n=None):
    """The batch with its strong view mixed, and the mixing."""
    n = n or len(u.weak)
    mix = from_boxes(torch.tensor([[1 + k % 3, 1, 6, 3 + k % 4] for k in range(n)]), SPACE)
    return replace(u, strong=(mix.images(u.strong[0]),), warps=(mix,)), mix


def setting(method, net, seed=0):
    """Networks, and a batch of which some is void, its strong views mixed."""
    batch = on_images(image_batch(TASK, method.views, seed=seed), torch.Tensor.double)
    draw = torch.Generator().manual_seed(seed)
    u, mix = boxed(batch.unlabeled)
    smooth = 1.5 * F.avg_pool2d(u.weak, 3, stride=1, padding=1)  # neighbors are of one class more often
    u = replace(u, weak=smooth, valid=(torch.rand(u.valid.shape, generator=draw) < 0.9).double())
    marked = batch.labeled
    valid = (torch.rand(marked.valid.shape, generator=draw) < 0.8).double()
    labeled = replace(marked, valid=valid, y=marked.y.masked_fill(valid == 0, 255))
    return nets_of(net), replace(batch, labeled=labeled, unlabeled=u), mix


def sized(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def correlated(method, net, x, valid, size=(4, 5)):
    """A, z_corr and where the grid is valid, of images x."""
    own = method.correlation
    there = sized(valid.unsqueeze(1), size) > 0.5
    features, z = net.body(x), sized(net(x).logits.detach(), size)
    y = F.relu(F.conv2d(sized(features, size) * there, own.project.weight, own.project.bias, padding=1))
    f1 = torch.einsum("nchw,dc->ndhw", y, own.queries.weight[:, :, 0, 0]) + own.queries.bias[:, None, None]
    f2 = torch.einsum("nchw,dc->ndhw", y, own.keys.weight[:, :, 0, 0])
    scores = torch.einsum("nci,ncj->nij", f1.flatten(2), f2.flatten(2)) / math.sqrt(C)
    kept = there.flatten(2)  # (N, 1, m)
    a = torch.softmax(scores.masked_fill(~kept, -1e300), dim=2) * kept.transpose(1, 2)
    low = torch.einsum("nci,nij->ncj", z.flatten(2), a).unflatten(2, size)
    share = sized(there.to(low.dtype), SPACE)  # of the valid places in what a pixel is made of
    return a, sized(low, SPACE) / torch.where(share > 0, share, 1.0), there[:, 0]


def grown(a, there, label, sure, valid, place, tau):
    """The growth of one image by row after row of A."""
    before, was, count = label.clone(), sure.clone(), 0
    for k in place.tolist():
        if not there.flatten()[k]:
            continue
        row = sized(a[k].reshape(1, 1, *there.shape), SPACE)[0, 0]
        low, high = row[valid > 0].min(), row[valid > 0].max()
        segment = ((row - low) / (high - low) > 0.5) & (valid > 0)
        votes = before[segment & (was > 0)]
        if not len(votes) / segment.sum() > tau:
            continue
        ruler = votes.mode().values
        if (votes == ruler).sum() / len(votes) > tau:
            label[segment], sure[segment], count = ruler, 1.0, count + 1
    return count


def term(logits, target, weight, valid, divergence=F.cross_entropy):
    return (divergence(logits, target, reduction="none") * weight * valid).sum() / valid.sum()


def kullback(logits, p, reduction):
    return (p * (p.log() - logits.log_softmax(1))).sum(1)


def labels(out, labeled):
    return F.cross_entropy(out, labeled.y.masked_fill(labeled.valid == 0, -100), ignore_index=-100)


def expected(method, net, batch, mix, options):
    """All terms, unweighted, the pseudo-label, and tau."""
    u, marked = batch.unlabeled, batch.labeled
    p = net(u.weak).logits.detach().softmax(1)
    q, label = p.max(1)
    peaks = [q[(label == c) & (u.valid > 0)].max() for c in range(C) if ((label == c) & (u.valid > 0)).any()]
    tau = MOMENTUM * TAU + (1 - MOMENTUM) * sum(peaks) / len(peaks)
    plain = (q >= tau).double()
    sure = plain.clone()
    a, z_weak, there = correlated(method, net, u.weak, u.valid)
    place = (u.draw("regions", 30) * 20).long()
    count = 0
    for n in range(len(p)):
        count += grown(a[n].detach(), there[n], label[n], sure[n], u.valid[n], place[n], tau)
    assert count > 10
    assert 0.02 < (sure - plain).mean() < 0.9
    assert 0.1 < plain.mean() < 0.95

    strong = net(u.strong[0]).logits
    target, weight, valid = mix.maps(label), mix.maps(sure), mix.maps(u.valid)
    _, z_strong, _ = correlated(method, net, u.strong[0], valid)
    kept = (u.draw("feature dropout", 8) >= RATE).double() / (1 - RATE)
    dropped = net.head(net.body(u.weak) * kept[:, :, None, None])
    if options.get("kl") == "released":
        soft = term(strong, p, plain, u.valid, kullback)
    else:
        soft = term(strong, mix.images(p), mix.maps(plain), valid, kullback)
    seen = [marked.x] if marked.strong is None else [marked.x, marked.strong]
    supervised = [labels(net(x).logits, marked) for x in seen]
    supervised += [labels(correlated(method, net, x, marked.valid)[1], marked) for x in seen]
    spread = (term(z_weak, label, sure, u.valid) + term(z_strong, target, weight, valid)) / 2
    terms = (term(strong, target, weight, valid), soft, term(dropped, label, sure, u.valid), spread)
    return sum(supervised) / len(supervised), terms, (label, sure), tau


@pytest.mark.parametrize(
    "options",
    [{}, {"kl": "released"}, {"shares": (0.5, 0.1, 0.2, 0.7), "labeled_strong": True}, {"halve": False}],
    ids=str,
)
@pytest.mark.parametrize("seed", range(2))
def test_the_loss_is_that_of_the_formulas(options, seed):
    net = Tiny(C, dense=True).double()
    method = made(net, **options)
    nets, batch, mix = setting(method, net, seed)
    losses = method.loss(nets, batch, Progress(3, 9))
    supervised, terms, (label, sure), tau = expected(method, net, batch, mix, options)

    half, shares = (1.0 if options.get("halve") is False else 0.5), options.get("shares", (0.25,) * 4)
    hard, soft, dropped, spread = (half * share * one for share, one in zip(shares, terms, strict=True))
    close = {"rtol": 1e-8, "atol": 0}
    torch.testing.assert_close(method.weigh.level.value, tau, rtol=1e-7, atol=0)
    kept = batch.unlabeled.valid > 0
    assert torch.equal(losses.pseudo.target[kept], label[kept])
    assert torch.equal(losses.pseudo.weight[kept], sure[kept])
    torch.testing.assert_close(losses.supervised, half * supervised, **close)
    torch.testing.assert_close(losses.unsupervised, hard + soft, **close)
    torch.testing.assert_close(losses.extras["feature_dropout"], dropped, **close)
    torch.testing.assert_close(losses.extras["correlation"], spread, **close)
    trained = [net.head.weight, net.body[0].weight, *method.parameters()]
    want = torch.autograd.grad(half * supervised + hard + soft + dropped + spread, trained)
    for got, one in zip(torch.autograd.grad(losses.total, trained), want, strict=True):
        torch.testing.assert_close(got, one, rtol=1e-7, atol=1e-12)


def echoed(**options):
    """The KL alone of a network that says of a mixed image just what it says of the images in it."""
    method = build(
        "corrmatch",
        Facts(5, dense=True),
        {"threshold": 0.0, "shares": (0.0, 1.0, 0.0, 0.0), **options},
    )
    net = Echo()
    method.attach(net)
    batch = logits_batch(TASK, method.views)
    u, _ = boxed(replace(batch.unlabeled, strong=(batch.unlabeled.weak,)))
    return method.loss(nets_of(net), replace(batch, unlabeled=u), Progress(3, 9)).unsupervised.item()


def test_the_divergence_compares_the_same_images_unless_told_otherwise():
    assert echoed() == pytest.approx(0.0, abs=1e-6)
    with pytest.warns(UserWarning, match=r"corrmatch\(kl='released'\) compares .* of different images\. 'mixed' mixes"):
        released = echoed(kl="released")
    assert released > 0.001


def test_the_threshold_learns_from_the_places_that_are_valid_before_mixing():
    """The first image is surest where it is void, and the second is valid there: after mixing it would count."""
    net = Echo(classes=2)
    method = build("corrmatch", Facts(2, dense=True), {"threshold": 0.5, "momentum": 0.0})
    method.attach(net)
    batch = logits_batch(TASK, method.views, classes=2, unlabeled=2)
    weak = torch.zeros(2, 2, *SPACE)
    weak[:, 0] = 1.0
    weak[0, 0, 1:3, 1:6] = 20.0
    valid = torch.ones(2, *SPACE)
    valid[0, 1:3, 1:6] = 0
    mix = from_boxes(torch.tensor([[1, 1, 6, 3]] * 2), SPACE)
    u = replace(batch.unlabeled, weak=weak, strong=(mix.images(weak),), valid=valid, warps=(mix,))
    method.loss(nets_of(net), replace(batch, unlabeled=u), Progress(3, 9))
    assert float(method.weigh.level.value) == pytest.approx(1 / (1 + math.exp(-1)))


def test_defaults_are_those_of_the_release():
    method = build("corrmatch", Facts(4, dense=True))
    assert method.views == ViewSpec(strong=1, feature_dropout=0.5, weak_gradient=True)
    assert (method.shares, method.scale, method.regions, method.normalize) == ((0.25,) * 4, 0.5, 128, "valid")
    assert method.weigh.level.value == pytest.approx(0.85)
    assert method.weigh.level.momentum == 0.999
    for options in ({"shares": (0.25, 0.25, 0.0, 0.25)}, {"feature_dropout": 0.0}):
        method = build("corrmatch", Facts(4, dense=True), options)
        assert method.views.feature_dropout == 0
        assert method.dropped is None


def test_a_correlation_is_no_larger_than_the_grid():
    method = build("corrmatch", Facts(C, dense=True), {"width": 4})
    method.attach(Tiny(C, dense=True))
    out = Output(torch.randn(1, C, 90, 170), torch.randn(1, 8, 60, 120))
    found = method.correlation(out, torch.ones(1, 90, 170))
    assert found.a.shape[1] <= 41**2
    assert found.valid.shape == (1, 28, 57)
    assert found.output.logits.shape == out.logits.shape


def test_places_that_are_not_valid_lend_nothing_to_pixels_beside_them():
    """Where all places are alike, each says the mean of the valid ones, and so does every pixel near one."""
    method = made(Tiny(C, dense=True))
    method.correlation.queries.weight.data.zero_()
    method.correlation.queries.bias.data.zero_()
    draw = torch.Generator().manual_seed(0)
    logits, features = (torch.randn(shape, generator=draw).double() for shape in ((1, C, 17, 21), (1, 8, 5, 5)))
    valid = torch.ones(1, 17, 21).double()
    valid[:, :, :9] = 0
    valid[:, 7:10, 14:17] = 0
    found = method.correlation(Output(logits, features), valid)
    mean = sized(logits, (5, 5))[..., found.valid[0] > 0].mean(dim=2)
    said = found.output.logits[..., valid[0] > 0]
    assert 0 < found.valid.sum() < 25
    torch.testing.assert_close(said, mean.unsqueeze(2).expand_as(said))


def test_labels_of_whole_images_are_refused():
    with pytest.raises(UsageError) as error:
        build("corrmatch", Facts(3))
    assert str(error.value) == (
        "corrmatch is for images with masks only: it spreads labels between the places of an image, and the label of a "
        "whole image has none. Take unimatch, of which it is a refinement."
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"grid": 0}, r"corrmatch\(grid=0\): expected a number of at least 1"),
        ({"width": -1}, r"corrmatch\(width=-1\): expected a number of at least 1"),
        ({"regions": 0}, r"corrmatch\(regions=0\): expected a number of rows to draw, at least 1"),
        ({"shares": (1, 1, 1, -1)}, r"corrmatch\(shares=\(1.0, 1.0, 1.0, -1.0\)\): expected four shares"),
        ({"feature_dropout": 1.0}, r"corrmatch\(feature_dropout=1.0\): expected a share of the channels"),
        ({"threshold": 85}, r"\(threshold=85.0\): expected a probability"),
        ({"kl": "none"}, r"corrmatch.kl='none': input should be 'mixed' or 'released'"),
    ],
    ids=str,
)
def test_options_out_of_range_say_what_is_expected(options, text):
    with pytest.raises(UsageError, match=text):
        build("corrmatch", Facts(3, dense=True), options)


def test_features_must_be_maps():
    method = made(Tiny(C, dense=True))
    pseudo = Pseudo(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    with pytest.raises(UsageError, match="corrmatch needs maps of features"):
        method.correlation(Output(torch.zeros(1, C, 2, 2)), pseudo.valid)

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sfumato.addons import join
from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.functional.mix import beta_quantile
from sfumato.methods import Facts, build
from sfumato.types import Output, Progress
from tests.methods.cases import assert_same, nets_of, state, values
from tests.methods.problems import CLASSIFICATION, LABELED, SAMPLES, Echo, logits_batch, on_images

C, UNLABELED = 5, 24
FACTS = Facts(C, SAMPLES, num_labeled=LABELED, label_counts=(2,) * C)
LATE, EARLY = Progress(6, 8), Progress(0, 8)
METHODS = ("supervised", "fixmatch", "flexmatch", "freematch", "softmatch", "uncertainty_weighted")


def made(name="fixmatch", addon="calibratemix", **options):
    method = build(name, FACTS)
    join(addon, method, FACTS, options, method_name=name)
    return method


def batches(method, count=3):
    return [logits_batch(CLASSIFICATION, method.views, seed=seed, void=0.0) for seed in range(count)]


class Watched(Nets):
    """Keeps the images of every further forward."""

    def further(self, x, *, statistics=True):
        self.student.seen = [*getattr(self.student, "seen", []), (x, statistics)]
        return super().further(x, statistics=statistics)


def watched():
    nets = nets_of(Echo())
    return Watched(nets.student, nets.teacher)


def run(method, *, progress=LATE, count=3):
    """The losses of the last of some steps, its batch and the images that were mixed in it."""
    nets = watched()
    for batch in batches(method, count):
        losses = method.loss(nets, batch, progress)
    return losses, batch, nets.student.seen[-1][0]


def margin(row, c):
    return row[c] - max(z for j, z in enumerate(row) if j != c)


def halves(scores):
    """Which are hard, by sorting."""
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    return [i in order[: len(scores) // 2] for i in range(len(scores))]


class Remembered:
    """Sums and counts in dictionaries."""

    def __init__(self):
        self.sums, self.counts = {}, {}

    def add(self, key, value):
        self.sums[key] = self.sums.get(key, 0.0) + value
        self.counts[key] = self.counts.get(key, 0) + 1

    def mean(self, key):
        return self.sums[key] / self.counts[key]


def test_a_step_is_what_loops_make_of_it():
    method, aum, apm = made(), Remembered(), Remembered()
    losses, last, images = run(method)
    for batch in batches(method):
        for i, row, y in zip(
            batch.labeled.index.tolist(), batch.labeled.x.tolist(), batch.labeled.y.tolist(), strict=True
        ):
            aum.add(i, margin(row, y))
        for i, row in zip(batch.unlabeled.index.tolist(), batch.unlabeled.weak.tolist(), strict=True):
            for c in range(C):
                apm.add((i, c), margin(row, c))
    b, u = last.labeled, last.unlabeled
    labels = u.weak.argmax(dim=1).tolist()
    hard = halves([aum.mean(i) for i in b.index.tolist()])
    theirs = halves([apm.mean((i, c)) for i, c in zip(u.index.tolist(), labels, strict=True)])
    draw, want = b.draw("calibratemix", 3), []
    for i in range(LABELED):
        pool = [j for j in range(UNLABELED) if theirs[j] != hard[i]]
        pool.sort(key=lambda j: F.cosine_similarity(b.x[i], u.weak[j], dim=0).item())
        k = math.ceil(0.05 * len(pool))
        j = pool[int(draw[i, 0] * k)]
        s = beta_quantile(draw[i, 1], 0.4)
        torch.testing.assert_close(images[i], s * b.x[i] + (1 - s) * u.weak[j])
        log_q = images[i].log_softmax(dim=0)
        want.append(-s * log_q[b.y[i]] - (1 - s) * log_q[labels[j]])
    torch.testing.assert_close(losses.extras["calibratemix"].detach(), torch.stack(want).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_losses_of_the_method_stay_as_they_are(name):
    method, plain = made(name), build(name, FACTS)
    for batch in batches(method):
        with_it, without = method.loss(watched(), batch, LATE), plain.loss(watched(), batch, LATE)
        extra = with_it.extras["calibratemix"]
        assert extra > 0
        assert torch.equal(with_it.supervised, without.supervised)
        assert torch.equal(with_it.unsupervised, without.unsupervised)
        torch.testing.assert_close(with_it.total, without.total + extra)


def test_no_gradient_reaches_the_parts_of_a_mixed_image():
    method = made()
    batch = on_images(batches(method, 1)[0], lambda x: x.clone().requires_grad_())
    nets = watched()
    extra = method.loss(nets, batch, LATE).extras["calibratemix"]
    parts = torch.autograd.grad(extra, [batch.labeled.x, batch.unlabeled.weak, nets.student.gain], allow_unused=True)
    assert parts[:2] == (None, None)
    assert parts[2] != 0


def test_mixed_images_go_through_the_student_in_training_and_move_its_statistics():
    class Normed(nn.Module):
        num_features = C

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(C)

        def forward(self, x):
            return Output(self.norm(x), x)

    method, plain = made(), build("fixmatch", FACTS)
    (batch,) = batches(method, 1)
    counts = []
    for one in (method, plain):
        net = Normed().train()
        losses = one.loss(Nets(net), batch, LATE)
        counts.append(net.norm.num_batches_tracked.item())
        losses.total.backward()
        assert net.norm.weight.grad.abs().sum() > 0
    assert counts[0] == counts[1] + 1


def test_nothing_is_mixed_in_the_warmup_but_margins_are_remembered():
    method = made(warmup=0.5)
    (batch,) = batches(method, 1)
    nets = watched()
    losses = method.loss(nets, batch, EARLY)
    assert losses.extras["calibratemix"] == 0
    assert not hasattr(nets.student, "seen")
    (extra,) = method.extras
    assert extra.aum.seen(batch.labeled.index).eq(1).all()
    assert extra.apm.seen(batch.unlabeled.index).eq(1).all()
    assert method.loss(nets, batch, Progress(4, 8)).extras["calibratemix"] > 0


def test_released_the_apm_sleeps_in_the_warmup_and_the_aum_does_not():
    method = made(warmup=0.5, apm_in_warmup=False)
    (batch,) = batches(method, 1)
    method.loss(watched(), batch, EARLY)
    (extra,) = method.extras
    assert extra.aum.seen(batch.labeled.index).eq(1).all()
    assert not extra.apm.visits.any()
    method.loss(watched(), batch, LATE)
    assert extra.apm.seen(batch.unlabeled.index).eq(1).all()


@pytest.mark.parametrize("decay", ["mean", "eq5", "ema"])
def test_the_apm_decays_as_asked_and_the_aum_is_the_mean(decay):
    method = made(apm_decay=decay)
    run(method)
    (extra,) = method.extras
    assert (extra.apm.decay, extra.aum.decay) == (decay, "mean")
    assert (extra.apm.delta, extra.apm.momentum) == (0.997, 0.99)


def shares(**options):
    """s of every image of a step, from the image itself, and whether the labeled image is hard."""
    method = made(**options)
    (extra,), found = method.extras, {}
    partners = extra.partners
    extra.partners = lambda *args: found.setdefault("partners", partners(*args))
    (batch,) = batches(method, 1)
    nets = watched()
    method.loss(nets, batch, LATE)
    x, other = batch.labeled.x, batch.unlabeled.weak[found["partners"].place]
    share = ((nets.student.seen[0][0] - other) * (x - other)).sum(dim=1) / (x - other).square().sum(dim=1)
    return share, found["partners"].hard, batch.labeled.draw("calibratemix", 3)


def test_shares():
    share, hard, draw = shares()
    torch.testing.assert_close(share, beta_quantile(draw[:, 1], 0.4), rtol=0, atol=1e-4)
    assert len(share.round(decimals=4).unique()) == LABELED
    torch.testing.assert_close(shares(share="beta_max")[0], torch.maximum(share, 1 - share), rtol=0, atol=1e-4)
    torch.testing.assert_close(shares(share="fixed")[0], torch.full((LABELED,), 0.4), rtol=0, atol=1e-4)
    torch.testing.assert_close(shares(gamma=2.0)[0], beta_quantile(draw[:, 1], 2.0), rtol=0, atol=1e-4)
    grouped = shares(share="beta_group")[0]
    sums = [draw[:, k].double().sum() % 1 for k in (1, 2)]
    want = beta_quantile(torch.where(hard, sums[0], sums[1]), 0.4)
    torch.testing.assert_close(grouped.double(), want, rtol=0, atol=1e-4)


def test_the_share_of_a_group_is_beta_distributed():
    """A sum of uniform numbers modulo 1 is uniform: not more often in the middle."""
    draw = torch.rand((4000, 8), generator=torch.Generator().manual_seed(0)).double()
    counts = torch.histc(draw.sum(dim=1) % 1, bins=10, min=0, max=1)
    assert (counts - 400).abs().max() < 80


def chosen(name="fixmatch", **options):
    """The partners of every labeled image over all numbers that could be drawn, and who would be allowed."""
    method = made(name, **options)
    (extra,), asked = method.extras, []
    partners = extra.partners
    extra.partners = lambda *args: asked.append(args[:3]) or partners(*args)
    _, batch, _ = run(method)
    found = [partners(*asked[-1], torch.full((LABELED,), (k + 0.5) / 200)) for k in range(200)]
    hard, pool = found[0].hard, asked[-1][2]
    assert hard.tolist() == halves(extra.aum.at(batch.labeled.index).tolist())
    assert all(torch.equal(one.hard, hard) for one in found)
    return [{int(one.place[i]) for one in found} for i in range(LABELED)], hard, pool, extra, batch


@pytest.mark.parametrize(
    ("options", "k"),
    [({}, 1), ({"percent": 30.0}, 4), ({"count": 5}, 5), ({"count": 100}, 12), ({"percent": 100.0}, 12)],
)
def test_partners_are_the_k_least_similar_of_the_other_kind(options, k):
    places, hard, pool, extra, batch = chosen(**options)
    score = extra.apm.at(pool.index).gather(1, pool.y.unsqueeze(1)).squeeze(1)
    theirs = torch.tensor(halves(score.tolist()))
    for i, reached in enumerate(places):
        pool_of_i = [j for j in range(UNLABELED) if theirs[j] != hard[i]]
        cosine = F.cosine_similarity(batch.labeled.x[i : i + 1], batch.unlabeled.weak)
        assert reached == set(sorted(pool_of_i, key=lambda j, cosine=cosine: cosine[j].item())[:k])


def test_without_similarity_any_of_the_other_kind_will_do():
    places, hard, pool, extra, _ = chosen(similarity="none")
    score = extra.apm.at(pool.index).gather(1, pool.y.unsqueeze(1)).squeeze(1)
    theirs = torch.tensor(halves(score.tolist()))
    for i, reached in enumerate(places):
        assert reached == {j for j in range(UNLABELED) if theirs[j] != hard[i]}


def test_features_or_pixels():
    class Turned(Echo):
        """Features that are not the pixels."""

        def forward(self, x, perturb=None):
            out = super().forward(x)
            return Output(out.logits, out.features.flip(1).square())

    images = []
    for similarity in ("feature", "pixel"):
        method, student = made(similarity=similarity), Turned()
        nets = Watched(student, nets_of(student).teacher)
        (batch,) = batches(method, 1)
        method.loss(nets, batch, LATE)
        images.append(student.seen[0][0])
    assert not torch.equal(*images)


def test_labels_only_mixes_easy_with_hard_labeled_images():
    places, hard, pool, extra, batch = chosen("supervised", percent=100.0)
    assert extra.apm is None
    assert torch.equal(pool.x, batch.labeled.x)
    for i, reached in enumerate(places):
        assert reached == {j for j in range(LABELED) if hard[j] != hard[i]}


def test_released_loss_is_a_yes_or_no_for_each_class_and_the_sum_of_both_groups():
    many = {}
    for mix_loss in ("ce", "bce_released"):
        losses, batch, images = run(made(mix_loss=mix_loss, share="fixed", gamma=1.0))
        many[mix_loss] = losses.extras["calibratemix"].detach()
    torch.testing.assert_close(many["ce"], F.cross_entropy(images, batch.labeled.y))
    one_hot = F.one_hot(batch.labeled.y, C).float()
    charge = F.binary_cross_entropy_with_logits(images, one_hot, reduction="none").mean(dim=1)
    hard = shares_hard(batch)
    torch.testing.assert_close(many["bce_released"], charge[hard].mean() + charge[~hard].mean())


def shares_hard(batch):
    method = made()
    run(method)
    (extra,) = method.extras
    return torch.tensor(halves(extra.aum.at(batch.labeled.index).tolist()))


def test_pairs_may_count_by_the_weight_of_their_pseudo_label():
    nothing = logits_batch(CLASSIFICATION, build("fixmatch", FACTS).views, void=0.0, predicts=lambda z: z * 1e-3)
    for mask, least in ((False, 1.0), (True, 0.0)):
        losses = made(mask_mixed_pseudo=mask).loss(watched(), nothing, LATE)
        assert not losses.pseudo.weight.any()
        extra = losses.extras["calibratemix"].item()
        assert extra >= least
        assert mask == (extra == 0)


def test_released_base_counts_twice_after_the_warmup():
    doubled, plain = made(double_base_released=True), made()
    for progress, factor in ((EARLY, 1), (LATE, 2)):
        (batch,) = batches(plain, 1)
        a, b = (values(method.loss(watched(), batch, progress)) for method in (doubled, plain))
        torch.testing.assert_close(a["supervised"], factor * b["supervised"])
        torch.testing.assert_close(a["unsupervised"], factor * b["unsupervised"])
        torch.testing.assert_close(a["calibratemix"], b["calibratemix"])


@pytest.mark.parametrize("progress", [EARLY, LATE])
def test_labels_alone_are_remembered_and_not_mixed(progress):
    """Partners are unlabeled images; the margins of these have no place for a labeled one."""
    method = made()
    (batch,), nets = batches(method, 1), watched()
    losses = method.loss(nets, replace(batch, unlabeled=None), progress)
    assert losses.extras["calibratemix"] == 0
    assert not hasattr(nets.student, "seen")
    rule = method.extras[-1]
    assert (rule.aum.at(batch.labeled.index) != 0).any()
    assert rule.apm.visits.sum() == 0


def test_the_weight_of_the_loss():
    torch.testing.assert_close(
        run(made(lambda_mix=0.5))[0].extras["calibratemix"], 0.5 * run(made())[0].extras["calibratemix"]
    )


def test_where_the_memory_lies_changes_nothing():
    plain, mapped = made(), made(memory="mapped")
    for method in (plain, mapped):
        run(method)
    assert_same(state(mapped), state(plain))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"share": "beta"}, "calibratemix.share='beta': input should be 'beta_pair'"),
        ({"gamma": 0.0}, "mixing(gamma=0.0): expected a number above 0, such as 0.4"),
        ({"gamma": 1.5, "share": "fixed"}, "and at most 1 with share='fixed'"),
        ({"warmup": 2.0}, "mixing(warmup=2.0): expected a share of training between 0 and 1"),
        ({"percent": 0.0}, "GuidedMixup(percent=0.0): expected above 0 and at most 100"),
        ({"count": 0}, "GuidedMixup(count=0): expected at least 1 partner"),
    ],
)
def test_messages(options, text):
    with pytest.raises(UsageError, match=re.escape(text)):
        made(**options)


def test_refusals():
    dense = Facts(C, SAMPLES, dense=True, num_labeled=LABELED, label_counts=(2,) * C)
    with pytest.raises(UsageError, match="calibratemix is for one class per image only: it remembers margins of every"):
        join("calibratemix", build("fixmatch", dense), dense)
    with pytest.raises(UsageError, match="random_mixup is for one class per image only: a mixed image has two classes"):
        join("random_mixup", build("fixmatch", dense), dense)
    for name in ("supervised", "comatch", "marginmatch"):
        with pytest.raises(
            UsageError, match=r"double_base_released=True\): it doubles .* by the scale of the method, and"
        ):
            made(name, double_base_released=True)


def test_a_network_without_features_is_refused():
    class Bare(Echo):
        def forward(self, x, perturb=None):
            return Output(super().forward(x).logits)

    (batch,) = batches(made(), 1)
    with pytest.raises(UsageError, match="calibratemix needs a network that gives features beside its logits"):
        made().loss(nets_of(Bare()), batch, LATE)
    assert made(similarity="pixel").loss(nets_of(Bare()), batch, LATE).extras["calibratemix"] > 0


@pytest.mark.parametrize("name", ["supervised", "fixmatch"])
def test_random_partners_are_any(name):
    method = made(name, "random_mixup")
    (batch,) = batches(method, 1)
    (extra,), reached = method.extras, set()
    partners = extra.partners

    def every(views, labeled, pool, uniform):
        for k in range(200):
            reached.update(partners(views, labeled, pool, torch.full_like(uniform, (k + 0.5) / 200)).place.tolist())
        return partners(views, labeled, pool, uniform)

    extra.partners = every
    losses = method.loss(watched(), batch, LATE)
    assert losses.extras["random_mixup"] > 0
    assert reached == set(range(LABELED if name == "supervised" else UNLABELED))


def test_smoothed_labels_are_those_of_the_labeled_loss_alone():
    method, plain = made(addon="label_smoothing", smoothing=0.2), build("fixmatch", FACTS)
    (batch,) = batches(method, 1)
    a, b = method.loss(nets_of(), batch, LATE), plain.loss(nets_of(), batch, LATE)
    target = torch.full((LABELED, C), 0.2 / (C - 1)).scatter_(1, batch.labeled.y.unsqueeze(1), 0.8)
    torch.testing.assert_close(a.supervised.detach(), F.cross_entropy(batch.labeled.x, target))
    assert torch.equal(a.unsupervised, b.unsupervised)

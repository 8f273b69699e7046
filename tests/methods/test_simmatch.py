"""SimMatch against its equations, in float64 and by loops over samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.methods import Facts, build
from sfumato.methods.simmatch import SimMatch
from sfumato.types import Progress
from tests.methods.cases import nets_of
from tests.methods.problems import CLASSIFICATION, LABELED, Echo, logits_batch, on_images

C, T, ALPHA, TAU = 4, 0.3, 0.7, 0.6
OPTIONS = {"temperature": T, "alpha": ALPHA, "threshold": TAU, "lambda_in": 0.5}


def method(**options) -> SimMatch:
    made = build("simmatch", Facts(C, num_labeled=LABELED), {**OPTIONS, **options})
    torch.manual_seed(0)
    made.attach(Echo(classes=C))
    return made.double()


def batches(count):
    """Labeled sample 1 comes twice and one of the last ones never."""
    given = []
    for k in range(count):
        batch = logits_batch(CLASSIFICATION, method().views, seed=k, classes=C, void=0.0)
        index = batch.labeled.index.clone()
        index[3 + k] = 1
        y = torch.arange(LABELED)[index] % C
        given.append(on_images(replace(batch, labeled=replace(batch.labeled, index=index, y=y)), torch.Tensor.double))
    return given


def run(one, given, nets=None):
    nets = nets or nets_of(Echo(classes=C).double())
    return [one.loss(nets, batch, Progress(k, 10)) for k, batch in enumerate(given)]


def length_one(h):
    return h / h.norm(dim=-1, keepdim=True)


def embedded(one, logits):
    return length_one(one.projection(logits)).detach()


class Reference:
    """The paper's equations; the bank is a dictionary from labeled samples to rows."""

    def __init__(self, one):
        self.one, self.bank, self.means = one, {}, []

    def similar(self, h):
        e = {k: math.exp(float(h @ m) / T) for k, m in self.bank.items()}
        return {k: value / sum(e.values()) for k, value in e.items()}

    def said(self, p, h):
        a = self.similar(h)
        spread = {k: a[k] * float(p[k % C]) for k in a}
        spread = {k: value / sum(spread.values()) for k, value in spread.items()}
        shares = torch.tensor([sum(a[k] for k in a if k % C == c) for c in range(C)], dtype=torch.float64)
        return spread, ALPHA * p + (1 - ALPHA) * shares

    def step(self, batch):
        u, labeled = batch.unlabeled, batch.labeled
        p = u.weak.softmax(1)
        self.means.append(p.mean(0))
        p = p * (1 / C + 1e-6) / (torch.stack(self.means).mean(0) + 1e-6)
        p = p / p.sum(1, keepdim=True)
        instances, q = 0.0, p
        if self.bank:
            weak, strong = embedded(self.one, u.weak), embedded(self.one, u.strong[0])
            rows = []
            for n in range(len(p)):
                spread, mixed = self.said(p[n], weak[n])
                seen = self.similar(strong[n])
                instances -= sum(spread[k] * math.log(seen[k]) for k in seen) / len(p)
                rows.append(mixed)
            q = torch.stack(rows)
        self.visit(labeled)
        kept = (q.amax(1) >= TAU).double()
        return q, kept, -(kept * (q * u.strong[0].log_softmax(1)).sum(1)).mean(), 0.5 * instances

    def visit(self, labeled):
        h = embedded(self.one, labeled.x)
        for k in labeled.index.unique().tolist():
            mine = length_one(h[labeled.index == k].mean(0))
            self.bank[k] = length_one(0.7 * self.bank[k] + 0.3 * mine) if k in self.bank else mine


def test_three_steps_against_the_equations():
    one, given = method(), batches(3)
    reference = Reference(one)
    for losses, batch in zip(run(one, given), given, strict=True):
        q, kept, unsupervised, instances = reference.step(batch)
        assert 0 < kept.sum() < len(kept)
        torch.testing.assert_close(losses.pseudo.target, q)
        assert torch.equal(losses.pseudo.weight, kept)
        torch.testing.assert_close(losses.unsupervised, unsupervised)
        torch.testing.assert_close(losses.extras["instances"].item(), instances)
    for k, row in reference.bank.items():
        torch.testing.assert_close(one.bank.rows[k], row)
    assert one.bank.filled.sum() == len(reference.bank)


def test_rows_have_length_one_each():
    """Normalized over the features: the peer does so over the samples, and no row of its bank has length 1."""
    one = method()
    run(one, batches(3))
    filled = one.bank.filled[:-1]
    torch.testing.assert_close(one.bank.rows[filled].norm(dim=1), torch.ones(int(filled.sum()), dtype=torch.float64))


def test_the_bank_moves_last():
    """Labeled images of a step do not say anything of its pseudo-labels, and instances have no row in the first one."""
    plain, other = method(), method()
    (batch,) = batches(1)
    changed = replace(batch, labeled=replace(batch.labeled, x=-batch.labeled.x))
    first, second = run(plain, [batch])[0], run(other, [changed])[0]
    assert torch.equal(first.pseudo.target, second.pseudo.target)
    assert first.extras["instances"] == second.extras["instances"] == 0
    assert not torch.equal(plain.bank.rows, other.bank.rows)


def test_gradient_flows_through_the_strong_view_alone():
    one, given = method(), batches(2)
    run(one, given[:1])
    batch = on_images(given[1], lambda x: x.clone().requires_grad_())
    instances = run(one, [batch])[0].extras["instances"]
    views = [*batch.unlabeled.strong, batch.unlabeled.weak, batch.labeled.x]
    strong, *others = torch.autograd.grad(instances, views, allow_unused=True)
    assert strong.abs().sum() > 0
    assert all(grad is None or grad.abs().sum() == 0 for grad in others)


def test_the_averaged_encoder_makes_pseudo_labels_and_the_bank():
    one = method(encoder="average")
    nets = nets_of(Echo(classes=C).double())
    with torch.no_grad():
        nets.teacher.module.gain.fill_(0.25)
    (batch,) = batches(1)
    (losses,) = run(one, [batch], nets)
    losses.total.backward()
    p = (0.25 * batch.unlabeled.weak).softmax(1)
    q = p / (p.mean(0) + 1e-6)
    torch.testing.assert_close(losses.pseudo.target, q / q.sum(1, keepdim=True))
    h = length_one(one.projection.average(0.25 * batch.labeled.x))
    torch.testing.assert_close(one.bank.rows[0], h[0])
    assert all(parameter.grad is None for parameter in one.projection.averaged.parameters())


def test_no_maps_and_no_bank_without_labels():
    with pytest.raises(
        UsageError, match="simmatch is for one class per image only: it keeps a feature of each labeled"
    ):
        build("simmatch", Facts(3, dense=True, num_labeled=4))
    with pytest.raises(UsageError, match=r"simmatch\(num_labeled=0\): expected the size of the labeled set"):
        build("simmatch", Facts(3))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": -0.1}, r"simmatch\(alpha=-0.1\): expected a share between 0 and 1"),
        ({"temperature": -1}, r"simmatch\(temperature=-1.0\): expected a number above 0"),
        ({"momentum": 1.0}, r"momentum=1.0: expected at least 0 and below 1"),
    ],
)
def test_numbers_out_of_range(options, text):
    with pytest.raises(UsageError, match=text):
        build("simmatch", Facts(3, num_labeled=2), options)

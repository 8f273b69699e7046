"""CoMatch against its equations, in float64 and by loops over samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.methods import Facts, build
from sfumato.methods.comatch import CoMatch
from sfumato.types import Progress
from tests.methods.cases import nets_of
from tests.methods.problems import CLASSIFICATION, Echo, logits_batch, on_images

C, T, ALPHA, GRAPH, TAU = 4, 0.2, 0.7, 0.5, 0.6
OPTIONS = {"temperature": T, "alpha": ALPHA, "graph_threshold": GRAPH, "threshold": TAU, "lambda_contrast": 0.5}


def method(**options) -> CoMatch:
    made = build("comatch", Facts(C), {**OPTIONS, **options})
    torch.manual_seed(0)
    made.attach(Echo(classes=C))
    return made.double()


def batches(count, **about):
    made = [logits_batch(CLASSIFICATION, method().views, seed=k, classes=C, void=0.0, **about) for k in range(count)]
    return [on_images(batch, torch.Tensor.double) for batch in made]


def run(one, given):
    nets = nets_of(Echo(classes=C).double())
    return [one.loss(nets, batch, Progress(k, 10)) for k, batch in enumerate(given)]


def embedded(one, logits):
    h = one.projection(logits)
    return (h / h.norm(dim=1, keepdim=True)).detach()


class Reference:
    """The paper's equations; the memory is a list of (h, p), newest last, and alignment a list of batch means."""

    def __init__(self, one):
        self.one, self.rows, self.means = one, [], []

    def smoothed(self, p, h):
        if not self.rows:
            return p
        out = []
        for n in range(len(p)):
            weights = [math.exp(float(h[n] @ row) / T) for row, _ in self.rows]
            found = sum(w * q for w, (_, q) in zip(weights, self.rows, strict=True)) / sum(weights)
            out.append(ALPHA * p[n] + (1 - ALPHA) * found)
        return torch.stack(out)

    def contrast(self, q, first, second):
        n, total = len(q), 0.0
        for i in range(n):
            w = [1.0 if i == j else float(q[i] @ q[j]) for j in range(n)]
            w = [x if x >= GRAPH else 0.0 for x in w]
            e = [math.exp(float(first[i] @ second[j]) / T) for j in range(n)]
            total -= sum(w[j] / sum(w) * math.log(e[j] / sum(e)) for j in range(n))
        return total / n

    def step(self, batch):
        u, labeled = batch.unlabeled, batch.labeled
        p = u.weak.softmax(1)
        self.means.append(p.mean(0))
        average = torch.stack(self.means).mean(0)
        p = p * (1 / C + 1e-6) / (average + 1e-6)
        p = p / p.sum(1, keepdim=True)
        h = embedded(self.one, u.weak)
        q = self.smoothed(p, h)
        kept = (q.amax(1) >= TAU).double()
        charged = -(q * u.strong[0].log_softmax(1)).sum(1)
        contrast = self.contrast(q, *(embedded(self.one, view) for view in u.strong))
        self.rows += zip(h, p, strict=True)
        self.rows += zip(embedded(self.one, labeled.x), torch.eye(C).double()[labeled.y], strict=True)
        return q, kept, (kept * charged).mean(), 0.5 * contrast


def test_three_steps_against_the_equations():
    """The second and third are smoothed by what the ones before left; most of the memory is still empty."""
    one, given = method(memory=500), batches(3)
    reference = Reference(one)
    for losses, batch in zip(run(one, given), given, strict=True):
        q, kept, unsupervised, contrast = reference.step(batch)
        assert 0 < kept.sum() < len(kept)
        torch.testing.assert_close(losses.pseudo.target, q)
        assert torch.equal(losses.pseudo.weight, kept)
        torch.testing.assert_close(losses.unsupervised, unsupervised)
        torch.testing.assert_close(losses.extras["contrast"].item(), contrast)
    assert one.memory.written == len(reference.rows)


def test_the_first_batch_meets_an_empty_memory():
    """The peer's rows of zeros would draw its predictions towards nothing at all."""
    one, plain = method(), method(alpha=1.0)
    (batch,) = batches(1)
    assert torch.equal(run(one, [batch])[0].pseudo.target, run(plain, [batch])[0].pseudo.target)


def test_the_memory_is_used_before_it_takes_the_batch_in():
    one, given = method(), batches(2)
    run(one, given[:1])
    before = one.memory.features.clone()
    again, other = method(), method()
    other.load_state_dict(one.state_dict())
    again.load_state_dict(one.state_dict())
    changed = replace(given[1], labeled=replace(given[1].labeled, x=-given[1].labeled.x))
    first, second = run(again, given[1:])[0], run(other, [changed])[0]
    assert torch.equal(first.pseudo.target, second.pseudo.target)
    assert not torch.equal(again.memory.features, other.memory.features)
    assert not torch.equal(again.memory.features, before)


def test_gradient_flows_through_both_strong_views_and_no_other_way():
    one, (batch,) = method(), batches(1)
    batch = on_images(batch, lambda x: x.clone().requires_grad_())
    contrast = run(one, [batch])[0].extras["contrast"]
    u = batch.unlabeled
    wanted = torch.autograd.grad(contrast, [*u.strong, u.weak, batch.labeled.x], allow_unused=True)
    assert all(grad is not None and grad.abs().sum() > 0 for grad in wanted[:2])
    assert all(grad is None or grad.abs().sum() == 0 for grad in wanted[2:])


def test_no_maps():
    with pytest.raises(UsageError, match="comatch is for one class per image only: it compares every sample"):
        build("comatch", Facts(3, dense=True))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": 1.5}, r"comatch\(alpha=1.5\): expected a share between 0 and 1; 1 asks no neighbors"),
        ({"temperature": 0}, r"comatch\(temperature=0.0\): expected a number above 0"),
        ({"dim": 0}, r"comatch\(dim=0\): expected at least 1"),
        ({"memory": 0}, r"comatch\(memory=0\): expected a number of samples, at least 1"),
        ({"graph_threshold": 80}, r"comatch\(graph_threshold=80.0\): expected a number between 0 and 1"),
    ],
)
def test_numbers_out_of_range(options, text):
    with pytest.raises(UsageError, match=text):
        build("comatch", Facts(3), options)

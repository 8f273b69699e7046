import pytest
import torch

from sfumato.functional.divergence import kl
from sfumato.functional.probability import one_hot, probability
from sfumato.functional.refine import align, sharpen, smooth, top_k
from tests.functional.oracle import CLASSES, SPACES, logits_of, softmax


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("space", SPACES)
def test_against_loops(classes, space):
    logits = logits_of(2, classes, *space)
    p = probability(logits)
    rows = logits.movedim(1, -1).reshape(-1, classes).tolist()
    target, model = (probability(logits_of(1, classes, seed=s))[0] for s in (1, 2))
    want = {"sharp": [], "aligned": [], "smooth": []}
    for row in rows:
        want["sharp"] += softmax([z / 0.5 for z in row])
        q = softmax(row)
        ratio = [v * (float(t) + 1e-6) / (float(m) + 1e-6) for v, t, m in zip(q, target, model, strict=True)]
        want["aligned"] += [v / sum(ratio) for v in ratio]
        want["smooth"] += [0.9 * v + 0.1 * (1 - v) / (classes - 1) for v in q]
    got = {"sharp": sharpen(p, 0.5), "aligned": align(p, target, model), "smooth": smooth(p, 0.1)}
    for key, value in got.items():
        assert value.shape == p.shape
        assert value.movedim(1, -1).flatten().tolist() == pytest.approx(want[key], rel=1e-8, abs=1e-12)
        torch.testing.assert_close(value.sum(dim=1), torch.ones_like(p[:, 0]))


def test_laws():
    p = probability(logits_of(5, 4, 2, 2))
    prior, model = (probability(logits_of(1, 4, seed=s))[0] for s in (1, 2))
    order = torch.randperm(4)
    torch.testing.assert_close(align(p[:, order], prior[order], model[order]), align(p, prior, model)[:, order])
    torch.testing.assert_close(sharpen(p[:, order], 0.3), sharpen(p, 0.3)[:, order])
    torch.testing.assert_close(sharpen(p, 1.0), p)
    torch.testing.assert_close(align(p, prior, prior), p)
    torch.testing.assert_close(sharpen(sharpen(p, 0.5), 0.5), sharpen(p, 0.25))


def test_temperature_below_one_sharpens():
    p = probability(logits_of(20, 5, scale=1))
    assert (sharpen(p, 0.5).amax(dim=1) > p.amax(dim=1)).all()
    assert (sharpen(p, 2.0).amax(dim=1) < p.amax(dim=1)).all()


def test_extremes_are_finite():
    sure = one_hot(torch.tensor([1]), 3)
    assert sharpen(sure, 0.01).tolist() == [[0.0, 1.0, 0.0]]
    never = align(torch.full((1, 3), 1 / 3), torch.full((3,), 1 / 3), torch.tensor([0.0, 0.5, 0.5]))
    assert never.isfinite().all()
    assert never[0, 0] > 0.99


def test_alignment_moves_the_mean_to_the_target():
    p = probability(logits_of(400, 4, scale=1) + torch.tensor([2.0, 0.0, 0.0, 0.0]).double())
    target = torch.full((4,), 0.25).double()
    off = (p.mean(dim=0) - target).abs().max()
    assert (align(p, target, p.mean(dim=0)).mean(dim=0) - target).abs().max() < off / 4


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("space", SPACES)
def test_top_k_against_loops(classes, space):
    p = probability(logits_of(3, classes, *space))
    for k in (1, 2, 4):
        got = top_k(p, k)
        assert got.labels.shape == got.share.shape == (3, min(k, classes), *space)
        rows = p.movedim(1, -1).reshape(-1, classes).tolist()
        for row, labels, share in zip(
            rows, *(x.movedim(1, -1).flatten(0, -2).tolist() for x in (got.labels, got.share)), strict=True
        ):
            want = sorted(range(classes), key=lambda c: -row[c])[:k]
            assert labels == want
            assert share == pytest.approx([row[c] / sum(row[i] for i in want) for c in want])


@pytest.mark.parametrize("k", [2, 3])
def test_a_fuzzy_label_is_charged_as_the_dense_one_and_keeps_no_planes(k):
    """KL to a target of K classes: the value of the dense one, while nothing of C planes is kept beside the logits."""
    p = probability(logits_of(2, 40, 16, 16)).float()
    logits = logits_of(2, 40, 16, 16, seed=1).float().requires_grad_()
    fuzzy = top_k(p, k)
    dense = torch.zeros_like(p).scatter(1, fuzzy.labels, fuzzy.share)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t.numel()}) or t, lambda t: t):
        charge = kl(logits, fuzzy)
    kept.pop(logits.data_ptr())
    assert max(kept.values()) <= fuzzy.share.numel()
    torch.testing.assert_close(charge, kl(logits, dense), rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(kl(logits, target).sum(), logits)[0] for target in (fuzzy, dense)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients[0], probability(logits.detach()) - dense, rtol=1e-5, atol=1e-6)  # q - f

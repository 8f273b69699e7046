import math

import pytest
import torch

from sfumato.functional.divergence import DIVERGENCES, bhattacharyya_between
from sfumato.functional.probability import probability
from sfumato.types import Sparse
from tests.functional.oracle import CLASSES, SPACES, logits_of, softmax

LOOPS = {
    "cross_entropy": lambda t, q: -sum(a * math.log(b) for a, b in zip(t, q, strict=True)),
    "kl": lambda t, q: sum(a * math.log(a / b) for a, b in zip(t, q, strict=True)),
    "js": lambda t, q: (
        sum(a * math.log(2 * a / (a + b)) + b * math.log(2 * b / (a + b)) for a, b in zip(t, q, strict=True)) / 2
    ),
    "mse": lambda t, q: sum((a - b) ** 2 for a, b in zip(t, q, strict=True)) / len(t),
    "bhattacharyya": lambda t, q: -math.log(sum(math.sqrt(a * b) for a, b in zip(t, q, strict=True))),
    "hellinger": lambda t, q: 1 - sum(math.sqrt(a * b) for a, b in zip(t, q, strict=True)),
}
each = pytest.mark.parametrize("name", sorted(DIVERGENCES))


def test_every_divergence_has_an_oracle():
    assert set(LOOPS) == set(DIVERGENCES)


@each
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("space", SPACES)
def test_against_loops(name, classes, space):
    logits, target = logits_of(2, classes, *space), probability(logits_of(2, classes, *space, seed=1))
    got = DIVERGENCES[name](logits, target)
    assert got.shape == (2, *space)
    rows, targets = (x.movedim(1, -1).reshape(-1, classes).tolist() for x in (logits, target))
    want = [LOOPS[name](t, softmax(row)) for row, t in zip(rows, targets, strict=True)]
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9)


@each
@pytest.mark.parametrize("classes", [2, 7])
def test_gradient(name, classes):
    logits = logits_of(3, classes, 2, 2, scale=2).requires_grad_()
    target = probability(logits_of(3, classes, 2, 2, seed=1))
    assert torch.autograd.gradcheck(lambda z: DIVERGENCES[name](z, target), (logits,))
    hard = target.argmax(dim=1)
    if name in ("cross_entropy", "kl", "mse"):
        assert torch.autograd.gradcheck(lambda z: DIVERGENCES[name](z, hard), (logits,))


def test_gradient_of_both_sides_and_of_the_gradient():
    a, b = (logits_of(3, 5, 2, seed=s).requires_grad_() for s in (0, 1))
    assert torch.autograd.gradcheck(bhattacharyya_between, (a, b))
    assert torch.autograd.gradgradcheck(bhattacharyya_between, (a, b))
    assert torch.allclose(bhattacharyya_between(a, b), bhattacharyya_between(b, a), rtol=1e-14)


@each
def test_laws(name):
    divergence = DIVERGENCES[name]
    logits, target = logits_of(6, 5, 2, 3), probability(logits_of(6, 5, 2, 3, seed=1))
    whole = divergence(logits, target)
    samples, classes = torch.randperm(6), torch.randperm(5)
    torch.testing.assert_close(divergence(logits[samples], target[samples]), whole[samples], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(divergence(logits[:, classes], target[:, classes]), whole, rtol=1e-12, atol=1e-12)
    pixels = divergence(*(x.movedim(1, -1).reshape(-1, 5) for x in (logits, target)))
    torch.testing.assert_close(pixels, whole.flatten(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(divergence(logits + 7.0, target), whole, rtol=1e-9, atol=1e-9)
    labels = target.argmax(dim=1)
    hot = torch.nn.functional.one_hot(labels, 5).movedim(-1, 1).double()
    torch.testing.assert_close(divergence(logits, labels), divergence(logits, hot), rtol=1e-12, atol=1e-12)


@each
def test_zero_iff_equal(name):
    logits = logits_of(4, 6)
    at_target = DIVERGENCES[name](logits, probability(logits))
    if name == "cross_entropy":
        assert (DIVERGENCES[name](logits_of(4, 6, seed=1), probability(logits)) > at_target).all()
    else:
        assert at_target.abs().max() < 1e-12
        assert (DIVERGENCES[name](logits_of(4, 6, seed=1), probability(logits)) > 1e-3).all()


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_disjoint_supports_are_finite(name, dtype):
    logits = torch.tensor([[1500.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=dtype).requires_grad_()
    target = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=dtype)
    value = DIVERGENCES[name](logits, target)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()
    if name in ("bhattacharyya", "hellinger"):
        assert logits.grad.abs().sum(dim=1).max() <= 1 + 1e-6


@each
def test_no_gradient_to_the_target(name):
    logits, target = logits_of(3, 4).requires_grad_(), probability(logits_of(3, 4, seed=1)).requires_grad_()
    DIVERGENCES[name](logits, target).sum().backward()
    assert target.grad is None
    assert logits.grad.abs().sum() > 0


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, dtype):
    logits, target = logits_of(8, 10).to(dtype), probability(logits_of(8, 10, seed=1)).to(dtype)
    low, exact = DIVERGENCES[name](logits, target), DIVERGENCES[name](logits.double(), target.double())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), exact, rtol=1e-4, atol=1e-5)
    full = DIVERGENCES[name](logits_of(8, 10), probability(logits_of(8, 10, seed=1)))
    torch.testing.assert_close(low.double(), full, rtol=0.05, atol=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert DIVERGENCES[name](logits, target).dtype == torch.float32


@each
@pytest.mark.parametrize("space", SPACES)
def test_a_sparse_target_is_the_dense_one_with_few_classes(name, space):
    logits = logits_of(3, 7, *space, seed=3).requires_grad_()
    share, labels = probability(logits_of(3, 7, *space, seed=4)).topk(3, dim=1)
    sparse = Sparse(labels, share / share.sum(dim=1, keepdim=True))
    dense = torch.zeros_like(logits).scatter(1, sparse.labels, sparse.share)
    charges = [DIVERGENCES[name](logits, target) for target in (sparse, dense)]
    gradients = [torch.autograd.grad(charge.sum(), logits)[0] for charge in charges]
    torch.testing.assert_close(*charges, rtol=0, atol=1e-9)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)

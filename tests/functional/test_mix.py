import numpy as np
import pytest
import scipy.stats
import torch
from torch.nn import functional as F

from sfumato.functional.mix import (
    beta_quantile,
    cosine,
    least_similar,
    mixed,
    mixed_binary_cross_entropy,
    mixed_cross_entropy,
    picked,
    pool_size,
)


@pytest.mark.parametrize("parameters", [(0.1, None), (0.4, None), (0.75, None), (1.0, None), (2.0, None), (0.4, 1.5)])
def test_beta_is_the_inverse_of_its_distribution_function(parameters):
    alpha, beta = parameters[0], parameters[1] or parameters[0]
    u = torch.cat([torch.rand(20000, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 1 - 2**-24])])
    got = beta_quantile(u, *parameters)
    want = scipy.stats.beta.ppf(u.double().numpy(), alpha, beta)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)
    assert got.dtype == torch.float32
    assert got[-2] == 0


def test_beta_of_many_draws_is_beta_distributed():
    u = torch.rand(50000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert scipy.stats.kstest(beta_quantile(u, 0.4).numpy(), scipy.stats.beta(0.4, 0.4).cdf).pvalue > 0.01


def test_mixed():
    a, b = torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    out = mixed(a, b, torch.tensor([0.25, 1.0]))
    assert out[0].unique().tolist() == [0.25]
    assert out[1].unique().tolist() == [1.0]


def test_the_loss_of_two_labels_is_that_of_their_mixture():
    draw = torch.Generator().manual_seed(0)
    z, share = torch.randn(6, 4, generator=draw), torch.rand(6, generator=draw)
    a, b = (torch.randint(4, (6,), generator=draw) for _ in range(2))
    soft = mixed(F.one_hot(a, 4).float(), F.one_hot(b, 4).float(), share)
    torch.testing.assert_close(mixed_cross_entropy(z, a, b, share), F.cross_entropy(z, soft, reduction="none"))
    two = (
        share * F.binary_cross_entropy_with_logits(z, F.one_hot(t, 4).float(), reduction="none").mean(dim=1)
        for t, share in ((a, share), (b, 1 - share))
    )
    torch.testing.assert_close(mixed_binary_cross_entropy(z, a, b, share), sum(two))


def test_cosine():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 2, 5, generator=draw), torch.randn(4, 2, 5, generator=draw)
    b[1] = 0
    want = torch.stack([F.cosine_similarity(x.reshape(1, -1), b.reshape(4, -1)) for x in a])
    torch.testing.assert_close(cosine(a, b), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosine(a, b), cosine(a, b).float())
        torch.testing.assert_close(cosine(a, b), want)


def test_pool_size():
    allowed = torch.zeros(5, 40, dtype=torch.bool)
    for row, size in enumerate((0, 1, 20, 21, 40)):
        allowed[row, :size] = True
    assert pool_size(allowed).tolist() == [0, 1, 1, 2, 2]
    assert pool_size(allowed, percent=100.0).tolist() == [0, 1, 20, 21, 40]
    assert pool_size(allowed, percent=0.0).tolist() == [0, 1, 1, 1, 1]
    assert pool_size(allowed, count=15).tolist() == [0, 1, 15, 15, 15]


def test_partners_are_of_the_least_similar_that_are_allowed():
    similarity = torch.tensor([[0.9, -0.5, 0.1, -0.9], [0.0, 0.3, 0.2, 0.1]])
    allowed = torch.tensor([[True, True, True, False], [False, True, True, True]])
    order = least_similar(similarity, allowed, 3)
    assert order.tolist() == [[1, 2, 0], [3, 2, 1]]
    size = torch.tensor([2, 3])
    reached = {tuple(picked(order, size, torch.full((2,), u / 100)).tolist()) for u in range(100)}
    assert reached == {(1, 3), (1, 2), (2, 2), (2, 1)}
    assert picked(order, size, torch.full((2,), 1 - 2**-24)).tolist() == [2, 1]
    assert picked(order, torch.tensor([0, 0]), torch.tensor([0.9, 0.9])).tolist() == [1, 3]

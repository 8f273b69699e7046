import pytest
import torch

from sfumato.functional.mixmatch import guessed, larger_share, mixed_labels, permutation
from sfumato.types import Pseudo
from tests.functional.oracle import logits_of


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_guess_averages_probabilities_and_not_logits():
    views = [logits_of(6, 4, seed=seed) for seed in (0, 1, 2)]
    p = sum(z.softmax(1) for z in views) / 3
    torch.testing.assert_close(guessed(views, 0.5), p**2 / (p**2).sum(1, keepdim=True))
    of_logits = (sum(views) / 3 / 0.5).softmax(1)
    assert (guessed(views, 0.5) - of_logits).abs().max() > 0.05


def test_who_gets_whom_does_not_hang_on_the_order():
    keys = uniform(200, 2)
    order = permutation(keys[:, 0], keys[:, 1])
    assert torch.equal(order.sort().values, torch.arange(200))
    shuffle = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    shuffled = permutation(*keys[shuffle].unbind(dim=1))
    assert torch.equal(shuffle[shuffled], order[shuffle])


def test_every_permutation_is_as_likely():
    """Of 4 rows, 24; 4 partners of a row, itself too."""
    keys = uniform(2400, 2, 4)
    seen = {}
    for first, second in keys:
        order = tuple(permutation(first, second).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    counts = torch.tensor(list(seen.values())).double()
    assert ((counts - 100).square() / 100).sum() < 49.7  # 99.9 % of chi-squared with 23 degrees of freedom


@pytest.mark.parametrize("alpha", [0.4, 0.75])
def test_shares_are_the_larger_of_two(alpha):
    share = larger_share(uniform(20000), alpha)
    assert share.min() >= 0.5
    assert share.max() <= 1.0
    # max(s, 1 - s) = 1/2 + |s - 1/2|: its second moment about 1/2 is the variance of Beta, 1 / (4 (2 alpha + 1))
    assert (share - 0.5).square().mean().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)
    assert share.unique().numel() > 10000  # of its own for each row


def test_mixed_labels_are_valid_where_both_are_and_weigh_what_their_own_does():
    def pseudo(seed, valid):
        return Pseudo(logits_of(2, 3, seed=seed).softmax(1), uniform(2, seed=seed), torch.tensor(valid))

    own, other = pseudo(0, [1.0, 1.0]), pseudo(1, [1.0, 0.0])
    got = mixed_labels(own, other, torch.tensor([0.75, 1.0]))
    torch.testing.assert_close(got.target[0], 0.75 * own.target[0] + 0.25 * other.target[0])
    torch.testing.assert_close(got.target[1], own.target[1])
    assert torch.equal(got.weight, own.weight)
    assert got.valid.tolist() == [1.0, 0.0]

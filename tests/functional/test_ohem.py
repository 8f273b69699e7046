import pytest
import torch

from sfumato import distributed
from sfumato.functional.ohem import hardest
from sfumato.functional.reduce import mean

SHAPES = ((40,), (4, 5, 6))


def slow(p, valid, share):
    """The rule pixel by pixel: with no more valid ones than k, all; else up to the larger of 0.7 and the k-th."""
    k = max(1, round(share * p.numel()))
    rest = sorted(value for value, v in zip(p.flatten().tolist(), valid.flatten().tolist(), strict=True) if v)
    limit = 1.0 if len(rest) <= k else max(0.7, rest[k - 1])
    kept = [v and value <= limit for value, v in zip(p.flatten().tolist(), valid.flatten().tolist(), strict=True)]
    return torch.tensor(kept, dtype=valid.dtype).reshape(p.shape)


def draws(shape, sure, seed=0):
    """Probabilities, most of them above 0.7 if `sure`, and where they count."""
    draw = torch.Generator().manual_seed(seed)
    p = torch.rand(shape, dtype=torch.float64, generator=draw)
    valid = (torch.rand(shape, generator=draw) < 0.7).double()
    return (1 - 0.2 * p if sure else p), valid


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize("share", [1e-9, 1 / 12.8, 1 / 6.4, 0.69, 1.0])
def test_against_a_loop(shape, sure, share):
    for seed in range(5):
        p, valid = draws(shape, sure, seed)
        assert torch.equal(hardest(p, valid, share), slow(p, valid, share))


def test_of_sure_pixels_the_share_of_all_is_kept():
    p = torch.linspace(0.8, 1.0, 128)
    valid = torch.ones(128)
    valid[:28] = 0  # void pixels count for k: it is known without asking the device
    kept = hardest(p, valid, 1 / 12.8)
    assert kept.sum() == 10
    assert kept[28:38].all()


def test_below_the_limit_all_are_kept_however_many():
    p = torch.tensor([0.1, 0.69, 0.7, 0.71, 0.9, 0.95])
    assert hardest(p, torch.ones(6), 0.2).tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_more_valid_than_the_share_keeps_them_all(count):
    valid = torch.zeros(16)
    valid[:count] = 1
    assert torch.equal(hardest(torch.full((16,), 0.99), valid, 3 / 16), valid)


@pytest.mark.parametrize("shape", [(0,), (0, 4, 4), (2, 0)])
def test_an_empty_batch_has_a_mean_of_zero(shape):
    charge = torch.zeros(shape, requires_grad=True)
    loss = mean(charge, over=hardest(torch.exp(-charge), torch.ones(shape), 0.1))
    loss.backward()
    assert loss.item() == 0


def test_a_broken_network_is_not_taken_for_a_sure_one():
    p = torch.tensor([0.99, float("nan"), 0.98])
    assert hardest(p, torch.ones(3), 0.3)[1] == 1
    assert hardest(torch.full((3,), float("nan")), torch.ones(3), 0.3).sum() == 3
    assert hardest(p, torch.tensor([1.0, 0.0, 1.0]), 0.3).tolist() == [0, 0, 1]  # a void one says nothing


def rows_of_this_rank(sure):
    """Rank 0 has the harder rows: by itself either rank would set another limit."""
    p, valid = draws((8, 5, 6), sure)
    p = p.sort(dim=0).values
    mine = slice(None) if not distributed.active() else slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
    charge = (-p.log())[mine].requires_grad_()
    kept = hardest(p[mine], valid[mine], 1 / 12.8)
    loss = mean(charge, over=kept)
    loss.backward()
    return (
        distributed.gather(kept),
        distributed.mean_over_ranks(loss.detach()),
        distributed.gather(charge.grad) / distributed.world_size(),
    )


@pytest.mark.parametrize("sure", [False, True])
def test_two_ranks_keep_what_one_would(two_ranks, sure):
    alone = rows_of_this_rank(sure)
    for rank in two_ranks.call(rows_of_this_rank, sure):
        for got, want in zip(rank, alone, strict=True):
            torch.testing.assert_close(got, want)

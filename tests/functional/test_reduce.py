import pytest
import torch

from sfumato import distributed
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.reduce import DIVISORS, mean, weighted_mean


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (2, 3, 2, 2)])
def test_against_a_loop(shape):
    values = torch.randn(shape, dtype=torch.float64)
    over = (torch.rand(shape) < 0.6).double()
    kept = [v for v, o in zip(values.flatten().tolist(), over.flatten().tolist(), strict=True) if o]
    assert mean(values, over=over).item() == pytest.approx(sum(kept) / len(kept))


def test_divides_by_the_valid_and_not_by_the_selected():
    weight = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert mean(weight * 8.0, over=torch.ones(4)).item() == 2.0


@pytest.mark.parametrize("shape", [(4,), (1,), (2, 3, 3), (0,)])
def test_all_void_is_zero_with_zero_gradient(shape):
    values = torch.randn(shape, requires_grad=True)
    result = mean(values, over=torch.zeros(shape))
    result.backward()
    assert result.item() == 0
    assert torch.equal(values.grad, torch.zeros(shape))


def test_one_sample_and_one_valid_entry():
    assert mean(torch.tensor([3.0]), over=torch.ones(1)).item() == 3.0
    values = torch.randn(2, 500, 500)
    over = torch.zeros_like(values)
    over[1, 17, 30] = 1
    assert mean(values, over=over).item() == values[1, 17, 30].item()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_ignored_may_be_anything(poison):
    values = torch.tensor([1.0, poison, 3.0], requires_grad=True)
    result = mean(values, over=torch.tensor([1.0, 0.0, 1.0]))
    result.backward()
    assert result.item() == 2.0
    assert values.grad.tolist() == [0.5, 0.0, 0.5]


def test_gradient_of_an_ignored_pixel_is_exactly_zero():
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    over = torch.ones(2, 3, 3)
    over[0, 1, 1] = 0
    mean(cross_entropy(logits, torch.zeros(2, 3, 3, dtype=torch.int64)), over=over).backward()
    assert logits.grad[0, :, 1, 1].tolist() == [0.0] * 4
    assert logits.grad[0, :, 0, 0].abs().sum() > 0


def test_many_entries_are_counted_exactly_in_half_precision():
    # 4,099 ones: counting in bfloat16 itself would stop at 256
    values = torch.ones(4099, dtype=torch.bfloat16)
    assert mean(values, over=torch.ones(4099)).item() == pytest.approx(1.0, rel=1e-2)


VALUES = torch.tensor([[8.0, 1.0, 3.0], [float("inf"), 2.0, 5.0]])
WEIGHT = torch.tensor([[0.5, 0.0, 2.0], [1.0, 0.25, 0.0]])
OVER = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])


@pytest.mark.parametrize(("normalize", "divisor"), [("valid", 5), ("selected", 3), ("all", 6), ("weight_sum", 2.75)])
def test_what_divides_a_weighted_sum(normalize, divisor):
    got = weighted_mean(VALUES, WEIGHT, over=OVER, normalize=normalize)
    assert got.item() == pytest.approx((0.5 * 8 + 2 * 3 + 0.25 * 2) / divisor)


@pytest.mark.parametrize("normalize", DIVISORS)
def test_nothing_to_divide_by_is_zero_with_zero_gradient(normalize):
    for weight, over in ((torch.zeros(4), torch.ones(4)), (torch.ones(4), torch.zeros(4))):
        values = torch.randn(4, requires_grad=True)
        result = weighted_mean(values, weight, over=over, normalize=normalize)
        result.backward()
        assert result.item() == 0
        assert torch.equal(values.grad, torch.zeros(4))


def shares_of_a_batch(normalize):
    """The mean over ranks of value and gradient, this rank having its rows."""
    mine = [x.chunk(distributed.world_size())[distributed.rank()] for x in (VALUES, WEIGHT, OVER)]
    values = mine[0].clone().requires_grad_()
    result = weighted_mean(values, mine[1], over=mine[2], normalize=normalize)
    result.backward()
    return distributed.mean_over_ranks(result.detach()), distributed.gather(values.grad) / distributed.world_size()


@pytest.mark.parametrize("normalize", DIVISORS)
def test_two_ranks_divide_by_what_one_would(two_ranks, normalize):
    alone = shares_of_a_batch(normalize)
    for rank in two_ranks.call(shares_of_a_batch, normalize):
        for got, want in zip(rank, alone, strict=True):
            torch.testing.assert_close(got, want)

import pytest
import torch

from sfumato.functional.divergence import cross_entropy
from sfumato.functional.reduce import mean


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

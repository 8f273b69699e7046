import pytest
import torch

from sfumato import distributed
from sfumato.functional.reduce import mean
from sfumato.telemetry import Telemetry
from sfumato.types import Losses, Pseudo
from tests.ranks import Ranks


def collectives():
    rank = distributed.rank()
    here = torch.tensor([1.0 + rank])
    before = here.clone()
    assert distributed.sum_over_ranks(here).tolist() == [3.0]
    assert torch.equal(here, before)
    assert distributed.mean_over_ranks(here).tolist() == [1.5]
    pair = torch.tensor([rank, 1 - rank])
    assert distributed.max_over_ranks(pair).tolist() == [1, 1]
    assert pair.tolist() == [rank, 1 - rank]
    assert distributed.gather_batch(here).tolist() == [1.0, 2.0]
    rows = torch.arange(3 * (rank + 1)).reshape(-1, 3)
    assert distributed.gather(rows).tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert distributed.gather(rows[:0] if rank else rows).tolist() == [[0, 1, 2]]
    images = torch.arange(8.0).reshape(2, 2, 2) + 100 * rank
    assert distributed.rows_of_all(images, torch.tensor([3, rank])).tolist() == [
        [[104.0, 105.0], [106.0, 107.0]],
        [[0.0, 1.0], [2.0, 3.0]] if rank == 0 else [[4.0, 5.0], [6.0, 7.0]],
    ]
    distributed.barrier()
    return rank, distributed.world_size(), distributed.active()


def gradient_of_the_global_quantity():
    """d/dx of (sum over ranks of x)^2, averaged over ranks as the gradients of a replicated model are."""
    x = torch.tensor(2.0 + distributed.rank(), requires_grad=True)
    total = distributed.sum_with_gradient(x)
    (total**2).backward()
    return total.item(), x.grad.item()


def gradient_of_a_loss_over_pairs():
    """d/dx of (sum over ranks of x)^2 from the gathered rows, which every rank has whole."""
    x = torch.tensor([2.0 + distributed.rank()], requires_grad=True)
    rows = distributed.gather_with_gradient(x)
    (rows.unsqueeze(0) * rows.unsqueeze(1)).sum().backward()
    return rows.tolist(), x.grad.item()


def uneven_mean():
    """Rank 0 has one valid entry, rank 1 three: a mean of the ranks' means would be something else."""
    values = torch.tensor([[8.0, 100.0, 100.0], [1.0, 2.0, 3.0]])[distributed.rank()].requires_grad_()
    over = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])[distributed.rank()]
    result = mean(values, over=over)
    result.backward()
    return result.item(), values.grad.tolist()


def one_entry_in_all():
    """A rank's batch is one sample, and only the first rank's is valid."""
    over = torch.tensor([1.0 - distributed.rank()])
    return mean(torch.tensor([4.0 + distributed.rank()]), over=over).item()


def averaged_in_place():
    tensors = [torch.full((2, 2), 1.0 + distributed.rank()), torch.tensor(4.0 * distributed.rank())]
    distributed.average_over_ranks_(tensors)
    return [tensor.tolist() for tensor in tensors]


def copied_from_the_first():
    """Of any kind and memory format."""
    rank = distributed.rank()
    image = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last) + 100 * rank
    weight = torch.nn.Parameter(torch.full((2,), 1.0 + rank))
    tensors = [image, weight, torch.tensor(7 + rank), torch.tensor([rank == 0])]
    distributed.copy_from_first_(tensors)
    return [tensor.tolist() for tensor in tensors]


def telemetry_before_and_after_merging():
    telemetry = Telemetry(["a", "b"])
    mine = distributed.rank()
    pseudo = Pseudo(torch.tensor([mine, 1]), torch.tensor([0.5, 1.0]), torch.ones(2))
    losses = Losses(torch.tensor(1.0 + mine), torch.tensor(2.0), pseudo=pseudo)
    telemetry.observe(losses, torch.tensor([mine, 1]), step=0)
    before = telemetry.read()
    telemetry.merge()
    return before, telemetry.read(), telemetry.seen.item()


def fail_on(rank):
    if distributed.rank() == rank:
        raise ValueError("a rank fell over")
    distributed.sum_over_ranks(torch.ones(1))


def test_collectives(two_ranks):
    assert two_ranks.call(collectives) == [(0, 2, True), (1, 2, True)]


def test_tensors_of_the_first_rank_replace_those_of_the_others(two_ranks):
    first = [torch.arange(24.0).reshape(1, 2, 3, 4).tolist(), [1.0, 1.0], 7, [True]]
    assert two_ranks.call(copied_from_the_first) == [first, first]
    assert copied_from_the_first() == first


def test_mean_of_one_valid_entry_in_all_ranks(two_ranks):
    # the mean of the ranks' losses is the global one: 8 and 0 average to 4
    assert two_ranks.call(one_entry_in_all) == [8.0, 0.0]


def test_average_in_place(two_ranks):
    assert two_ranks.call(averaged_in_place) == [[[[1.5, 1.5], [1.5, 1.5]], 2.0]] * 2


def test_merged_telemetry_reads_the_same_and_lies_with_the_first_rank(two_ranks):
    first, second = two_ranks.call(telemetry_before_and_after_merging)
    assert first[0] == first[1] == second[1]
    assert first[0]["pl/coverage"] == 0.75
    assert (first[2], second[2]) == (4.0, 0.0)


def test_one_process_needs_no_group():
    here = torch.tensor([1.0])
    assert distributed.sum_over_ranks(here) is here
    assert distributed.gather(here) is here
    assert distributed.max_over_ranks(here) is here
    assert distributed.gather_batch(here) is here
    assert distributed.sum_with_gradient(here) is here
    assert distributed.rows_of_all(torch.tensor([5, 6, 7]), torch.tensor([2, 0])).tolist() == [7, 5]
    assert (distributed.rank(), distributed.world_size(), distributed.active()) == (0, 1, False)
    distributed.barrier()


def test_gradient_of_a_global_sum(two_ranks):
    # (2 + 3)^2: each rank's x has gradient 2 * 5; the mean over the ranks' copies of a parameter sums both and halves
    assert two_ranks.call(gradient_of_the_global_quantity) == [(5.0, 20.0), (5.0, 20.0)]


def test_gradient_of_a_loss_over_pairs(two_ranks):
    # (2 + 3)^2: the derivative by either x is 2 * 5, averaged from two ranks of which one has no gradient by it.
    assert two_ranks.call(gradient_of_a_loss_over_pairs) == [([2.0, 3.0], 20.0), ([2.0, 3.0], 20.0)]


def test_mean_over_unevenly_ignored_entries(two_ranks):
    results = two_ranks.call(uneven_mean)
    assert sum(value for value, _ in results) / 2 == pytest.approx((8 + 1 + 2 + 3) / 4)
    assert results[0][1] == [0.5, 0.0, 0.0]  # 2 ranks x 1/4, which averaging over ranks turns into 1/4
    assert results[1][1] == [0.5, 0.5, 0.5]


@pytest.mark.slow
def test_a_rank_that_fails_is_told_and_the_next_call_starts_afresh():
    ranks = Ranks(2)
    with pytest.raises(AssertionError, match="a rank fell over"):
        ranks.call(fail_on, 1)
    assert ranks.call(collectives) == [(0, 2, True), (1, 2, True)]
    ranks.close()

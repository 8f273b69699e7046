"""Every collective of the package. With one process each is the identity."""

from __future__ import annotations

import atexit
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

if dist.is_available():
    # Its functions have the group that is open when they are imported for a default, and would hold it for ever. What
    # wraps a network for several ranks imports them, by then with a group open: here there is none yet.
    import torch.distributed.nn

T = TypeVar("T")


def active() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if active() else 0


def world_size() -> int:
    return dist.get_world_size() if active() else 1


def leave_at_exit() -> None:
    """Let this process leave the other ranks before the interpreter ends, unless it has by then.

    A process group that lives on has threads that the end of the interpreter now and then meets at work, and aborts:
    a training that has ended well would then be reported as failed.
    """
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of `value` over all ranks, without gradient; `value` itself is left alone."""
    if not active():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def sum_with_gradient(value: Tensor) -> Tensor:
    """The sum over ranks, differentiable by this rank's share.

    Gradients are averaged over ranks after the backward pass, so each rank's share is scaled by their number: the
    average is then the gradient of the global quantity.
    """
    if not active():
        return value
    return sum_over_ranks(value) + (value - value.detach()) * world_size()


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of `value` over all ranks, without gradient."""
    return sum_over_ranks(value) / world_size() if active() else value


def max_over_ranks(value: Tensor) -> Tensor:
    """The largest `value` of all ranks, entry by entry, without gradient; `value` itself is left alone."""
    if not active():
        return value
    largest = value.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def average_over_ranks_(tensors: list[Tensor]) -> None:
    """Puts the mean over the ranks into floating tensors, in place, by one collective."""
    if not active() or not tensors:
        return
    flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def copy_from_first_(tensors: list[Tensor]) -> None:
    """Puts the first rank's values into the tensors of all, in place."""
    if active():
        for tensor in tensors:
            value = tensor.detach().contiguous()
            dist.broadcast(value, src=0)
            tensor.detach().copy_(value)


def gather(value: Tensor) -> Tensor:
    """Rows of all ranks in rank order, without gradient. Ranks may hold different numbers of rows."""
    if not active():
        return value
    value = value.detach().contiguous()
    mine = torch.tensor([len(value)], device=value.device)
    lengths = [torch.zeros_like(mine) for _ in range(world_size())]
    dist.all_gather(lengths, mine)
    longest = int(max(length.item() for length in lengths))
    padded = value.new_zeros((longest, *value.shape[1:]))
    padded[: len(value)] = value
    parts = [torch.zeros_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(length.item())] for part, length in zip(parts, lengths, strict=True)])


def gather_batch(value: Tensor) -> Tensor:
    """As `gather` for tensors of equal length on every rank: one collective and no host synchronisation."""
    if not active():
        return value
    value = value.detach().contiguous()
    parts = [torch.zeros_like(value) for _ in range(world_size())]
    dist.all_gather(parts, value)
    return torch.cat(parts)


def gather_with_gradient(value: Tensor) -> Tensor:
    """As `gather_batch`, differentiable by this rank's rows, for a loss over pairs that every rank computes whole.

    The gradient of this rank's rows is scaled by the number of ranks, over which gradients are averaged afterwards.
    """
    if not active():
        return value
    parts = list(gather_batch(value).chunk(world_size()))
    parts[rank()] = parts[rank()] + (value - value.detach()) * world_size()
    return torch.cat(parts)


def rows_of_all(value: Tensor, places: Tensor) -> Tensor:
    """value[places], the places (n,) counted through the rows of all ranks in rank order, without gradient.

    For tensors of equal length on every rank, each asking for as many. What travels is what is asked for, not all rows.
    """
    if not active():
        return value.detach()[places]
    places = gather_batch(places)
    here = (places // len(value) == rank()).reshape(-1, *(1,) * (value.dim() - 1))
    asked = torch.where(here, value.detach()[places % len(value)], torch.zeros_like(value[:1]))
    return sum_over_ranks(asked).chunk(world_size())[rank()]


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank. Waits for the device."""
    if not active():
        return flag
    return bool(sum_over_ranks(torch.tensor(float(flag), device=device)).item())


def from_first(value: T) -> T:
    """The first rank's `value`, on every rank."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    if active():
        dist.barrier()

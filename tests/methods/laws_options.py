"""The laws of options: none is without effect, those of the loop reach the loss too."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import chain, combinations
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints
from zlib import crc32

import torch
from torch import Tensor

from sfumato import distributed
from sfumato.errors import UsageError
from sfumato.types import Batch, HeldOut, Losses
from tests.methods.cases import (
    CLASSES,
    Case,
    mixes_labels,
    nets_of,
    pseudo_of,
    steps,
    values,
)
from tests.methods.problems import flip, on_images, with_warps


def _alternatives(hint: Any, default: Any) -> Iterator[Any]:
    """Other values that an option may take, as its annotation has it."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if get_origin(hint) is Literal:
        yield from (value for value in get_args(hint) if value != default)
    elif any(get_origin(kind) is Literal for kind in kinds):  # a name or numbers, one for each class
        yield from (value for kind in kinds for value in get_args(kind) if isinstance(value, str) and value != default)
        if any(get_origin(kind) is tuple for kind in kinds):
            yield tuple(2.0**-c for c in range(CLASSES))
    elif hint is bool:
        yield not default
    elif isinstance(default, tuple):
        for factor in (0.5, 0.25):
            yield tuple(factor * value for value in default)
    elif default is None:
        yield from (0.5, 0.9) if float in kinds else (2,)
    elif isinstance(default, (int, float)):
        factors = (0.5, 0.25, 2, 0.05, 20, 0.01)  # the last for limits that the small problems are far from
        yield from (type(default)(factor * default) for factor in factors) if default else (type(default)(1),)
    else:
        raise AssertionError(f"no other value known for an option of type {hint}")


def _trace(case: Case, options: dict[str, object]) -> Tensor | None:
    """What a short run gives with these options, as one vector equal on all ranks; None if they exclude each other."""
    try:
        method = case.method(**options)
    except UsageError:
        return None
    batches = case.batches(3, method)
    if case.task.dense:  # an option may be about the warp
        batches = [with_warps(batch, flip, lambda x: x.flip(-1)) for batch in batches]
    batches = [on_images(batch, lambda x: x.clone().requires_grad_()) for batch in batches]
    nets, seen = nets_of(layout="concat"), []
    nets.student.register_forward_hook(lambda net, images, out: seen.append(len(images[0])))
    run = []
    for k, batch in enumerate(batches):
        run += steps(method, [batch], nets, start=k)
        method.calibrate(_held_out(k))
    parts = [torch.stack([*values(x).values(), *(v.double().sum() for v in pseudo_of(x).values())]) for x in run]
    parts += [_gradients(losses, batch) for losses, batch in zip(run, batches, strict=True)]
    views, rounds = method.views, crc32(repr(method.rounds).encode())
    parts.append(
        torch.tensor([views.strong, views.labeled_strong, views.weak_gradient, views.cutout, rounds, sum(seen)])
    )
    parts.append(torch.tensor([views.further == "weak", crc32(repr(method.held_labels).encode())]))
    return distributed.sum_over_ranks(torch.cat([part.double() for part in parts]))


def _held_out(seed: int) -> HeldOut:
    """Validation predictions, the same on all ranks: a long tail of labels, whose last classes are never predicted."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(CLASSES).repeat_interleave(torch.tensor([40 // (1 + c) for c in range(CLASSES)]))
    logits = torch.randn(len(y), CLASSES, generator=draw) + torch.tensor([2.0, 1.0, 0.0, -6.0, -6.0])
    logits[torch.arange(len(y)), y] += 1.0
    return HeldOut(logits, y, torch.ones(len(y)))


def _gradients(losses: Losses, batch: Batch) -> Tensor:
    """How much of a gradient each view has: some options change nothing else."""
    views = [batch.labeled.x, batch.unlabeled.weak, *batch.unlabeled.strong]
    grads = torch.autograd.grad(losses.total, views, allow_unused=True)
    return torch.stack([torch.zeros(()) if grad is None else grad.abs().sum() for grad in grads])


def every_option_changes_something(case: Case) -> str | None:
    """Some options act only beside others: a temperature with a soft target, a tail once the mean has moved, the
    momentum of a prior that is to be learned and used from the start. Two companions are tried at most.
    """
    if case.builder is None:
        return "options not known"
    builder = getattr(case.builder, "func", case.builder)
    hints = get_type_hints(builder)
    options = {
        key: list(_alternatives(hints[key], p.default))
        for key, p in inspect.signature(case.builder).parameters.items()
        if p.kind is p.KEYWORD_ONLY and key != "memory"  # where a memory lies changes nothing
    }
    if not options:
        return "no options"
    tried: dict[str, Tensor | None] = {}

    def outcome(chosen: dict[str, object]) -> Tensor | None:
        key = repr(sorted(chosen.items()))
        if key not in tried:
            tried[key] = _trace(case, chosen)
        return tried[key]

    for key, others in options.items():
        singles = [{other: value} for other in options if other != key for value in options[other]]
        pairs = (one | two for one, two in combinations(singles, 2) if one.keys() != two.keys())
        companions = chain(({},), singles, pairs)
        changes = (_differ(outcome(c), outcome({**c, key: value})) for c in companions for value in others)
        assert any(changes), f"option {key} changes nothing"
    return None


def _differ(before: Tensor | None, after: Tensor | None) -> bool:
    return before is not None and after is not None and (len(before) != len(after) or not torch.equal(before, after))


def hard_labels_alone_count_if_so_asked(case: Case) -> str | None:
    """`train.ohem` is for every method: with a small share the mean is over the hardest labels, and larger."""

    def supervised(share: float | None) -> Tensor:
        method = case.method()
        method.ohem = share
        (losses,) = steps(method, case.batches(1, method), nets_of())
        return distributed.mean_over_ranks(losses.supervised.detach())

    assert torch.equal(supervised(1.0), supervised(None))
    if mixes_labels(case):
        return "labels are mixed, and none of them is easy"
    assert supervised(0.02) > supervised(None), "the loss of the labels is the same with hard labels only"
    return None

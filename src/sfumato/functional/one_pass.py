"""Pseudo-labels of logit maps without a C-plane result: on a CPU in blocks that stay in its cache.

The usual chain writes the C planes of a softmax to memory and reads them again for the maximum, the labels, the
entropy and the K largest. Here every block of logits is read once and leaves a few planes behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.functional.probability import full_precision
from sfumato.types import Sparse

_BLOCK = 2**17  # values a CPU works on at a time: half a megabyte, and as much again for what is made of them
_STEEP = 1e30  # turns any difference between two floats of ordinary size into more than the number of classes
_FLOOR = -1e4  # stands for a logit of minus infinity, whose product with its probability of 0 is not a number


@dataclass(frozen=True, slots=True)
class Fuzzy:
    """The K most probable classes, and what the others say of them."""

    target: Sparse
    confidence: Tensor  # (N, *S)
    entropy: Tensor  # (N, *S) normalized, of all C classes: 0 sure, 1 uniform


def hard_label(logits: Tensor) -> tuple[Tensor, Tensor]:
    """`confidence(probability(logits))`: the largest probability and its class, each (N, *S)."""
    n, _, *space = logits.shape
    z = as_places(full_precision(logits))
    top, label = z.new_empty((n, z.shape[2])), torch.empty((n, z.shape[2]), dtype=torch.int64, device=z.device)
    for part in blocks(z.shape, z.device):
        block = z[part[0], :, part[1]]
        d = block - block.amax(dim=1, keepdim=True)
        label[part] = first_zero(d)
        top[part] = d.exp_().sum(dim=1).reciprocal_()
    return top.reshape(n, *space), label.reshape(n, *space)


def fuzzy_label(logits: Tensor, k: int) -> Fuzzy:
    """`top_k(probability(logits), k)` with confidence and normalized entropy. FARCLUSS, eq. 2, 3 and 5."""
    n, classes, *space = logits.shape
    z = as_places(full_precision(logits))
    k, m = min(k, classes), z.shape[2]
    labels, share = torch.empty((n, k, m), dtype=torch.int64, device=z.device), z.new_empty((n, k, m))
    top, entropy = z.new_empty((2, n, m)).unbind()
    for part in blocks(z.shape, z.device):
        rows, columns = part
        block = z[rows, :, columns]
        d = (block - block.amax(dim=1, keepdim=True)).clamp_(min=_FLOOR)
        e = d.exp()
        total = e.sum(dim=1)
        top[part] = total.reciprocal()
        entropy[part] = total.log() - e.mul_(d).sum(dim=1) / total
        values, labels[rows, :, columns] = _largest(d, k)
        share[rows, :, columns] = torch.softmax(values, dim=1)
    entropy = (entropy / math.log(classes)).clamp_(0.0, 1.0)
    target = Sparse(labels.reshape(n, k, *space), share.reshape(n, k, *space))
    return Fuzzy(target, top.reshape(n, *space), entropy.reshape(n, *space))


def largest(p: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of C values and their classes, each (N, k, *S), the largest first; of equal ones the first class.

    As `p.topk(k, dim=1)`, which sorts all C and for maps takes several times as long.
    """
    n, _, *space = p.shape
    flat = as_places(p)
    values = p.new_empty((n, k, flat.shape[2]))
    labels = torch.empty(values.shape, dtype=torch.int64, device=p.device)
    for rows, columns in blocks(flat.shape, p.device):
        values[rows, :, columns], labels[rows, :, columns] = _largest(flat[rows, :, columns].clone(), k)
    return values.reshape(n, k, *space), labels.reshape(n, k, *space)


def as_places(x: Tensor) -> Tensor:
    """(N, C, *S) -> (N, C, m), a view where memory allows."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def blocks(shape: Sequence[int], device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Rows and places of values (N, C, m), so few at a time that a CPU keeps in its cache what is made of them.

    Whole on an accelerator, where every launch costs time.
    """
    n, classes, m = shape
    if device.type != "cpu":
        yield slice(0, n), slice(0, m)
        return
    places = max(1, _BLOCK // classes)
    rows = max(1, places // max(1, m))
    for first in range(0, n, rows):
        for start in range(0, m, places):
            yield slice(first, first + rows), slice(start, start + places)


def first_zero(d: Tensor) -> Tensor:
    """The first class whose d (n, C, m) <= 0 is 0, (n, m) int64, by two passes that vectorize; `argmax` does not."""
    classes = d.shape[1]
    places = torch.arange(classes, dtype=d.dtype, device=d.device).reshape(1, -1, 1)
    found = torch.add(-places, d, alpha=_STEEP).amax(dim=1)
    return found.neg_().long().clamp_(0, classes - 1)  # not a number has no place: any class will do


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `largest` for one block, which is overwritten."""
    tops, labels = [], []
    for _ in range(k):
        top = values.amax(dim=1, keepdim=True)
        label = first_zero(values - top).unsqueeze(1)
        values.scatter_(1, label, -math.inf)
        tops.append(top)
        labels.append(label)
    return torch.cat(tops, dim=1), torch.cat(labels, dim=1)

"""Pixels against pixels: which are anchors, which are negatives, and what an anchor is charged.

U2PL (Wang et al. 2022, arXiv:2203.03884), section 3.3. Everything has M rows, pixels or samples of any number of
images, of which there may be a million: no row is looped over and none is counted on the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.distributed import rank, world_size
from sfumato.functional.one_pass import largest


def among_first(p: Tensor, k: int) -> Tensor:
    """Which classes are among the k most probable of their row, (M, C) -> (M, C) bool.

    Of equal ones the first class comes first. The shorter side is looked for, so that nothing is sorted.
    """
    m, classes = p.shape
    if k <= 0 or k >= classes:
        return torch.full((m, classes), k > 0, dtype=torch.bool, device=p.device)
    if k <= classes - k:
        return torch.zeros_like(p, dtype=torch.bool).scatter_(1, largest(p, k)[1], True)
    last = classes - 1 - largest(-p.flip(1), classes - k)[1]  # flipped: of equal ones the last class comes last
    return torch.ones_like(p, dtype=torch.bool).scatter_(1, last, False)


def negatives_of_labeled(p: Tensor, y: Tensor, valid: Tensor, low: int) -> Tensor:
    """Labeled rows are negatives of the classes they could be taken for, (M, C) bool.

    c is such a class where it is among the `low` most probable and is not the label. p: (M, C) teacher's;
    y: (M,) int64; valid: (M,) bool.
    """
    return (among_first(p, low) & ~_only(y, p)) & valid.unsqueeze(1)


def negatives_of_unlabeled(p: Tensor, unsure: Tensor, low: int, high: int) -> Tensor:
    """Unreliable rows are negatives of the classes they are hardly, (M, C) bool: rank low <= rank < high.

    Rank 0 is the most probable class. p: (M, C) teacher's; unsure: (M,) bool.
    """
    return (among_first(p, high) & ~among_first(p, low)) & unsure.unsqueeze(1)


def negatives_as_released(p: Tensor, label: Tensor, unsure: Tensor, low: int, high: int) -> Tensor:
    """As the authors' code: unreliable rows are negatives of their own pseudo-label, (M, C) bool.

    That needs two looks of the teacher, the one that gave `label` (M,) and the one that gave p (M, C), which gives that
    class a rank of low to high. Labeled rows are never negatives there: theirs is a class that is and is not the label.
    """
    return negatives_of_unlabeled(p, unsure, low, high) & _only(label, p)


def first_of_each(members: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of each class the k members with the smallest keys: their rows (C, k) and whether there are so many (C, k) bool.

    members: (M, C) bool, keys: (M,). In the order of the keys, of equal ones the first row; k is at most M.
    """
    k = min(k, len(keys))
    order = keys.argsort(stable=True)
    there = members[order].T  # (C, M)
    place = there.cumsum(dim=1, dtype=torch.int32)  # 1 for the first member
    beyond = ~there | (place > k)
    column = (place - 1).masked_fill(beyond, k).long()
    table = torch.zeros((len(there), k + 1), dtype=torch.int64, device=keys.device)
    table.scatter_(1, column, order.expand_as(column))  # all that is not wanted meets in a column that is cut off
    return table[:, :k], torch.arange(k, device=keys.device) < members.sum(dim=0).unsqueeze(1)


def earliest(keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The places (C, k') of the k smallest finite keys (C, K), in their order, and whether there are so many, bool.

    k' is the smaller of k and K. Of equal keys the first comes first: gathered in rank order, the keys of all ranks
    give what those of one rank would.
    """
    order = keys.argsort(dim=1, stable=True)[:, :k]
    return order, keys.gather(1, order).isfinite()


def mine(places: Tensor, found: Tensor, count: int) -> Tensor:
    """Which of this rank's `count` keys of each class are among those that `earliest` found of all ranks, (C, count).

    places, found: of keys (C, ranks count), which stand side by side in rank order.
    """
    everywhere = torch.zeros((len(places), world_size() * count), dtype=torch.bool, device=places.device)
    return everywhere.scatter_(1, places, found)[:, rank() * count : (rank() + 1) * count]


def info_nce(near: Tensor, far: Tensor, temperature: float) -> Tensor:
    """-log softmax(cos / T) of the positive among it and the negatives, (Q,).

    near: (Q,) cosines of the anchors with their positives; far: (Q, J) with their negatives.
    """
    return -torch.log_softmax(torch.cat((near.unsqueeze(1), far), dim=1) / temperature, dim=1)[:, 0]


def _only(label: Tensor, p: Tensor) -> Tensor:
    return torch.zeros_like(p, dtype=torch.bool).scatter_(1, label.unsqueeze(1), True)

"""The last features of each class, as a buffer that is written round and round."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.distributed import gather_batch
from sfumato.functional.contrast import earliest, first_of_each
from sfumato.functional.prototypes import unit

_MANY = 100  # times as many entries as are wanted: then collecting them costs less than a product with all


class ClassMemory(nn.Module):
    """Of each class the `size` entries written last, features of length 1, or as they are with `raw`.

    Merge rule: entries are gathered in rank order, and of those of all ranks the first in the order of their keys are
    written, so that k ranks of B / k write what one rank of B does. Ranks exchange up to `size` entries of each class.
    Buffers: `entries`, `size` x `dim` numbers a class, and `written`, how many entries ever were.
    """

    entries: Tensor  # (C, size, D), 0 where nothing was written yet
    written: Tensor  # (C,) int64

    def __init__(self, num_classes: int, *, size: int, dim: int, raw: bool = False) -> None:
        super().__init__()
        self.raw = raw
        self.register_buffer("entries", torch.zeros(num_classes, size, dim))
        self.register_buffer("written", torch.zeros(num_classes, dtype=torch.int64))

    @torch.no_grad()
    def observe(self, features: Tensor, members: Tensor, keys: Tensor) -> None:
        """Write rows of `features` (M, D), at most `size` of each class: those with the smallest keys (M,).

        members: (M, C) bool, the classes that a row is written for. Keys are between 0 and 1, drawn for each row, so
        that what a full class leaves out is left to chance, and does not depend on the order of the rows.
        """
        classes, size, dim = self.entries.shape
        rows, there = first_of_each(members, keys, size)
        own = features[rows]  # (C, K, D)
        if not self.raw:
            own = unit(own.flatten(0, 1)).reshape(own.shape)
        ranked = keys[rows].masked_fill(~there, torch.inf).to(own.dtype)
        both = torch.cat((own, ranked.unsqueeze(2)), dim=2)  # one collective for the two
        both = gather_batch(both.transpose(0, 1)).transpose(0, 1)  # (C, ranks K, D + 1)
        places, found = earliest(both[..., dim], size)
        new = both[..., :dim].gather(1, places.unsqueeze(2).expand(-1, -1, dim))
        slots = (self.written.unsqueeze(1) + torch.arange(places.shape[1], device=places.device)) % size
        slots += size * torch.arange(classes, device=slots.device).unsqueeze(1)
        flat = self.entries.view(-1, dim)
        kept = torch.where(found.unsqueeze(2), new.to(flat.dtype), flat[slots])
        flat.index_copy_(0, slots.flatten(), kept.flatten(0, 1))
        self.written += found.sum(dim=1)

    @property
    def filled(self) -> Tensor:
        """How many entries there are of each class, (C,)."""
        return self.written.clamp_max(self.entries.shape[1])

    @property
    def means(self) -> Tensor:
        """The mean entry of each class, (C, D); 0 of a class without any."""
        return self.entries.sum(dim=1) / self.filled.clamp_min(1).unsqueeze(1)

    def drawn(self, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entries (Q, D) of classes (Q,) drawn alike often, with replacement, by numbers (Q, 2) in [0, 1).

        Classes without entries are left out; while there are none at all, the last of the three, (Q,) bool, is false.
        """
        there = self.filled > 0
        order = there.to(torch.uint8).argsort(descending=True, stable=True)
        label = order[_place(uniform[:, 0], there.sum())]
        place = _place(uniform[:, 1], self.filled[label])
        return self.entries[label, place], label, there[label]

    def cosines(self, anchors: Tensor, label: Tensor, uniform: Tensor, *, grouped: bool) -> Tensor:
        """Cosines (Q, J) with entries of the classes `label` (Q,), one for each number (Q, J) in [0, 1).

        With replacement, as the authors draw them; 0 where a class has no entries. anchors: (Q, D) of length 1, with
        gradient. grouped: there are as many of each class, one class after the other; their cosines with all entries
        are then one product of matrices, which is faster than to collect entries unless these are very many.
        """
        classes, size, dim = self.entries.shape
        filled = self.filled[label].unsqueeze(1)
        places = _place(uniform, filled)
        with torch.autocast(anchors.device.type, enabled=False):  # a product of matrices would be rounded
            if grouped and size <= _MANY * uniform.shape[1]:
                whole = torch.bmm(anchors.view(classes, -1, dim), self.entries.transpose(1, 2))
                return whole.flatten(0, 1).gather(1, places)
            return torch.bmm(self.entries[label.unsqueeze(1), places], anchors.unsqueeze(2)).squeeze(2)


def _place(uniform: Tensor, count: Tensor) -> Tensor:
    """One of `count` places for each number in [0, 1), 0 where there is none."""
    return (uniform.double() * count).long().clamp_max(count - 1).clamp_min(0)

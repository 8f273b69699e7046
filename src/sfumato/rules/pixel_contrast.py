"""U2PL's contrast: anchors are drawn to the mean of their class and driven from what is not their class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.distributed import gather_batch, sum_over_ranks, world_size
from sfumato.errors import UsageError
from sfumato.functional.contrast import earliest, first_of_each, info_nce, mine
from sfumato.functional.hashing import mix, numbers
from sfumato.functional.prototypes import class_means, feature_sums, mean_over_classes, unit
from sfumato.rules.base import attached
from sfumato.running.class_memory import ClassMemory
from sfumato.running.representation import Representation


@dataclass(frozen=True, slots=True)
class Rows:
    """Pixels or samples with the class for which they may count."""

    features: Tensor  # (M, D)
    label: Tensor  # (M,) int64
    used: Tensor  # (M,) bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """Places for anchors, Q of them: as many as all classes may have, or as there are rows, if these are fewer."""

    rows: Tensor  # (Q,) int64
    label: Tensor  # (Q,) int64
    used: Tensor  # (Q,) bool, whether there is an anchor of this rank
    of_class: Tensor  # (C,) anchors of all ranks
    grouped: bool  # as many places of each class, one class after the other


class PixelContrast(nn.Module):
    """InfoNCE of anchors with a mean of the teacher's as positive and a memory of negatives.

    U2PL (Wang et al. 2022, arXiv:2203.03884), section 3.3. The loss is the mean over the classes that have anchors of
    the mean over up to `num_anchors` anchors of all ranks, chosen by chance without replacement. A class of which the
    memory is empty adds 0, as in the released code.

    Args:
        num_classes: C.
        num_anchors: of each class.
        num_negatives: of each anchor, from the memory of its class with replacement.
        temperature: of the cosines.
        dim: of the representations.
        memory: entries of each class.

    Raises:
        UsageError: a number of which nothing is left, or no `attach` before training.
    """

    def __init__(
        self, num_classes: int, *, num_anchors: int, num_negatives: int, temperature: float, dim: int, memory: int
    ) -> None:
        super().__init__()
        counts = {"num_anchors": num_anchors, "num_negatives": num_negatives, "dim": dim, "memory": memory}
        for name, value in counts.items():
            if value < 1:
                raise UsageError(f"PixelContrast({name}={value}): expected at least 1.")
        if not temperature > 0:
            raise UsageError(f"PixelContrast(temperature={temperature}): expected a number above 0, such as 0.5.")
        self.num_classes, self.num_anchors, self.num_negatives = num_classes, num_anchors, num_negatives
        self.temperature, self.dim = temperature, dim
        self.memory = ClassMemory(num_classes, size=memory, dim=dim)
        self.representation: Representation | None = None

    def attach(self, num_features: int) -> None:
        """Make the head. Call it when a method's `attach` is."""
        self.representation = Representation(num_features, self.dim)

    @property
    def head(self) -> Representation:
        return attached(self.representation, "PixelContrast")

    def follow(self, step: int, momentum: float) -> None:
        """Average the head; see `Representation.follow`."""
        self.head.follow(step, momentum)

    def represent(self, features: Tensor) -> Tensor:
        """Representations of the teacher's features (M, D), without gradient, (M, dim)."""
        return self.head.average(features)

    @torch.no_grad()
    def remember(self, taught: Tensor, negatives: Tensor, keys: Tensor) -> None:
        """Put representations (M, dim) into the memory of the classes (M, C) bool whose negatives they are."""
        self.memory.observe(taught, negatives, keys)

    def forward(self, anchors: Rows, taught: Rows, uniform: Tensor) -> Tensor:
        """The loss, with gradient through the anchors only.

        anchors: the student's features; taught: the teacher's representations, of which the positives are made;
        uniform: (M, 2) numbers in [0, 1) for each anchor: the first choose, the second say which negatives.
        """
        with torch.no_grad():
            sums, counts = feature_sums(taught.features, taught.label, taught.used, self.num_classes)
            both = sum_over_ranks(torch.cat((sums, counts.unsqueeze(1)), dim=1))  # one collective for the two
            sums, counts = both[:, :-1], both[:, -1]
            chosen = self._choose(anchors, uniform[:, 0])
            label = chosen.label
            picks = numbers(mix((uniform[chosen.rows, 1] * 2**24).long()), self.num_negatives)
            counted = chosen.used & (self.memory.filled[label] > 0) & (counts[label] > 0)
            positives = unit(class_means(sums, counts))[label]
        a = unit(self.head(anchors.features[chosen.rows]))
        far = self.memory.cosines(a, label, picks, grouped=chosen.grouped)
        charges = info_nce((a * positives).sum(dim=1), far, self.temperature)
        # Gradients are averaged over ranks, while the counts are of all of them.
        return world_size() * mean_over_classes(charges, label, counted, chosen.of_class)

    def _choose(self, anchors: Rows, keys: Tensor) -> Chosen:
        """Those with the smallest keys of all ranks. How many there are of a class only the device knows."""
        classes = torch.arange(self.num_classes, device=keys.device)
        members = (anchors.label.unsqueeze(1) == classes) & anchors.used.unsqueeze(1)
        table, there = first_of_each(members, keys, self.num_anchors)
        ranked = keys[table].masked_fill(~there, torch.inf)
        places, found = earliest(gather_batch(ranked.T).T, self.num_anchors)
        used, label, rows = (
            mine(places, found, table.shape[1]).flatten(),
            classes.repeat_interleave(table.shape[1]),
            table.flatten(),
        )
        if grouped := len(rows) <= len(keys):
            return Chosen(rows, label, used, found.sum(dim=1), grouped)
        first = used.to(torch.uint8).argsort(descending=True, stable=True)[: len(keys)]  # no row is used twice
        return Chosen(rows[first], label[first], used[first], found.sum(dim=1), grouped)

"""What the network thought of the labels it trained on, over training: the memory behind the list of suspect labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.functional.confident_learning import confident_class, confident_joint
from sfumato.functional.margins import margin_of
from sfumato.functional.probability import probability

LARGEST = 20_000  # labels of which a history is kept: each evaluation looks at all of them


class LabelHistory(nn.Module):
    """Means over the evaluations of a training, of samples with `labels` (L,): probabilities, and the label's margin.

    The mean margin is the AUM of Pleiss et al. (2020, arXiv:2001.10528) over evaluations in place of epochs. Early
    evaluations count as much as late ones, when wrong labels are known by heart. On the CPU; all ranks hold the whole.
    """

    labels: Tensor
    p: Tensor
    margin: Tensor
    seen: Tensor

    def __init__(self, labels: Tensor, classes: int) -> None:
        super().__init__()
        samples = len(labels)
        self.register_buffer("labels", labels)
        self.register_buffer("p", torch.zeros(samples, classes))
        self.register_buffer("margin", torch.zeros(samples))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, logits: Tensor) -> None:
        """Add an evaluation: logits (L, C) in the order of the labels."""
        self.seen += 1
        self.p.lerp_(probability(logits).to(self.p), 1 / float(self.seen))
        self.margin.lerp_(margin_of(logits, self.labels).to(self.margin), 1 / float(self.seen))


@dataclass(frozen=True, slots=True)
class Suspects:
    """Labels that confident learning doubts, the lowest margin first. S of them."""

    places: Tensor  # (S,) int64 in the labeled set
    suggested: Tensor  # (S,) int64
    margin: Tensor  # (S,)
    confidence: Tensor  # (S,) probability of the suggested class

    def __len__(self) -> int:
        return len(self.places)


def suspects(history: LabelHistory) -> Suspects:
    """Samples whose confident class is another than their label."""
    found = confident_class(history.p, history.labels)
    places = torch.nonzero((found >= 0) & (found != history.labels)).squeeze(1)
    places = places[history.margin[places].argsort(stable=True)]
    return Suspects(places, found[places], history.margin[places], history.p[places, found[places]])


def doubted_pairs(history: LabelHistory) -> list[tuple[int, int, int]]:
    """Label, suggested class and how many suspects there are of the two, the most first; of as many by class."""
    joint = confident_joint(history.p, history.labels).fill_diagonal_(0)
    pairs = torch.nonzero(joint)
    counts = joint[pairs[:, 0], pairs[:, 1]]
    order = counts.argsort(descending=True, stable=True)
    rows = torch.cat([pairs, counts.unsqueeze(1)], dim=1)[order].tolist()
    return [(label, other, count) for label, other, count in rows]

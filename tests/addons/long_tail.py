"""A linear classifier on a long tail, trained by a method: what an add-on does to its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.addons import join
from sfumato.methods import Facts, Method, build
from tests.given import step

CLASSES = 4
COUNTS = (400, 100, 25, 6)
MEANS = 1.5 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
FACTS = Facts(CLASSES, num_unlabeled=600, num_labeled=sum(COUNTS), label_counts=COUNTS)


def method_with(addon: str | None, name: str = "fixmatch", *, facts: Facts = FACTS, **options: object) -> Method:
    method = build(name, facts)
    if addon is not None:
        join(addon, method, facts, options, method_name=name)
    return method


def drawn(counts: tuple[int, ...], draw: torch.Generator) -> tuple[Tensor, Tensor]:
    y = torch.arange(CLASSES).repeat_interleave(torch.tensor(counts))
    return MEANS[y] + torch.randn((len(y), 2), generator=draw), y


def trained(method: Method, *, unlabeled: tuple[int, ...] = COUNTS, steps: int = 200, rate: float = 0.5) -> Tensor:
    """Weights (3, C) of the classifier, the last row its bias, after steps on all samples at once."""
    draw = torch.Generator().manual_seed(0)
    (x, y), (u, _) = drawn(COUNTS, draw), drawn(unlabeled, draw)
    strong = u + 0.3 * torch.randn(u.shape, generator=draw)
    weights = torch.zeros(3, CLASSES, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=rate, momentum=0.9)
    for _ in range(steps):
        losses = step(method, logits(u, weights), logits(strong, weights), labeled=logits(x, weights), y=y)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    return weights.detach()


def logits(x: Tensor, weights: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1)], dim=1) @ weights


def recalls(weights: Tensor) -> Tensor:
    """Of each class, on a balanced set."""
    x, y = drawn((500,) * CLASSES, torch.Generator().manual_seed(1))
    right = logits(x, weights).argmax(dim=1) == y
    return right.reshape(CLASSES, -1).float().mean(dim=1)

"""Feeding logits to methods and rules without a network: the outputs of every view are given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.methods import Method
from sfumato.rules import Rule
from sfumato.types import Batch, Context, Labeled, Losses, Output, Progress, Unlabeled, Views, ViewSpec, Warp, unwarped


@dataclass
class Given:
    """Networks whose outputs are known, cut to what the method declares. Features are the logits."""

    labeled: Tensor
    weak_view: Tensor
    strong_view: Tensor

    def weak(self, batch: Batch, spec: ViewSpec) -> Output:
        logits = self.weak_view if spec.weak_gradient else self.weak_view.detach()
        return Output(logits, logits)

    def forward(self, batch: Batch, spec: ViewSpec, weak: Output | None = None) -> Views:
        seen = batch.unlabeled is not None and spec.weak
        return Views(
            labeled=Output(self.labeled, self.labeled),
            labeled_strong=Output(self.labeled) if spec.labeled_strong else None,
            weak=(weak or self.weak(batch, spec)) if seen else None,
            strong=(Output(self.strong_view, self.strong_view),) * spec.strong if seen else (),
        )


def step(
    method: Method,
    weak: Tensor,
    strong: Tensor,
    *,
    labeled: Tensor | None = None,
    y: Tensor | None = None,
    valid: Tensor | None = None,
    index: Tensor | None = None,
    progress: Progress | None = None,
    warp: Warp = unwarped,
) -> Losses:
    """One step of `method` on these logits (N, C, *S). What is not given is plain: all valid, indices in order."""
    labeled = torch.zeros_like(weak[:1]) if labeled is None else labeled
    y = labeled.detach().argmax(dim=1) if y is None else y
    ones = torch.ones_like(weak[:, 0])
    batch = Batch(
        Labeled(labeled.detach(), y, torch.ones_like(y, dtype=labeled.dtype), torch.arange(len(y)), labeled.detach()),
        Unlabeled(
            weak=weak.detach(),
            strong=(strong.detach(),) * method.views.strong,
            valid=ones.detach() if valid is None else valid,
            index=torch.arange(len(weak)) if index is None else index,
            warps=(warp,) * method.views.strong,
            patches=torch.zeros_like(ones).detach() if method.views.patches else None,
        ),
    )
    return method.loss(Given(labeled, weak, strong), batch, progress or Progress(0, 10))


def context(
    p: Tensor,
    *,
    labeled: Tensor | None = None,
    y: Tensor | None = None,
    index: Tensor | None = None,
    progress: Progress | None = None,
) -> Context:
    """What a rule may see beside the probabilities p (N, C, *S); plain where nothing is given."""
    labeled = torch.zeros_like(p[:1]) if labeled is None else labeled
    y = torch.zeros_like(labeled[:, 0], dtype=torch.int64) if y is None else y
    return Context(
        progress=progress or Progress(0, 10),
        index=torch.arange(len(p)) if index is None else index,
        labeled_logits=labeled,
        labeled_y=y,
        labeled_valid=torch.ones_like(y, dtype=p.dtype),
    )


def learn(rule: Rule, p: Tensor, valid: Tensor | None = None, **about: object) -> Tensor:
    """Observe, then read: what a step does with a refiner or weigher."""
    rule.observe(p, torch.ones_like(p[:, 0]) if valid is None else valid, context(p, **about))  # type: ignore[arg-type]
    return rule(p)

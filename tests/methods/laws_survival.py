"""Laws of hard batches: everything stays finite, and the next plain batch teaches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sfumato import distributed
from sfumato.types import Progress
from tests.methods.cases import (
    CLASSES,
    STEPS,
    Case,
    assert_finite,
    nets_of,
)
from tests.methods.problems import (
    with_validity,
)


def _assert_survives(case: Case, *, classes: int = CLASSES, **about: Any) -> None:
    """Three hard steps and a plain one, all finite, and the plain one teaches."""
    method, nets = case.method(classes), nets_of()
    hard = case.batches(3, method, classes=classes, **about)
    for k, batch in enumerate([*hard, *case.batches(1, method, classes=classes)]):
        losses = method.loss(nets, batch, Progress(k, STEPS))
        assert_finite(method, nets, losses)
    assert nets.student.gain.grad != 0


def a_class_without_labels_and_predictions_is_survived(case: Case) -> None:
    def never(logits: Tensor) -> Tensor:
        out = logits.clone()
        out[:, 2] = -60.0
        return out

    method = case.method()
    for batch in case.batches(3, method, predicts=never):
        y = batch.labeled.y
        batch = replace(batch, labeled=replace(batch.labeled, y=torch.where(y == 2, 1, y)))
        nets = nets_of()
        assert_finite(method, nets, method.loss(nets, batch, Progress(2, STEPS)))
    _assert_survives(case, predicts=never)


def a_batch_of_one_is_survived(case: Case) -> None:
    _assert_survives(case, labeled=distributed.world_size(), unlabeled=distributed.world_size(), void=0.0)


def _sure(logits: Tensor) -> Tensor:
    return 40.0 * nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).movedim(-1, 1).to(logits)


def a_batch_selected_whole_is_survived(case: Case) -> None:
    _assert_survives(case, predicts=_sure)


def a_batch_of_which_nothing_is_selected_is_survived(case: Case) -> None:
    _assert_survives(case, predicts=lambda logits: logits * 1e-3)


def disjoint_predictions_are_survived(case: Case) -> None:
    """Logits so far apart that their probabilities are 0 and 1."""
    _assert_survives(case, predicts=lambda logits: logits * 300)


def two_classes_are_survived(case: Case) -> None:
    _assert_survives(case, classes=2)


def a_thousand_classes_are_survived(case: Case) -> None:
    _assert_survives(case, classes=1000)


def nothing_valid_is_nothing_lost(case: Case) -> None:
    method, nets = case.method(), nets_of()
    for k, batch in enumerate(case.batches(3, method, void=0.0)):
        # everywhere; then on the first rank only; then nowhere
        void = 0.0 if k == 0 or (k == 1 and distributed.rank() == 0) else 1.0
        batch = with_validity(batch, *(torch.full_like(x.valid, void) for x in (batch.labeled, batch.unlabeled)))
        losses = method.loss(nets, batch, Progress(k, STEPS))
        assert_finite(method, nets, losses)
        if void == 0.0:
            assert losses.supervised.item() == losses.unsupervised.item() == 0
        if k == 0:
            assert nets.student.gain.grad == 0
            assert losses.total.item() == 0

"""The gates of a charge whose targets or thresholds an add-on has taken over."""

from __future__ import annotations

import pytest
import torch

from sfumato.addons import join
from sfumato.functional.divergence import bhattacharyya, cross_entropy
from sfumato.methods import Facts, build
from sfumato.rules import Targeter
from tests.given import step

FACTS = Facts(3, num_unlabeled=8, num_labeled=9, label_counts=(5, 3, 1))
P = torch.tensor([[0.97, 0.02, 0.01], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.01, 0.98, 0.01]])


class Turned(Targeter):
    """Another row than the prediction: sure ones become unsure, and the other way round."""

    def __init__(self, target):
        super().__init__()
        self.target = target

    def forward(self, p):
        return self.target(torch.tensor([[0.5, 0.3, 0.2], [0.99, 0.005, 0.005]]).repeat(2, 1))


def made(addon, **options):
    method = build("uncertainty_weighted_flat", FACTS, {"target": "hard", "gate": "both"})
    join(addon, method, FACTS, options)
    return method


@pytest.mark.parametrize("addon", ["daso", "darp"])
def test_gates_are_read_on_the_prediction_and_not_on_what_stands_in_its_place(addon):
    method, strong = made(addon), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    method.target, method.extras = Turned(method.target.target), torch.nn.ModuleList()
    rows = method.target(P)
    step(method, P.log(), strong)
    charge = method.divergence(strong, rows)
    want = cross_entropy(strong, rows.argmax(1)) + bhattacharyya(strong, rows)
    torch.testing.assert_close(charge, want * torch.tensor([1.0, 0.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("addon", "options", "opened"),
    [
        ("adsh", {}, True),
        ("seval", {"thresholds": "auto"}, True),
        ("seval", {"thresholds": "replace"}, True),
        ("seval", {"thresholds": "multiply"}, False),
        ("seval", {"thresholds": "none"}, False),
    ],
)
def test_gates_go_where_other_thresholds_take_their_place(addon, options, opened):
    method, strong = made(addon, **options), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    kept = method.divergence(strong, P) > 0
    assert kept.tolist() == ([True] * 4 if opened else [True, False, False, True])


def test_the_pull_of_the_weak_view_has_the_gate_of_the_distance():
    method = build("uncertainty_weighted", FACTS, {"detach_weak": False, "gate": "both"})
    pull = method.extras[0]
    assert pull.charge.gates == (0.95, 0.95)
    join("adsh", method, FACTS)
    assert pull.charge is method.divergence
    assert pull.charge.gates == (0.0, 0.0)

"""Soft pseudo-labels under a loss with a prior in it: a student that predicts what the weak view does stays there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato.addons import join
from sfumato.functional.probability import probability
from sfumato.methods import Facts, Method, build
from sfumato.types import Progress
from tests.given import step

SHARES = (0.9, 0.1)
FACTS = Facts(2, num_unlabeled=64, num_labeled=100, label_counts=(90, 10))
ADDONS = pytest.mark.parametrize("addon", ["logit_adjustment", "debiaspl"])
SOFT: dict[str, tuple[str, dict[str, object]]] = {
    "mean_teacher": ("mean_teacher", {"ramp": 0.0}),
    "mean_teacher, cross-entropy": ("mean_teacher", {"ramp": 0.0, "divergence": "cross_entropy"}),
    "distance": ("uncertainty_weighted", {"threshold": 1.0}),
    "both terms": ("uncertainty_weighted", {"gate": "none", "temperature": 1.0}),
    "few classes": ("farcluss", {}),
}


def made(addon: str, name: str, options: dict[str, object], others: tuple[str, ...] = ()) -> Method:
    method = build(name, FACTS, options)
    join(addon, method, FACTS, {"prior": SHARES}, method_name=name)
    for other in others:
        join(other, method, FACTS, method_name=name)
    return method


def pulled(method: Method, weak: Tensor, strong: Tensor) -> Tensor:
    """The gradient by the strong view's logits."""
    strong = strong.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(step(method, weak, strong, progress=Progress(9, 10)).unsupervised, strong)
    return gradient


def drawn(n: int = 40) -> Tensor:
    return 2 * torch.randn((n, 2), generator=torch.Generator().manual_seed(0))


@ADDONS
@pytest.mark.parametrize("case", SOFT)
def test_a_student_that_predicts_the_same_is_not_moved(addon, case):
    method, z = made(addon, *SOFT[case]), drawn()
    assert pulled(method, z, z + torch.tensor([1.0, 0.0])).abs().sum() > 0.01
    torch.testing.assert_close(pulled(method, z, z), torch.zeros_like(z), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("addon", "other"), [("logit_adjustment", "saw"), ("debiaspl", "saw"), ("debiaspl", "logit_adjustment")]
)
def test_nor_with_another_add_on_around_it(addon, other):
    method, z = made(addon, *SOFT["mean_teacher"], (other,)), drawn()
    torch.testing.assert_close(pulled(method, z, z), torch.zeros_like(z), rtol=0, atol=1e-6)


@ADDONS
def test_free_logits_stay_where_they_are(addon):
    """Head minus tail was 4.0, and -7.5 after 400 steps."""
    method, z = made(addon, "mean_teacher", {"ramp": 0.0}), torch.tensor([[2.0, -2.0]])
    for _ in range(400):
        z = z - pulled(method, z, z)
    assert (z[0, 0] - z[0, 1]).item() == pytest.approx(4.0, abs=1e-3)


@pytest.mark.parametrize(("addon", "border"), [("logit_adjustment", 0.0), ("debiaspl", 0.4)])
def test_sharpened_targets_part_where_hard_ones_do(addon, border):
    """logit_adjustment: at equal logits; DebiasPL: where z - tau log average has equal ones."""
    at = border * (torch.tensor(SHARES[0]) / SHARES[1]).log()
    m = at + torch.tensor([-0.5, -0.1, 0.1, 0.5])
    z = torch.stack((m, torch.zeros_like(m)), dim=1)
    options = {"gate": "none", "divergence": "none", "weight": "one", "entropy_range": (1.0, 1.0)}
    soft = pulled(made(addon, "uncertainty_weighted", options), z, z)
    hard = made(addon, "fixmatch", {"threshold": 0.0})
    label = step(hard, z, z).pseudo.target
    assert label.tolist() == [1, 1, 0, 0]
    assert (soft[:, 0] < 0).tolist() == [False, False, True, True]  # to the head


@ADDONS
def test_gates_and_labels_are_of_predictions_as_the_method_has_them(addon):
    """A gate of the tilted prediction would let in the head's by their frequency, and its class would be the head's."""
    z, tau = drawn(400), torch.tensor({"logit_adjustment": 0.0, "debiaspl": 0.4}[addon])
    options = {"divergence": "none", "threshold": 0.8, "target": "hard"}
    gradient = pulled(made(addon, "uncertainty_weighted", options), z, z)
    p = probability(z - tau * torch.tensor(SHARES).log())
    moved = gradient.abs().sum(dim=1) > 0
    assert moved.any()
    assert (p.amax(dim=1)[moved] >= 0.8).all()
    assert torch.equal((gradient[:, 0] < 0)[moved], (p.argmax(dim=1) == 0)[moved])

"""The family itself: in which order it asks its rules, and what it does with several strong views."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.methods import Consistency
from sfumato.rules import Adjusted, All, Extra, FixedThreshold, Hard, Ramp, Refiner, Targeter, Weigher
from sfumato.rules.prior import Prior
from sfumato.types import Batch, Labeled, Output, Progress, Pseudo, Unlabeled, Views, ViewSpec, unwarped
from tests.given import step


def recorder(base, name, log, result):
    class Recorder(base):
        def observe(self, p, valid, context):
            log.append(f"{name} observes {p.amax().item():.2f}")

        def forward(self, p):
            log.append(f"{name} reads {p.amax().item():.2f}")
            return result(p)

    return Recorder()


def test_order():
    """Refine learns of the raw prediction, all that follows of the refined one, and the warp comes after the target."""
    log = []

    class Last(Extra):
        name = "last"

        def observe(self, p, valid, context):
            log.append(f"extra observes {p.amax().item():.2f}")

        def forward(self, views, batch, pseudo, nets):
            log.append("extra reads")
            return views.strong[0].logits.sum() * 0 + 3.0

    def warp(pseudo):
        log.append("warp")
        return pseudo

    method = Consistency(
        refine=recorder(Refiner, "refine", log, lambda p: torch.tensor([[0.7, 0.3]])),
        weigh=recorder(Weigher, "weigh", log, lambda p: torch.ones(1)),
        target=recorder(Targeter, "target", log, lambda p: p.argmax(dim=1)),
        divergence=lambda logits, target: log.append("charge") or cross_entropy(logits, target),
        extra=Last(),
    )
    losses = step(method, torch.tensor([[0.9, 0.1]]).log(), torch.zeros(1, 2), warp=warp)
    assert log == [
        "refine observes 0.90",
        "refine reads 0.90",
        "weigh observes 0.70",
        "target observes 0.70",
        "target reads 0.70",
        "weigh reads 0.70",
        "warp",
        "charge",
        "extra observes 0.70",
        "extra reads",
    ]
    assert losses.extras["last"].item() == 3.0
    assert losses.total.item() == pytest.approx(sum(x.item() for x in (losses.supervised, losses.unsupervised)) + 3)


class Several:
    def __init__(self, weak, strong):
        self.weak, self.strong = weak, strong

    def forward(self, batch, spec):
        return Views(Output(self.weak), weak=Output(self.weak), strong=tuple(Output(z) for z in self.strong))


def test_each_strong_view_has_its_warp_and_counts_alike():
    draw = torch.Generator().manual_seed(0)
    weak = torch.randn((4, 3), generator=draw)
    strong = [torch.randn((4, 3), generator=draw) for _ in range(2)]
    method = Consistency(weigh=All(), target=Hard(), views=ViewSpec(strong=2))
    labeled = Labeled(weak, torch.zeros(4, dtype=torch.int64), torch.ones(4), torch.arange(4))

    def first_half(pseudo):
        return Pseudo(pseudo.target, pseudo.weight, pseudo.valid * torch.tensor([1.0, 1.0, 0.0, 0.0]))

    batch = Batch(labeled, Unlabeled(weak, tuple(strong), torch.ones(4), torch.arange(4), (unwarped, first_half)))
    losses = method.loss(Several(weak, strong), batch, Progress(0, 1))
    y = probability(weak).argmax(dim=1)
    charges = [torch.nn.functional.cross_entropy(z, y, reduction="none") for z in strong]
    torch.testing.assert_close(losses.unsupervised, (charges[0].mean() + charges[1][:2].mean()) / 2)


def test_a_view_without_a_warp_is_an_error():
    weak = torch.zeros(2, 3)
    method = Consistency(weigh=All(), views=ViewSpec(strong=2))
    labeled = Labeled(weak, torch.zeros(2, dtype=torch.int64), torch.ones(2), torch.arange(2))
    batch = Batch(labeled, Unlabeled(weak, (weak, weak), torch.ones(2), torch.arange(2), (unwarped,)))
    with pytest.raises(ValueError, match="shorter"):
        method.loss(Several(weak, [weak, weak]), batch, Progress(0, 1))


def test_what_divides_the_loss_is_an_option():
    draw = torch.Generator().manual_seed(0)
    weak, strong = (torch.randn((30, 3), generator=draw) * 2 for _ in range(2))
    valid = (torch.rand(30, generator=draw) < 0.7).float()
    sizes = {
        name: step(
            Consistency(weigh=FixedThreshold(0.7), normalize=name), weak, strong, valid=valid
        ).unsupervised.item()
        for name in ("valid", "selected", "all", "weight_sum")
    }
    selected = ((probability(weak).amax(dim=1) >= 0.7) * valid).sum().item()
    assert 0 < selected < valid.sum().item()
    total = sizes["valid"] * valid.sum().item()
    assert sizes == pytest.approx(
        {"valid": sizes["valid"], "selected": total / selected, "all": total / 30, "weight_sum": total / selected}
    )
    with pytest.raises(UsageError, match=r"Consistency\(normalize='slected'\): expected one of .* 'selected'"):
        Consistency(weigh=All(), normalize="slected")


def test_lambda_may_be_a_schedule():
    weak = torch.randn((5, 3), generator=torch.Generator().manual_seed(0))
    sizes = [
        step(Consistency(weigh=All(), lambda_u=lam), weak, weak, progress=Progress(5, 11)).unsupervised.item()
        for lam in (1.0, 3.0, Ramp(0.0, 2.0))
    ]
    assert sizes == pytest.approx([sizes[0], 3 * sizes[0], sizes[0]])


@pytest.mark.parametrize("slot", ("charge", "divergence"))
def test_charges_observe_the_refined_prediction(slot):
    """One with a prior of its own learns from the step, in either place."""
    refined = torch.tensor([[0.7, 0.3]])
    method = Consistency(refine=recorder(Refiner, "refine", [], lambda p: refined), weigh=All())
    setattr(method, slot, Adjusted(cross_entropy, Prior(2, (), "predicted", momentum=0.0)))
    step(method, torch.tensor([[0.9, 0.1]]).log(), torch.zeros(1, 2))
    torch.testing.assert_close(getattr(method, slot).prior.value, refined[0])

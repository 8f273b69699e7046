"""ABC against the authors' loss, by the draws that were recorded."""

import numpy as np
import pytest
import torch

from sfumato.addons.abc import BalancedHead, drawn_below
from sfumato.functional.balance import keep_chance
from sfumato.running.second_head import SecondHead
from sfumato.types import Batch, Labeled, Output, Progress, Unlabeled, Views
from tests.given import context
from tests.methods.cases import nets_of
from tests.methods.problems import Echo

CASES = ("abc_00", "abc_01")


@pytest.fixture(params=CASES)
def case(shared, request) -> dict:
    with np.load(shared / "golden" / f"{request.param}.npz") as stored:
        return {key: torch.from_numpy(np.asarray(stored[key])) for key in stored.files}


def test_chances(case):
    chance = keep_chance(case["class_counts"])
    torch.testing.assert_close(chance[case["y_lb"]].float(), case["keep_prob_lb"], rtol=0, atol=1e-6)
    label = case["logits_w"].argmax(dim=1)
    kept = 1 - case["epoch"] / case["epochs"] * (1 - chance[label])
    torch.testing.assert_close(kept.float(), case["keep_prob_ulb"], rtol=0, atol=1e-6)


def recorded(kept: torch.Tensor):
    """Numbers below any chance where a sample was kept, and above where it was not."""
    return lambda purpose, count: torch.where(kept > 0, 0.0, 1.0 - 1e-7).unsqueeze(1)


def test_loss(case):
    classes = len(case["class_counts"])
    rule = BalancedHead(classes, tuple(int(n) for n in case["class_counts"]), target="hard")
    net = Echo(classes=classes)
    net.num_features = classes  # its logits are the features
    rule.second = SecondHead(net, classes, dense=False)
    with torch.no_grad():
        rule.second.head.weight.copy_(torch.eye(classes))
        rule.second.head.bias.zero_()
    labeled, weak, strong = (case[key] for key in ("logits_lb", "logits_w", "logits_s"))
    batch = Batch(
        Labeled(
            labeled,
            case["y_lb"],
            torch.ones(len(labeled)),
            torch.arange(len(labeled)),
            draw=recorded(case["mask_lb"]),
        ),
        Unlabeled(
            weak, (strong,), torch.ones(len(weak)), torch.arange(len(weak)), draw=recorded(case["bernoulli_ulb"])
        ),
    )
    views = Views(Output(labeled, labeled), None, Output(weak, weak), (Output(strong, strong),))
    p = torch.softmax(weak, dim=1)
    # Training is as far as the epoch is: the fraction of a step counts from 0 to 1 over the steps.
    progress = Progress(int(case["epoch"]), int(case["epochs"]) + 1)
    rule.observe(p, batch.unlabeled.valid, context(p, progress=progress))
    got = rule(views, batch, None, nets_of(Echo(classes=classes)))
    torch.testing.assert_close(got.detach(), case["loss"].float(), rtol=0, atol=1e-5)


def test_draws_keep_at_the_chance():
    chance = torch.tensor([0.0, 0.3, 1.0]).repeat(20000)
    uniform = torch.rand(60000, 1, generator=torch.Generator().manual_seed(0))
    kept = drawn_below(chance, lambda purpose, count: uniform, "abc").view(-1, 3).mean(dim=0)
    torch.testing.assert_close(kept, torch.tensor([0.0, 0.3, 1.0]), rtol=0, atol=0.01)

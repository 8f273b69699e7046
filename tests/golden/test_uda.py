import pytest
import torch

from sfumato.functional.annealing import annealing_threshold, unsure
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.functional.reduce import weighted_mean
from sfumato.methods import Facts, build
from sfumato.rules import FixedThreshold, Sharpened, Soft
from sfumato.types import Progress
from tests.given import step

NAMES = pytest.mark.parametrize("name", ["uda_00", "uda_01"])


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), rtol=tolerance, atol=tolerance)


@NAMES
def test_thresholds(golden, name):
    want = golden(name)
    for rise in ("linear", "exp", "log", "none"):
        for step_, eta in zip(want["iterations"], want[f"tsa_{rise}"], strict=True):
            assert annealing_threshold(rise, step_ / want["total"], int(want["num_classes"])) == pytest.approx(eta)


@NAMES
def test_losses(golden, name):
    want = {key: torch.as_tensor(value) for key, value in golden(name).items()}
    labeled, y = want["logits_lb"], want["labels"]
    kept = unsure(labeled, float(want["tsa_used"]))
    close(kept, want["sup_mask"])
    everywhere = torch.ones_like(kept)
    close(weighted_mean(cross_entropy(labeled, y), kept, over=everywhere), want["sup_loss"])

    p = probability(want["logits_weak"])
    mask = FixedThreshold(float(want["p_cutoff"]))(p)
    close(mask, want["mask"])
    everywhere = torch.ones_like(mask)
    targets = {"official": Soft()(p), "sharpened": Sharpened(float(want["T"]))(p)}
    for key, target in targets.items():
        close(target, want[f"{key}_target"])
        loss = weighted_mean(cross_entropy(want["logits_strong"], target), mask, over=everywhere)
        close(loss, want[f"unsup_loss_{key}"])


@NAMES
def test_the_method(golden, name):
    want = {key: torch.as_tensor(value) for key, value in golden(name).items()}
    options = {"threshold": float(want["p_cutoff"]), "temperature": float(want["T"])}
    options |= {"annealing": "linear", "annealing_form": "peer"}
    classes = int(want["num_classes"])
    share = (float(want["tsa_used"]) - 1 / classes) / (1 - 1 / classes)
    losses = step(
        build("uda", Facts(classes), options),
        want["logits_weak"],
        want["logits_strong"],
        labeled=want["logits_lb"],
        y=want["labels"],
        progress=Progress(round(share * 10**6), 10**6 + 1),
    )
    close(losses.supervised, want["sup_loss"])
    close(losses.unsupervised, want["unsup_loss_sharpened"])
    assert abs(losses.unsupervised - want["unsup_loss_official"]) > 5e-4  # the peer's target, not sharpened

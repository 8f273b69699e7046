import pytest
import torch

from sfumato.functional.probability import probability
from sfumato.rules import FixedThreshold, RelativeThreshold
from tests.given import learn


@pytest.mark.parametrize("name", ["adamatch_00", "adamatch_01"])
def test_masks(golden, name):
    want = golden(name)
    cutoff = float(want["p_cutoff"])
    labeled, unlabeled = (torch.from_numpy(want[f"logits_{part}"]).double() for part in ("lb", "ulb"))
    p = probability(unlabeled)
    relative = RelativeThreshold(cutoff).double()
    for rule, limit, key in (
        (relative, float(want["relative_threshold"]), "mask"),
        (FixedThreshold(cutoff), cutoff, "fixed_mask"),
    ):
        weight = learn(rule, p, labeled=labeled)
        tied = (p.amax(dim=1) - limit).abs() < 1e-6
        assert tied.sum() <= 1
        assert torch.equal(weight[~tied], torch.from_numpy(want[key]).double()[~tied])
    threshold = cutoff * relative.labeled.value
    torch.testing.assert_close(threshold, torch.tensor(float(want["relative_threshold"])).double(), rtol=1e-6, atol=0)

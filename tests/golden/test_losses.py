import pytest
import torch

from sfumato.functional.divergence import cross_entropy, mse
from sfumato.functional.probability import one_hot
from sfumato.functional.reduce import mean
from sfumato.functional.refine import smooth


@pytest.mark.parametrize("name", ["losses_00", "losses_01"])
def test_values(golden, name):
    want = {key: torch.from_numpy(value) for key, value in golden(name).items()}
    logits, soft, hard, mask = want["logits"], want["soft_target"], want["hard_target"], want["mask"]

    def check(got, key):
        torch.testing.assert_close(got, want[key].to(got.dtype), rtol=1e-5, atol=1e-5)

    everywhere = torch.ones_like(mask)
    check(cross_entropy(logits, hard), "ce_hard")
    check(cross_entropy(logits, soft), "ce_soft")
    check(mean(mask * cross_entropy(logits, hard), over=everywhere), "cons_hard")
    check(mean(mask * cross_entropy(logits, soft), over=everywhere), "cons_soft")
    check(mean(mask * mse(logits, soft), over=everywhere), "cons_mse")
    check(smooth(one_hot(hard, logits.shape[1]), float(want["smoothing"])), "smoothed")

import pytest
import torch

from sfumato.functional.divergence import bhattacharyya, bhattacharyya_between, js, kl
from sfumato.functional.probability import probability

FILES = ["bhattacharyya_00", "bhattacharyya_01"]


@pytest.mark.parametrize("name", FILES)
def test_value_and_both_gradients(golden, name):
    want = {key: torch.from_numpy(value) for key, value in golden(name).items()}
    weak, strong = (want[f"logits_{view}"].requires_grad_() for view in ("weak", "strong"))
    distance = bhattacharyya_between(weak, strong)
    distance.sum().backward()
    torch.testing.assert_close(distance, want["distance"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(strong.grad, want["grad_logits_strong"], rtol=0, atol=1e-10)
    torch.testing.assert_close(weak.grad, want["grad_logits_weak"], rtol=0, atol=1e-10)
    for grad in (weak.grad, strong.grad):
        assert grad.isfinite().all()
        assert grad.abs().sum(dim=1).max() <= 1 + 1e-12


@pytest.mark.parametrize("name", FILES)
def test_float32(golden, name):
    want = {key: torch.from_numpy(value) for key, value in golden(name).items()}
    distance = bhattacharyya_between(want["logits_weak"].float(), want["logits_strong"].float())
    torch.testing.assert_close(distance, want["distance"].float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FILES)
def test_to_a_distribution(golden, name):
    """As the methods charge it: the weak side is probabilities. Row 3 holds probabilities that underflow to 0."""
    want = {key: torch.from_numpy(value) for key, value in golden(name).items()}
    rows = [i for i in range(len(want["distance"])) if i != 3]
    strong = want["logits_strong"].requires_grad_()
    p = probability(want["logits_weak"])
    distance = bhattacharyya(strong, p)
    distance.sum().backward()
    torch.testing.assert_close(distance[rows], want["distance"][rows], rtol=1e-10, atol=1e-10)
    assert distance[3].isfinite()
    assert distance[3] > 100
    torch.testing.assert_close(strong.grad[rows], want["grad_logits_strong"][rows], rtol=0, atol=1e-10)
    assert strong.grad[3].abs().sum() <= 1 + 1e-12
    torch.testing.assert_close(kl(strong, p)[rows], want["kl_weak_strong"][rows], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(js(strong, p), want["js"], rtol=1e-10, atol=1e-10)

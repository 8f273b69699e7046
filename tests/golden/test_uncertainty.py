import pytest
import torch

from sfumato.functional.divergence import bhattacharyya, cross_entropy
from sfumato.functional.probability import normalized_entropy, probability
from sfumato.functional.refine import sharpen
from sfumato.functional.weigh import above, bell
from sfumato.methods import Facts, build
from sfumato.types import Progress
from tests.given import step


def method_of(want):
    options = {
        "threshold": float(want["tau"]),
        "temperature": float(want["T"]),
        "momentum": float(want["momentum"]),
        "k": (float(want["k_start"]), float(want["k_end"])),
        "entropy_range": (float(want["eps_min"]), float(want["eps_max"])),
    }
    return build("uncertainty_weighted", Facts(num_classes=want["logits_weak"].shape[2]), options)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", ["uncertainty_00", "uncertainty_01"])
def test_sequence(golden, name, dtype, tolerance):
    want = golden(name)
    method, steps = method_of(want).to(dtype), len(want["loss"])
    gate = method.weigh.first

    def check(got, key):
        torch.testing.assert_close(got, torch.as_tensor(want[key][t]).to(dtype), rtol=tolerance, atol=tolerance)

    for t in range(steps):
        weak = torch.from_numpy(want["logits_weak"][t]).to(dtype)
        strong = torch.from_numpy(want["logits_strong"][t]).to(dtype).requires_grad_()
        losses = step(method, weak, strong, progress=Progress(t, steps))
        losses.unsupervised.backward()
        p = probability(weak)
        check(normalized_entropy(p), "entropy_norm")
        check(bell(normalized_entropy(p)), "bell_weight")
        check(gate.entropy.mean, "ema_mean")
        check(gate.entropy.std, "ema_std")
        check(torch.tensor(gate.k(Progress(t, steps)), dtype=dtype), "k")
        check(gate.eps, "eps")
        check(gate(p), "mask")
        check(above(p, float(want["tau"])), "gate")
        check(cross_entropy(strong, sharpen(p, float(want["T"]))).detach(), "ce")
        check(bhattacharyya(strong, p).detach(), "distance")
        check(losses.unsupervised.detach(), "loss")
        check(strong.grad, "grad_strong")
        torch.testing.assert_close(
            losses.pseudo.weight,
            torch.from_numpy(want["mask"][t] * want["bell_weight"][t]).to(dtype),
            rtol=tolerance,
            atol=tolerance,
        )

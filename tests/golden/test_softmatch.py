import pytest
import torch

from sfumato.functional.probability import probability
from sfumato.methods import Facts, build
from sfumato.rules import Aligned, DistributionAlignment, TruncatedGaussian
from tests.given import learn, step


@pytest.mark.parametrize("name", ["softmatch_00", "softmatch_01"])
def test_rules_over_a_sequence(golden, name):
    """With the authors' start values, and their statistics of the aligned confidences."""
    want = golden(name)
    steps, _, classes = want["logits_weak"].shape
    momentum = float(want["momentum"])
    target = "uniform" if want["uniform_target"] else "model"
    align = DistributionAlignment(classes, target=target, momentum=momentum, init="peer")
    gaussian = TruncatedGaussian(classes, n_sigma=int(want["n_sigma"]), momentum=momentum)
    rule = Aligned(align, gaussian).double()

    def check(got, key):
        wanted = torch.as_tensor(want[key][t], dtype=torch.float64)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)

    for t in range(steps):
        p = probability(torch.from_numpy(want["logits_weak"][t]).double())
        weight = learn(rule, p, labeled=torch.from_numpy(want["logits_lb"][t]).double())
        check(weight, "weight")
        check(align(p), "aligned")
        check(gaussian.confidence.mean, "mu")
        check(gaussian.confidence.variance, "var")
        check(align.model.value, "p_model")
        check(align.goal, "p_target")


def test_method_from_its_first_batch(golden):
    """The first batch is all that debiased and peer averages have seen, so the method agrees there without options."""
    want = golden("softmatch_00")
    options = {"momentum": float(want["momentum"]), "n_sigma": float(want["n_sigma"]), "statistics": "aligned"}
    method = build("softmatch", Facts(want["logits_weak"].shape[2]), options).double()
    weak = torch.from_numpy(want["logits_weak"][0]).double()
    losses = step(method, weak, weak)
    torch.testing.assert_close(losses.pseudo.weight, torch.from_numpy(want["weight"][0]).double(), rtol=1e-5, atol=1e-5)
    assert torch.equal(losses.pseudo.target, weak.argmax(dim=1))

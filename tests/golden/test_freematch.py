import pytest
import torch

from sfumato.methods import Facts, build
from tests.given import step


@pytest.mark.parametrize("name", ["freematch_00", "freematch_01"])
def test_sequence(golden, name):
    want = golden(name)
    steps, _, classes = want["logits_weak"].shape
    options = {"momentum": float(want["momentum"]), "lambda_fairness": 1.0}
    if want["use_quantile"]:
        options["quantile"] = 0.8
    if want["clip_thresh"]:
        options["ceiling"] = 0.95
    method = build("freematch", Facts(classes), options).double()

    def check(got, key, tolerance=1e-5):
        wanted = torch.as_tensor(want[key][t], dtype=torch.float64)
        torch.testing.assert_close(got.detach(), wanted, rtol=tolerance, atol=tolerance)

    for t in range(steps):
        weak = torch.from_numpy(want["logits_weak"][t]).double()
        strong = torch.from_numpy(want["logits_strong"][t]).double().requires_grad_()
        losses = step(method, weak, strong)
        fair = losses.extras["fairness"]
        check(method.weigh.global_threshold, "tau")
        check(method.weigh.prior.value, "p_model")
        check(method.extras[0].histogram.value, "label_hist")
        check(losses.pseudo.weight, "mask")
        check(fair, "ent_loss")
        (grad,) = torch.autograd.grad(fair, strong)
        check(grad, "ent_grad", 1e-4)

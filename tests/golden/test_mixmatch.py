import pytest
import torch

from sfumato.functional.divergence import cross_entropy, mse
from sfumato.functional.mix import mixed
from sfumato.functional.mixmatch import guessed, mixed_labels
from sfumato.functional.probability import one_hot
from sfumato.functional.reduce import mean
from sfumato.types import Pseudo


@pytest.mark.parametrize("name", ["mixmatch_00", "mixmatch_01"])
def test_step(golden, name):
    want = {key: torch.as_tensor(value) for key, value in golden(name).items()}
    views, order = [want["x_w"], want["x_s"]], want["permutation"]
    share = want["lam"].float().expand(len(order))

    def close(got, key, tolerance=1e-5):
        torch.testing.assert_close(got, want[key].to(got.dtype), rtol=tolerance, atol=tolerance)

    q = guessed([x @ want["weight"] for x in views], float(want["T"]))
    close(q, "sharpened")
    m, classes = len(want["y_lb"]), q.shape[1]
    x = torch.cat([want["x_lb"], *views])
    target = torch.cat([one_hot(want["y_lb"], classes), q, q])
    own, other = (Pseudo(rows, torch.ones(len(rows)), torch.ones(len(rows))) for rows in (target, target[order]))
    mixed_x, labels = mixed(x, x[order], share), mixed_labels(own, other, share)
    close(mixed_x, "mixed_x")
    close(labels.target, "mixed_y")
    logits = mixed_x @ want["weight"]
    supervised = mean(cross_entropy(logits[:m], labels.target[:m]), over=labels.valid[:m])
    unsupervised = mean(mse(logits[m:], labels.target[m:]), over=labels.valid[m:])
    close(supervised, "sup_loss")
    close(unsupervised, "unsup_loss")
    close(supervised + want["ramp"] * want["lambda_u"] * unsupervised, "total_loss", 1e-3)

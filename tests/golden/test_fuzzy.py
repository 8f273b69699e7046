import numpy as np
import pytest
import torch

from sfumato.functional.divergence import kl
from sfumato.functional.probability import normalized_entropy
from sfumato.functional.rebalance import literal_class_weights, safe_class_weights
from sfumato.functional.reduce import weighted_mean
from sfumato.functional.refine import top_k
from sfumato.methods import Facts, build
from sfumato.methods.farcluss import PerClassDivergence
from sfumato.rules import ClassRebalance
from tests.given import step

each = pytest.mark.parametrize("name", ["fuzzy_00", "fuzzy_01", "fuzzy_02"])


def tensors(want):
    return {key: torch.from_numpy(np.asarray(value)) for key, value in want.items()}


def check(got, want, tolerance=1e-9):
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@each
def test_functions(golden, name):
    want = tensors(golden(name))
    p, logits = want["prob_teacher"], want["logits_student"].requires_grad_()
    fuzzy = top_k(p, int(want["K"]))
    check(torch.zeros_like(p).scatter(1, fuzzy.labels, fuzzy.share), want["fuzzy"])
    assert torch.equal(fuzzy.labels[:, 0], want["label"])
    check(normalized_entropy(p), want["entropy_norm"])
    check(kl(logits, fuzzy).detach(), want["kl_per_pixel"])

    counts, weight, label = want["class_count"], want["pixel_weight"], want["label"]
    literal, safe = literal_class_weights(counts), safe_class_weights(counts)
    check(literal, want["weight_literal"], 1e-6)
    check(safe, want["weight_safe_normalised"])

    def loss(weights):
        return weighted_mean(kl(logits, fuzzy), weight * weights[label], over=want["valid"])

    check(loss(torch.ones_like(counts)).detach(), want["loss_no_rebalance"])
    check(loss(literal).detach(), want["loss_literal_argmax"])
    check(loss(safe).detach(), want["loss_safe_argmax"])
    (gradient,) = torch.autograd.grad(loss(safe), logits)
    check(gradient, want["grad_safe"])

    rule = ClassRebalance(p.shape[1], reading="literal").double()
    rule.counts.average.copy_(counts)
    per_class = weighted_mean(PerClassDivergence(rule)(logits, fuzzy), weight, over=want["valid"])
    check(per_class.detach(), want["loss_literal_per_class"], 1e-6)


@each
def test_the_method_counts_and_combines_them(golden, name):
    """With all pixels valid, as the counts of these vectors have it."""
    want = tensors(golden(name))
    p, k = want["prob_teacher"], int(want["K"])
    for rebalance, key in (("safe", "weight_safe_normalised"), ("literal", "weight_literal"), ("none", None)):
        method = build("farcluss", Facts(p.shape[1]), {"k": k, "rebalance": rebalance, "lambda_u": 1.0}).double()
        losses = step(method, p.log(), want["logits_student"])
        classes = 1.0 if key is None else want[key][want["label"]]
        check(losses.pseudo.weight, want["pixel_weight"] * classes, 1e-6 if key == "weight_literal" else 1e-9)
        check(losses.unsupervised, (losses.pseudo.weight * want["kl_per_pixel"]).mean())

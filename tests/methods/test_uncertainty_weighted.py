"""Every named option against the formulas written out once more, in float64, with autograd for the gradients."""

from __future__ import annotations

import ast
import inspect
import itertools
import math

import pytest
import torch

from sfumato.addons import join
from sfumato.errors import UsageError
from sfumato.methods import Facts, build, options
from sfumato.methods import uncertainty_weighted as module_or_function
from sfumato.types import Progress
from tests.given import step

C, N = 6, 40
DEFAULTS = {
    "gate": "ce",
    "weight": "bell",
    "target": "soft",
    "divergence": "bhattacharyya",
    "detach_weak": True,
    "threshold": 0.95,
    "temperature": 0.5,
    "k": (1.0, 2.0),
    "entropy_range": (0.2, 0.95),
    "momentum": 0.999,
    "align": "none",
    "lambda_u": 1.0,
    "labeled_strong": False,
}


def logits(seed=0):
    draw = torch.Generator().manual_seed(seed)
    sharp = torch.rand((N, 1), generator=draw, dtype=torch.float64) * 6
    weak = torch.randn((N, C), generator=draw, dtype=torch.float64) * sharp
    return weak, weak + torch.randn((N, C), generator=draw, dtype=torch.float64)


def entropies(p):
    return -(p * p.log()).sum(1) / math.log(p.shape[1])


def first_loss(weak, strong, *, fraction=0.0, prior=None, **given):
    """The unlabelled loss of the first step. `weak` takes gradient through the distance alone."""
    o = {**DEFAULTS, **given}
    attached, q = weak.softmax(1), strong.softmax(1)
    p = attached.detach()
    if prior is not None:
        p = p * (prior + 1e-6) / (p.mean(0) + 1e-6)
        p = p / p.sum(1, keepdim=True)
    e = entropies(p)
    k = o["k"][0] + (o["k"][1] - o["k"][0]) * fraction
    eps = min(max((e.mean() + k * e.std(unbiased=False)).item(), o["entropy_range"][0]), o["entropy_range"][1])
    m = (e <= eps).double()
    bell = 4 * e * (1 - e)
    w = {
        "bell": bell,
        "normalised_bell": bell,
        "one": torch.ones_like(e),
        "one_minus_e": 1 - e,
        "one_sided_bell": torch.where(e <= 0.5, torch.ones_like(e), bell),
    }[o["weight"]]
    mw = m * w
    if o["weight"] == "normalised_bell":
        mw = (mw / mw.mean()).clamp(0, 10)
    reaches = (p.max(1).values >= o["threshold"]).double()
    g = {"ce": (reaches, 1.0), "none": (1.0, 1.0), "both": (reaches, reaches)}[o["gate"]]
    if o["target"] == "hard":
        t = torch.nn.functional.one_hot(p.argmax(1), p.shape[1]).double()
    else:
        t = (p.log() / o["temperature"]).softmax(1)
    d = attached if prior is None and not o["detach_weak"] else p
    mid = (d + q) / 2
    coefficient = (d * q).sqrt().sum(1)
    distance = {
        "bhattacharyya": -coefficient.log(),
        "hellinger": 1 - coefficient,
        "kl": (d * (d / q).log()).sum(1),
        "js": ((d * (d / mid).log()).sum(1) + (q * (q / mid).log()).sum(1)) / 2,
        "none": torch.zeros_like(coefficient),
    }[o["divergence"]]
    ce = -(t * q.log()).sum(1)
    return o["lambda_u"] * (mw * (g[0] * ce + g[1] * distance)).mean()


def method(**given):
    return build("uncertainty_weighted", Facts(C), given).double()


def compare(*, progress=None, labeled=None, prior=None, y=None, **given):
    """Loss and both gradients of the first step equal the formula's; returns the loss."""
    progress = progress or Progress(0, 11)
    results = []
    for own in (True, False):
        weak, strong = (x.requires_grad_() for x in logits())
        if own:
            losses = step(method(**given), weak, strong, progress=progress, labeled=labeled, y=y)
            loss = losses.unsupervised + sum(losses.extras.values())
        else:
            loss = first_loss(weak, strong, fraction=progress.fraction, prior=prior, **given)
        loss.backward()
        results.append((loss.detach(), strong.grad, torch.zeros_like(weak) if weak.grad is None else weak.grad))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)
    return results[0][0].item()


def test_the_defaults_are_the_documented_ones():
    assert {key: p.default for key, p in options("uncertainty_weighted").items()} == DEFAULTS
    flat = {key: p.default for key, p in options("uncertainty_weighted_flat").items()}
    assert flat == {**DEFAULTS, "weight": "one"}


@pytest.mark.parametrize("gate", ["ce", "none", "both"])
@pytest.mark.parametrize("target", ["soft", "hard"])
def test_gate_weight_target_and_divergence(gate, target):
    weights = ("bell", "one", "one_minus_e", "normalised_bell", "one_sided_bell")
    distances = ("bhattacharyya", "kl", "js", "hellinger", "none")
    seen = {
        compare(gate=gate, target=target, weight=weight, divergence=divergence, threshold=0.6)
        for weight, divergence in itertools.product(weights, distances)
    }
    assert len(seen) == len(weights) * len(distances)  # every combination is a loss of its own


def test_gate_and_target_change_the_loss():
    seen = {compare(gate=gate, target=target) for gate in ("ce", "none", "both") for target in ("soft", "hard")}
    assert len(seen) == 6


@pytest.mark.parametrize("gate", ["ce", "none", "both"])
@pytest.mark.parametrize("weight", ["bell", "one", "normalised_bell"])
def test_not_detached_the_distance_pulls_the_weak_view_too(gate, weight):
    detached = compare(gate=gate, weight=weight, threshold=0.6)
    assert compare(gate=gate, weight=weight, threshold=0.6, detach_weak=False, lambda_u=0.7) == pytest.approx(
        0.7 * detached
    )
    weak, strong = (x.requires_grad_() for x in logits())
    losses = step(method(detach_weak=False), weak, strong)
    (losses.unsupervised + losses.extras["weak_pull"]).backward()
    assert losses.extras["weak_pull"].item() == 0
    assert weak.grad.abs().sum() > 0.01


def test_no_such_gradient_for_other_distances():
    for given in ({"divergence": "kl"}, {"align": "uniform"}):
        with pytest.raises(UsageError, match="needs divergence='bhattacharyya' and align='none'"):
            method(detach_weak=False, **given)


def test_temperature_and_threshold():
    assert len({compare(temperature=t, threshold=0.5) for t in (0.25, 0.5, 1.0, 2.0)}) == 4
    assert len({compare(threshold=t) for t in (0.3, 0.6, 0.95)}) == 3


def test_k_moves_with_training():
    seen = {compare(k=(-0.5, 1.5), progress=Progress(k, 11)) for k in (0, 5, 10)}
    assert len(seen) == 3


def test_the_entropy_range_limits_the_mask():
    assert len({compare(k=(0.0, 0.0), entropy_range=r) for r in ((0.0, 0.1), (0.2, 0.95), (0.9, 1.0))}) == 3
    narrow = method(k=(0.0, 0.0), entropy_range=(0.0, 0.1))
    weak, strong = logits()
    pseudo = step(narrow, weak, strong).pseudo
    assert (pseudo.weight[entropies(weak.softmax(1)) > 0.1] == 0).all()


@pytest.mark.parametrize("align", ["uniform", "labeled", "model"])
def test_alignment_comes_before_all_else(align):
    labeled = logits(seed=3)[0][:12]
    y = torch.tensor([0] * 6 + [1, 2, 3, 4, 5, 5])
    prior = {
        "uniform": torch.full((C,), 1 / C, dtype=torch.float64),
        "labeled": torch.bincount(y, minlength=C).double() / 12,
        "model": labeled.softmax(1).mean(0),
    }[align]
    tight = {"k": (0.0, 0.0), "entropy_range": (0.0, 1.0), "threshold": 0.6}  # the mask is of the aligned entropies
    assert compare(align=align, labeled=labeled, y=y, prior=prior, **tight) != compare(**tight)


def test_normalised_weights_follow_a_moving_mean():
    first, second = logits(), logits(seed=5)
    own = method(weight="normalised_bell", momentum=0.9, k=(9.0, 9.0), entropy_range=(1.0, 1.0))
    step(own, *first)
    pseudo = step(own, *second).pseudo
    bells = [4 * e * (1 - e) for e in (entropies(weak.softmax(1)) for weak, _ in (first, second))]
    mean = 0.9 * bells[0].mean() + 0.1 * bells[1].mean()
    torch.testing.assert_close(pseudo.weight, (bells[1] / mean).clamp_max(10))


def test_the_mask_observes_the_batch_before_it_is_used():
    own = method(k=(0.0, 0.0), entropy_range=(0.0, 1.0))
    weak, strong = logits()
    pseudo = step(own, weak, strong).pseudo
    e = entropies(weak.softmax(1))
    assert torch.equal(pseudo.weight > 0, e <= e.mean())


def test_the_bell_weighs_the_sure_little():
    """What the documentation says of the paper's weight: at most 0.46 past the gate with 10 classes, 1 when flat."""
    weak = torch.zeros(1, 10, dtype=torch.float64)
    weak[0, 0] = math.log(0.95 / (0.05 / 9))
    for name, expected in (("uncertainty_weighted", 0.464), ("uncertainty_weighted_flat", 1.0)):
        pseudo = step(build(name, Facts(10)).double(), weak, weak).pseudo
        assert pseudo.weight.item() == pytest.approx(expected, abs=1e-3)


def code_lines(source):
    """Lines that hold code: no blank line, comment, import or docstring."""
    tree, skipped = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            skipped |= set(range(node.lineno, node.end_lineno + 1))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            skipped |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return [line for k, line in lines if k not in skipped and line.strip() and not line.strip().startswith("#")]


def test_the_method_stays_short():
    source = inspect.getsource(inspect.getmodule(module_or_function))
    assert len(code_lines(source)) <= 60, len(code_lines(source))


def test_code_lines_are_counted():
    source = '"""Doc."""\nimport os\n\n# why\nx = 1\n\n\ndef f():\n    """Two\n    lines."""\n    return x\n'
    assert code_lines(source) == ["x = 1", "def f():", "    return x"]


@pytest.mark.parametrize("addon", ["debiaspl", "saw", "distribution_alignment", "darp", "seval"])
def test_where_the_distance_pulls_both_no_add_on_may_come_between(addon):
    facts = Facts(3, 100, num_labeled=60, label_counts=(40, 15, 5))
    pulled = build("uncertainty_weighted", facts, {"detach_weak": False})
    with pytest.raises(UsageError, match=r"does not fit method=\w+ as it is set: .*method\.detach_weak=true \(unc"):
        join(addon, pulled, facts, method_name="uncertainty_weighted")
    join(addon, build("uncertainty_weighted", facts), facts)

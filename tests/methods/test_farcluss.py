"""FARCLUSS's options against the formulas written out once more, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.probability import probability
from sfumato.methods import Facts, build
from sfumato.methods.farcluss import PerClassDivergence
from sfumato.rules import ClassRebalance, PrototypeAttraction
from sfumato.types import Batch, Output, Pseudo, Sparse, Unlabeled, Views, unwarped
from tests.given import step
from tests.methods.cases import Case, assert_same
from tests.methods.conformance import trajectory
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, Echo

N, C = 60, 7


def logits(space=(), present=5, seed=0):
    """Weak and strong, the last classes seldom or never the argmax."""
    draw = torch.Generator().manual_seed(seed)
    sharp = torch.rand((N, 1, *space), generator=draw, dtype=torch.float64) * 4
    weak = torch.randn((N, C, *space), generator=draw, dtype=torch.float64) * sharp
    weak[:, present:] = weak[:, :present].amin(dim=1, keepdim=True) - 0.1
    return weak, weak + torch.randn(weak.shape, generator=draw, dtype=torch.float64)


def by_hand(weak, strong, valid, *, rebalance="safe", gate=None, k=2, normalize="valid"):
    """L_u by a loop over samples."""
    p, log_q = weak.softmax(dim=1), strong.log_softmax(dim=1)
    counts = [sum(float(v) for row, v in zip(p, valid, strict=True) if int(row.argmax()) == c) for c in range(C)]
    present = sorted(c for c in counts if c > 0)
    n = len(present)
    median = (present[(n - 1) // 2] + present[n // 2]) / 2
    safe = [min(10, max(0.1, median / c)) if c else 1.0 for c in counts]
    mean = sum(w * c for w, c in zip(safe, counts, strict=True)) / sum(counts)
    classes = {
        "none": [1.0] * C,
        "literal": [sorted(counts)[(C - 1) // 2] / (c + 1e-6) for c in counts],
    }.get(rebalance, [w / mean for w in safe])
    total, weights = 0.0, []
    for row, own, v in zip(p, log_q, valid, strict=True):
        chosen = row.topk(k)
        f = chosen.values / chosen.values.sum()
        e = float(-(row * row.log()).sum() / math.log(C))
        w = 1 - e if gate is None or e <= gate else 0.0
        kl = float((f * (f.log() - own[chosen.indices])).sum())
        if rebalance == "expected":
            w *= sum(float(x) * classes[int(c)] for x, c in zip(f, chosen.indices, strict=True))
        else:
            w *= classes[int(chosen.indices[0])]
        weights.append(w)
        total += w * kl * float(v)
    kept = float(valid.sum())
    divisor = {
        "valid": kept,
        "selected": sum(w > 0 for w, v in zip(weights, valid, strict=True) if v),
        "all": N,
        "weight_sum": sum(w * float(v) for w, v in zip(weights, valid, strict=True)),
        "elements": N * C,
    }[normalize]
    return total / divisor


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rebalance": "none"},
        {"rebalance": "literal"},
        {"rebalance": "expected", "k": 3},
        {"rebalance": "safe_ema"},
        {"entropy_gate": 0.4},
        {"k": 1},
        *({"normalize": normalize, "entropy_gate": 0.5} for normalize in ("selected", "all", "weight_sum", "elements")),
    ],
    ids=str,
)
def test_first_loss(options):
    weak, strong = logits()
    valid = (torch.rand(N, generator=torch.Generator().manual_seed(3)) < 0.7).double()
    losses = step(build("farcluss", Facts(C), options).double(), weak, strong, valid=valid)
    about = {("gate" if key == "entropy_gate" else key): value for key, value in options.items()}
    assert float(losses.unsupervised) == pytest.approx(0.5 * by_hand(weak, strong, valid, **about), rel=1e-9)
    assert float(losses.extras["prototypes"]) > 0


def test_the_literal_weight_gives_nothing_when_half_of_the_classes_are_absent():
    weak, strong = logits(present=3)
    strong = strong.requires_grad_()
    losses = step(build("farcluss", Facts(C), {"rebalance": "literal"}).double(), weak, strong)
    assert losses.unsupervised.item() == 0.0
    (gradient,) = torch.autograd.grad(losses.unsupervised, strong)
    assert (gradient == 0).all()
    losses = step(build("farcluss", Facts(C)).double(), weak, strong)
    (gradient,) = torch.autograd.grad(losses.unsupervised, strong)
    assert losses.unsupervised > 0.01
    assert gradient.abs().sum() > 0.01


def test_the_gradient_is_weight_times_q_minus_f():
    weak, strong = logits()
    strong.requires_grad_()
    method = build("farcluss", Facts(C), {"lambda_proto": 0.0}).double()
    losses = step(method, weak, strong)
    (gradient,) = torch.autograd.grad(losses.unsupervised, strong)
    fuzzy = losses.pseudo.target
    dense = torch.zeros_like(weak).scatter(1, fuzzy.labels, fuzzy.share)
    want = 0.5 * losses.pseudo.weight.unsqueeze(1) * (probability(strong.detach()) - dense) / N
    torch.testing.assert_close(gradient, want, rtol=1e-9, atol=1e-12)


def test_counts_are_averaged_over_batches_only_by_safe_ema():
    for reading, moved in (("safe", 0.0), ("safe_ema", 0.9)):
        rule = build("farcluss", Facts(C), {"rebalance": reading}).weigh.second
        seen = []
        for seed in (0, 1):
            weak, _ = logits(seed=seed)
            rule.observe(probability(weak), torch.ones(N), None)
            seen.append(torch.bincount(weak.argmax(dim=1), minlength=C).float())
        torch.testing.assert_close(rule.counts.value, moved * seen[0] + (1 - moved) * seen[1])


def test_per_class_is_no_divergence():
    """Its least value is negative, and lies at q ~ w f: the label is turned round."""
    rule = ClassRebalance(2, reading="literal").double()
    rule.counts.average.copy_(torch.tensor([50.0, 1.0]))  # w = 0.02, 1
    fuzzy = Sparse(torch.tensor([[0, 1]]), torch.tensor([[0.7, 0.3]], dtype=torch.float64))
    charge = PerClassDivergence(rule)

    def at(q):
        return float(charge(torch.tensor([q]).double().log(), fuzzy))

    assert at([0.7, 0.3]) == pytest.approx(0, abs=1e-6)
    assert at([0.045, 0.955]) == pytest.approx(-0.31, abs=0.01)
    assert at([0.045, 0.955]) < min(at([0.02, 0.98]), at([0.1, 0.9]))


def test_per_class_warns_and_weighs_inside_the_divergence():
    weak, strong = logits(present=C)
    with pytest.warns(UserWarning, match=r"farcluss\(rebalance_scope='per_class'\) is eq. 8 as printed"):
        method = build("farcluss", Facts(C), {"rebalance": "literal", "rebalance_scope": "per_class"}).double()
    losses = step(method, weak, strong)
    p, log_q = weak.softmax(dim=1), strong.log_softmax(dim=1)
    counts = torch.bincount(p.argmax(dim=1), minlength=C).double()
    w = counts.median() / (counts + 1e-6)
    share, labels = p.topk(2, dim=1)
    f = share / share.sum(dim=1, keepdim=True)
    entropy = -(p * p.log()).sum(dim=1) / math.log(C)
    charge = (w[labels] * f * (f.log() - log_q.gather(1, labels))).sum(dim=1)
    torch.testing.assert_close(losses.unsupervised, 0.5 * ((1 - entropy) * charge).mean(), rtol=1e-6, atol=0)
    torch.testing.assert_close(losses.pseudo.weight, 1 - entropy)


def test_two_strong_views_share_the_label_of_a_teacher():
    views = build("farcluss", Facts(C)).views
    assert (views.strong, views.teacher, views.uncut, views.patches) == (2, "ema", 0, False)


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION], ids=lambda task: task.name)
@pytest.mark.parametrize(
    "options",
    [
        {"proto_repulsion": "infonce"},
        {"proto_grad": "literal"},
        {"projection": 6},
        {"projection": 4, "proto_repulsion": "infonce"},
        {"rebalance": "expected", "normalize": "weight_sum"},
        {"rebalance": "literal"},
    ],
    ids=str,
)
def test_two_ranks_equal_one(two_ranks, task, options):
    alone = with_options(task, options)
    for rank in two_ranks.call(with_options, task, options):
        assert_same(rank, alone, 1e-5)


def with_options(task, options):
    return trajectory(Case("farcluss", lambda facts, given: build("farcluss", facts, options), task))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"k": 0}, r"farcluss\(k=0\): expected 1 to 7, the number of classes"),
        ({"k": 8}, r"farcluss\(k=8\): expected 1 to 7"),
        ({"entropy_gate": 1.5}, r"EntropyLimit\(limit=1.5\): expected a number between 0 and 1; 1 lets all pass"),
        ({"rebalance": "none", "rebalance_scope": "per_class"}, "needs rebalance='literal', 'safe' or 'safe_ema'"),
        ({"proto_grad": "literal", "proto_repulsion": "infonce"}, "needs proto_grad='detached'"),
        ({"projection": 0}, r"PrototypeAttraction\(projection=0\): expected at least 1, or None"),
    ],
)
def test_wrong_options_say_what_is_expected(options, text):
    with pytest.raises(UsageError, match=text):
        build("farcluss", Facts(C), options)


# --- prototypes


def prototypes_by_hand(features, labels, selected, layers):
    """Eq. 9-10 by loops over rows, of a projection by its four tensors and layer norm's two, or of features as is."""

    def projected(x):
        if layers is None:
            return x
        first, shift, gain, bias, last, offset = layers
        x = first @ x + shift
        x = (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) * gain + bias
        return last @ x.clamp_min(0) + offset

    terms = []
    for c in range(C):
        rows = [projected(f) for f, y, s in zip(features, labels, selected, strict=True) if s and int(y) == c]
        if rows:
            prototype = (sum(rows) / len(rows)).detach()
            cosines = [(row @ prototype) / (row.norm() * prototype.norm()) for row in rows]
            terms.append(sum(1 - cosine for cosine in cosines) / len(rows))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("space", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("projection", [None, 5, 128])
def test_second_loss(projection, space):
    weak, strong = (x[:12] * 2 for x in logits(space))
    strong.requires_grad_()
    valid = (torch.rand((12, *space), generator=torch.Generator().manual_seed(3)) < 0.7).double()
    method = build("farcluss", Facts(C), {"projection": projection}).double()
    torch.manual_seed(0)
    method.attach(Echo(classes=C))
    layers = list(method.double().parameters())
    with torch.no_grad():
        for one in layers:
            one += 0.3 * torch.randn(one.shape, dtype=one.dtype)
    losses = step(method, weak, strong, valid=valid)

    p = weak.softmax(dim=1)
    certain = 1 + (p * p.log()).sum(dim=1) / math.log(C) > 0.5
    selected = (certain & (valid > 0)).flatten().tolist() * 2  # two strong views, here the same
    labels = weak.argmax(dim=1).flatten().repeat(2)
    rows = strong.movedim(1, -1).reshape(-1, C).repeat(2, 1)
    want = 0.1 * prototypes_by_hand(rows, labels, selected, layers or None)
    torch.testing.assert_close(losses.extras["prototypes"], want, rtol=1e-9, atol=0)
    assert 0.2 < sum(selected) / len(selected) < 0.8
    got = torch.autograd.grad(losses.extras["prototypes"], [strong, *layers])
    torch.testing.assert_close(got, torch.autograd.grad(want, [strong, *layers]), rtol=1e-7, atol=1e-12)
    assert len(layers) == (6 if projection else 0)


def test_the_projection_is_of_the_size_asked_for_and_saved_with_the_method():
    sizes = {}
    for projection in (None, 128):
        method = build("farcluss", Facts(C), {"projection": projection})
        method.attach(Echo(classes=C))
        sizes[projection] = {key: tuple(x.shape) for key, x in method.state_dict().items() if "projection" in key}
    assert sizes[None] == {}
    weights = {key.removeprefix("extras.0.projection."): shape for key, shape in sizes[128].items() if "weight" in key}
    assert weights == {"0.weight": (128, C), "1.weight": (128,), "3.weight": (128, 128)}


def maps(features, *, labels, selected, valid, warps=(unwarped,)):
    rule = PrototypeAttraction(3, weight=1.0)
    rule.selected = selected
    outputs = tuple(Output(features[i], features[i]) for i in range(len(warps)))
    unlabeled = Unlabeled(labels, (labels,) * len(warps), valid, torch.arange(len(labels)), warps)
    pseudo = Pseudo(labels, torch.ones_like(selected), valid)
    return rule(Views(outputs[0], strong=outputs), Batch(None, unlabeled), pseudo, None)


def test_labels_are_taken_from_the_nearest_pixel():
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2, 8, 12), generator=draw)
    selected, valid = ((torch.rand((2, 8, 12), generator=draw) < share).float() for share in (0.7, 0.5))
    features = torch.randn((1, 2, 5, 2, 3), generator=draw)
    small = [x[:, 2::4, 2::4] for x in (labels, selected, valid)]
    assert (small[1] > small[2]).any()
    got = maps(features, labels=labels, selected=selected, valid=valid)
    counted = small[1] * small[2]  # what is not valid is not selected either
    want = maps(features, labels=small[0], selected=counted, valid=torch.ones_like(counted))
    torch.testing.assert_close(got, want)


def test_both_views_make_the_prototypes_each_with_its_warp():
    draw = torch.Generator().manual_seed(0)
    labels, ones = torch.randint(3, (4, 6), generator=draw), torch.ones(4, 6)
    features = torch.randn((2, 4, 5, 6), generator=draw)

    def flip(pseudo):
        return Pseudo(*(x.flip(-1) for x in (pseudo.target, pseudo.weight, pseudo.valid)))

    turned = torch.stack([features[0], features[1].flip(-1)])
    together = torch.cat([features[0], features[1]]).unsqueeze(0)
    want = maps(together, labels=labels.repeat(2, 1), selected=ones.repeat(2, 1), valid=ones.repeat(2, 1))
    torch.testing.assert_close(maps(turned, labels=labels, selected=ones, valid=ones, warps=(unwarped, flip)), want)
    other = maps(turned, labels=labels, selected=ones, valid=ones, warps=(unwarped, unwarped))
    assert (other - want).abs() > 1e-3


def test_certainty_selects_and_the_weight_of_classes_does_not():
    rule = PrototypeAttraction(3, threshold=0.5)
    p = torch.tensor([[0.98, 0.01, 0.01], [0.5, 0.3, 0.2], [0.9, 0.05, 0.05]])
    rule.observe(p, torch.ones(3), None)
    assert rule.selected.tolist() == [1.0, 0.0, 1.0]


def test_a_network_without_features_is_explained():
    labels, ones = torch.zeros(2, 4, 4, dtype=torch.int64), torch.ones(2, 4, 4)
    with pytest.raises(UsageError, match="needs a network that gives features beside its logits"):
        maps([None], labels=labels, selected=ones, valid=ones)
    with pytest.raises(UsageError, match=r"got \(2, 5\) for labels of shape \(2, 4, 4\)"):
        maps(torch.zeros(1, 2, 5), labels=labels, selected=ones, valid=ones)

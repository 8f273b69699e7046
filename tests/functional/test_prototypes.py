import math

import pytest
import torch

from sfumato.functional.prototypes import attraction, class_means, contrast, feature_sums, mean_over_classes, unit
from tests.functional.oracle import logits_of

M, D, C = 30, 4, 5


def given(seed=0):
    """The last class has no feature, and what is not selected would change everything."""
    draw = torch.Generator().manual_seed(seed)
    features = logits_of(M, D, seed=seed)
    labels = torch.randint(C - 1, (M,), generator=draw)
    selected = (torch.rand(M, generator=draw) < 0.6).double()
    features[selected == 0] *= 1e3
    return features, labels, selected


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def by_loops(features, labels, selected, temperature=None):
    """Prototypes, and the mean over the classes present of the mean charge."""
    groups = {c: [f for f, y, s in zip(features, labels, selected, strict=True) if y == c and s] for c in range(C)}
    centers = {c: [sum(x) / len(g) for x in zip(*g, strict=True)] for c, g in groups.items() if g}

    def charge(f, c):
        if temperature is None:
            return 1 - cosine(f, centers[c])
        scores = {k: cosine(f, center) / temperature for k, center in centers.items()}
        return math.log(sum(math.exp(s) for s in scores.values())) - scores[c]

    means = [sum(charge(f, c) for f in groups[c]) / len(groups[c]) for c in centers]
    return centers, sum(means) / len(means)


def test_against_loops():
    features, labels, selected = given()
    sums, counts = feature_sums(features, labels, selected, C)
    prototypes = class_means(sums, counts)
    centers, drawn = by_loops(features.tolist(), labels.tolist(), selected.tolist())
    for c in range(C):
        assert prototypes[c].tolist() == pytest.approx(centers.get(c, [0.0] * D))
    assert counts[-1] == 0
    units = class_means(feature_sums(unit(features), labels, selected, C)[0], counts)
    assert float(attraction(units, prototypes, counts > 0)) == pytest.approx(drawn)

    _, driven = by_loops(features.tolist(), labels.tolist(), selected.tolist(), temperature=0.2)
    charges = contrast(features, labels, prototypes, counts > 0, 0.2)
    assert float(mean_over_classes(charges, labels, selected, counts)) == pytest.approx(driven)


def attracted(features, labels, selected, *, detached):
    sums, counts = feature_sums(features, labels, selected, C)
    units = class_means(feature_sums(unit(features), labels, selected, C)[0], counts)
    return attraction(units, class_means(sums.detach() if detached else sums, counts), counts > 0)


def test_gradients():
    features, labels, selected = given()
    features = (features * torch.where(selected > 0, 1.0, 1e-3).unsqueeze(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: attracted(f, labels, selected, detached=False), (features,))
    (gradient,) = torch.autograd.grad(attracted(features, labels, selected, detached=True), features)
    assert (gradient[selected == 0] == 0).all()
    # a cosine does not change with the length of a feature
    torch.testing.assert_close((gradient * features).sum(dim=1), torch.zeros(M, dtype=torch.float64))
    _, counts = feature_sums(features, labels, selected, C)
    prototypes = logits_of(C, D, seed=4)
    assert torch.autograd.gradcheck(
        lambda f: mean_over_classes(contrast(f, labels, prototypes, counts > 0), labels, selected, counts), (features,)
    )


def test_a_step_down_the_gradient_draws_a_class_together():
    features, labels, selected = given()
    features = unit(features).requires_grad_()
    before = attracted(features, labels, selected, detached=True)
    (gradient,) = torch.autograd.grad(before, features)
    assert attracted(features - gradient, labels, selected, detached=True) < before


def test_contrast_drives_classes_apart_where_attraction_is_content():
    features = torch.ones(6, 3, dtype=torch.float64)
    labels, selected = torch.tensor([0, 0, 1, 1, 2, 2]), torch.ones(6)
    sums, counts = feature_sums(features, labels, selected, 3)
    prototypes = class_means(sums, counts)
    assert attracted(features, labels, selected, detached=True).abs() < 1e-12
    assert contrast(features, labels, prototypes, counts > 0).tolist() == pytest.approx([math.log(3)] * 6)


@pytest.mark.parametrize("selected", [torch.zeros(M).double(), torch.eye(M)[3].double()])
def test_nothing_and_one_selected(selected):
    features, labels, _ = given()
    features.requires_grad_()
    loss = attracted(features, labels, selected, detached=True)
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.abs() < 1e-12
    assert gradient.abs().max() < 1e-6
    sums, counts = feature_sums(features.detach(), labels, selected, C)
    charges = contrast(features, labels, class_means(sums, counts), counts > 0)
    loss = mean_over_classes(charges, labels, selected, counts)
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert (gradient[selected == 0] == 0).all()


def test_half_precision_of_autocast_does_not_round_the_contrast():
    features, labels, selected = (x.float() if x.is_floating_point() else x for x in given())
    sums, counts = feature_sums(features, labels, selected, C)
    want = contrast(features, labels, class_means(sums, counts), counts > 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrast(features, labels, class_means(sums, counts), counts > 0), want)

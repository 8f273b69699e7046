"""The verdict on mean IoU: planted differences are found, none is invented, the interval holds what it promises."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from sfumato import verdict_iou
from sfumato.errors import UsageError
from sfumato.functional.iou import mean_iou
from sfumato.verdict_iou import compare_iou

SHARE = np.array([0.5, 0.3, 0.15, 0.05])  # of the pixels
PRESENT = np.array([1.0, 1.0, 0.7, 0.3])  # of the images


def scenes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each class in each image, and how hard each is there."""
    draw = np.random.default_rng(seed)
    there = draw.random((n, 4)) < PRESENT
    return np.round(2000 * SHARE * there * draw.lognormal(0, 0.5, (n, 4))).astype(int), draw.normal(0, 0.5, (n, 4))


def run(scene: tuple[np.ndarray, np.ndarray], skill: float, seed: int) -> np.ndarray:
    """Matrices of a network: the wrong pixels of a class go to the next one."""
    pixels, hard = scene
    draw = np.random.default_rng(seed)
    right = 1 / (1 + np.exp(-(1.5 + skill + hard + draw.normal(0, 0.3, hard.shape))))
    hit = draw.binomial(pixels, right)
    counts = np.zeros((len(pixels), 4, 4), dtype=np.int32)
    counts[:, range(4), range(4)] = hit
    counts[:, range(4), (1, 2, 3, 0)] = pixels - hit
    return counts


def miou(counts: np.ndarray) -> float:
    return float(mean_iou(torch.from_numpy(counts.astype(np.int64)).sum(dim=0)))


def pair(skill: float, *, n: int = 200, seeds: int = 1, **options):
    scene = scenes(n)
    method = [run(scene, skill, 10 + s) for s in range(seeds)]
    return compare_iou(method, [run(scene, 0.0, 50 + s) for s in range(seeds)], name="farcluss", **options)


def test_helps_with_its_sentence():
    scene = scenes(200)
    method, baseline = run(scene, 0.5, 1), run(scene, 0.0, 2)
    verdict = compare_iou([method], [baseline], name="farcluss")
    assert (verdict.answer, verdict.metric, verdict.n, verdict.seeds) == ("helps", "miou", 200, 1)
    assert verdict.difference == pytest.approx(miou(method) - miou(baseline))
    assert verdict.sentence == (
        f"The unlabelled images help: farcluss is {100 * verdict.difference:.1f} points of mIoU (95 % interval "
        f"{100 * verdict.low:.1f} to {100 * verdict.high:.1f}) above labels-only training with the same strong views "
        f"({100 * miou(method):.1f} % against {100 * miou(baseline):.1f} % mIoU), on the same 200 held-out images, "
        "1 seed (other draws of labels are not covered)."
    )


def test_hurts_with_its_sentence():
    verdict = pair(-0.5, seeds=3, against="supervised")
    assert verdict.answer == "hurts"
    assert verdict.sentence.startswith(
        f"The unlabelled images hurt: farcluss is {-100 * verdict.difference:.1f} points of mIoU (95 % interval "
        f"{-100 * verdict.high:.1f} to {-100 * verdict.low:.1f}) below labels-only training ("
    )
    assert verdict.sentence.endswith(" % mIoU), on the same 200 held-out images, 3 seeds.")


def test_no_difference_with_its_sentence():
    scene = scenes(2000)
    same = run(scene, 0.0, 1)
    verdict = compare_iou([same], [run(scene, 0.0, 2)], name="csl")
    assert verdict.answer == "no difference"
    assert -0.01 < verdict.low < 0 < verdict.high < 0.01
    assert verdict.sentence.startswith("The unlabelled images make no difference beyond 1 % either way: csl is 0.")
    assert " points of mIoU " in verdict.sentence
    assert " points below to 0." in verdict.sentence
    equal = compare_iou([same], [same], name="csl")
    assert (equal.difference, equal.answer) == (0.0, "no difference")
    assert "csl is level with" in equal.sentence


def test_cannot_tell_with_its_sentence():
    verdict = pair(0.05, n=40)
    assert verdict.answer == "cannot tell"
    assert verdict.sentence.startswith(
        "Cannot tell whether the unlabelled images help, more held-out masks or seeds would show it: farcluss is "
    )
    assert pair(0.05, n=40, margin=0.2).answer == "no difference"


@pytest.mark.parametrize("n, said", [(1, "there is 1:"), (29, "there are 29:")])
def test_too_few_images_never_decide(n, said):
    verdict = pair(3.0, n=n)
    assert verdict.answer == "cannot tell"
    start = "Cannot tell whether the unlabelled images help, at least 30 held-out masks are needed and "
    assert verdict.sentence.startswith(start + said)
    assert pair(3.0, n=n, fewest=1).answer == "helps"


def test_images_without_labels_count_for_nothing():
    scene = scenes(40)
    runs = [run(scene, 0.3, 1), run(scene, 0.0, 2)]
    void = np.zeros((9, 4, 4), dtype=np.int32)
    plain = compare_iou(runs[:1], runs[1:], name="m")
    assert compare_iou([np.concatenate([void, runs[0]])], [np.concatenate([void, runs[1]])], name="m") == plain
    verdict = compare_iou([void], [void], name="m")
    assert (verdict.n, verdict.answer) == (0, "cannot tell")
    assert math.isnan(verdict.difference)
    assert verdict.sentence == (
        "Cannot tell whether the unlabelled images help: no held-out image has a mask, 30 are needed."
    )


def test_a_class_without_labels_is_not_in_the_mean():
    scene = scenes(60)
    scene[0][:, 3] = 0
    method, baseline = run(scene, 0.3, 1), run(scene, 0.0, 2)
    assert method[:, :, 3].sum() > 0  # class 2 is taken for it
    verdict = compare_iou([method], [baseline], name="m")

    def three(counts: np.ndarray) -> float:
        table = counts.sum(axis=0)
        hit = table.diagonal()[:3]
        return float(np.mean(hit / (table.sum(axis=1)[:3] + table.sum(axis=0)[:3] - hit)))

    assert verdict.difference == pytest.approx(three(method) - three(baseline))


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("skill", [-0.2, 0.0, 0.1])
def test_swapping_mirrors_the_interval(seeds, skill):
    scene = scenes(50)
    method, baseline = ([run(scene, skill * side, 7 * side + s) for s in range(seeds)] for side in (1, 2))
    one, other = compare_iou(method, baseline, name="a"), compare_iou(baseline, method, name="b")
    assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)


def test_repeatable_and_order_of_images_hardly_matters():
    scene = scenes(100)
    method, baseline = ([run(scene, skill, seed) for seed in (1, 2)] for skill in (0.2, 0.0))
    first = compare_iou(method, baseline, name="m")
    assert compare_iou(method, baseline, name="m") == first
    order = np.random.default_rng(0).permutation(100)
    for other in (
        compare_iou([m[order] for m in method[::-1]], [b[order] for b in baseline[::-1]], name="m"),
        compare_iou(method, baseline, name="m", seed=1),
    ):
        width = first.high - first.low
        assert (other.low, other.high) == pytest.approx((first.low, first.high), abs=0.05 * width)


def test_deviation_of_one_seed_is_that_of_a_loop_over_resampled_images():
    scene = scenes(80)
    method, baseline = run(scene, 0.2, 1), run(scene, 0.0, 2)
    draw = np.random.default_rng(3)
    rows = [draw.integers(80, size=80) for _ in range(2000)]
    spread = np.std([miou(method[r]) - miou(baseline[r]) for r in rows])
    verdict = compare_iou([method], [baseline], name="m")
    half = 1.99 * math.sqrt(80 / 79) * spread  # t with 79 degrees of freedom
    middle = (verdict.low + verdict.high) / 2
    assert middle == pytest.approx(verdict.difference, abs=0.15 * half)
    assert verdict.high - verdict.low == pytest.approx(2 * half, rel=0.08)


def test_blocks_of_draws_change_nothing(monkeypatch):
    whole = pair(0.2, n=50)
    monkeypatch.setattr(verdict_iou, "_BLOCK", 50 * 700)
    assert pair(0.2, n=50) == whole


def test_seeds_that_disagree_are_no_proof():
    scene = scenes(200)
    baseline = run(scene, 0.0, 9)
    runs = [run(scene, skill, seed) for seed, skill in enumerate((0.2, 1.5))]
    assert all(compare_iou([one], [baseline], name="m").answer == "helps" for one in runs)
    assert compare_iou(runs, [baseline] * 2, name="m").answer == "cannot tell"


@pytest.mark.parametrize("n, seeds, least", [(60, 1, 0.9), (60, 3, 0.95)])
def test_interval_covers_the_truth(monkeypatch, n, seeds, least):
    monkeypatch.setattr(verdict_iou, "_DRAWS", 500)
    many = scenes(20_000, seed=99)
    truth = miou(run(many, 0.3, 1)) - miou(run(many, 0.0, 2))
    covered, widths = 0, []
    for case in range(200):
        scene = scenes(n, seed=1000 + case)
        method, baseline = (
            [run(scene, skill, 10 * case + s + side) for s in range(seeds)] for side, skill in ((0, 0.3), (5, 0.0))
        )
        verdict = compare_iou(method, baseline, name="m")
        covered += verdict.low <= truth <= verdict.high
        widths.append(verdict.high - verdict.low)
    assert covered / 200 >= least
    assert np.median(widths) < 0.06  # wide is easy: it must also be of use


def test_is_written_to_json():
    assert json.loads(json.dumps(asdict(pair(0.5, n=40))))["metric"] == "miou"


def test_says_what_does_not_pair():
    scene = scenes(40)
    a, b = run(scene, 0.0, 1), run(scene, 0.1, 2)
    with pytest.raises(UsageError, match=r"shapes \(39, 4, 4\), \(40, 4, 4\) cannot be paired: expected \(N, C, C\)"):
        compare_iou([a], [b[1:]], name="m")
    with pytest.raises(UsageError, match=r"shapes \(40, 4, 3\) cannot be paired"):
        compare_iou([a[:, :, :3]], [b[:, :, :3]], name="m")
    with pytest.raises(UsageError, match="2 seeds of the method against 1 of the baseline"):
        compare_iou([a, a], [b], name="m")
    with pytest.raises(UsageError, match="0 seeds of the method against 0"):
        compare_iou([], [], name="m")
    order = np.arange(40)
    order[[7, 8]] = 8, 7
    with pytest.raises(UsageError, match=r"image 7 has other labels in one run than in another.*at the same size"):
        compare_iou([a], [b[order]], name="m")
    with pytest.raises(UsageError, match=r"margin=-1, confidence=0\.95: expected a margin of 0 or more"):
        compare_iou([a], [b], name="m", margin=-1)

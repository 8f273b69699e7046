"""What single rules are meant to do, beside the laws and the golden vectors."""

from math import exp

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.probability import normalized_entropy, probability
from sfumato.rules import (
    Aligned,
    All,
    Bell,
    ClassCurriculum,
    ClassRebalance,
    Constant,
    Coverage,
    DistributionAlignment,
    EntropyGate,
    EntropyLimit,
    FixedThreshold,
    MeanNormalized,
    OneMinusEntropy,
    OneSidedBell,
    PeakThreshold,
    Ramp,
    SelfAdaptiveThreshold,
    Spectral,
    TopK,
    TruncatedGaussian,
)
from sfumato.rules.schedule import ExponentialRamp, rising
from sfumato.types import Progress
from tests.given import learn
from tests.rules.factory import steps


def some(n=32, classes=5, seed=0, shift=0.0):
    draw = torch.Generator().manual_seed(seed)
    bias = torch.zeros(classes)
    bias[0] = shift
    return probability(torch.randn((n, classes), generator=draw) * 3 + bias)


def test_weighers_multiply_and_both_learn():
    (step,) = steps(1)
    product = EntropyGate() * TruncatedGaussian(5)
    gate, gaussian = EntropyGate(), TruncatedGaussian(5)
    for rule in (product, gate, gaussian):
        rule.observe(step.p, step.valid, step.context)
    assert torch.equal(product(step.p), gate(step.p) * gaussian(step.p))


def test_entropy_weights():
    p = some()
    e = normalized_entropy(p)
    torch.testing.assert_close(Bell()(p), 4 * e * (1 - e))
    torch.testing.assert_close(OneMinusEntropy()(p), 1 - e)
    torch.testing.assert_close(OneSidedBell()(p), torch.where(e <= 0.5, 1.0, 4 * e * (1 - e)))
    assert torch.equal(All()(p), torch.ones(32))


def test_coverage_is_one_number_of_the_valid():
    p = probability(torch.tensor([[9.0, 0.0], [0.5, 0.0], [0.0, 8.0], [7.0, 0.0]]))
    rule = Coverage(0.97)
    assert learn(rule, p, torch.tensor([1.0, 1.0, 1.0, 0.0])).tolist() == pytest.approx([2 / 3] * 4)
    assert learn(rule, p, torch.zeros(4)).tolist() == [0.0] * 4
    assert learn(rule, p[1:2]).tolist() == [0.0]


def test_the_limit_of_entropy_does_not_move():
    p = some()
    rule = EntropyLimit(0.4)
    assert torch.equal(learn(rule, p), (normalized_entropy(p) <= 0.4).float())
    assert not rule.state_dict()


def test_top_k_of_one_is_the_label():
    p = some()
    got = TopK(1)(p)
    assert torch.equal(got.labels.squeeze(1), p.argmax(dim=1))
    assert torch.equal(got.share, torch.ones(32, 1))


def test_rebalancing_weighs_the_rare_more_and_the_whole_alike():
    p = some(400, shift=2.0)
    weight, label = learn(ClassRebalance(5), p), p.argmax(dim=1)
    assert weight.mean().item() == pytest.approx(1, rel=1e-5)
    counts = torch.bincount(label, minlength=5)
    assert counts[0] > 2 * counts[1:].max()
    assert weight[label == 0].max() < 0.5 * weight[label != 0].min()
    expected = learn(ClassRebalance(5, reading="expected"), p)
    assert (expected[label == 0].max() > weight[label == 0].max()).item()


def test_each_image_is_split_by_itself():
    """Another image in the batch changes nothing, unless an image is one prediction and the batch the set."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn((4, 5, 6, 6), generator=draw) * torch.rand((4, 1, 6, 6), generator=draw) * 8
    p, other = probability(logits), probability(torch.cat([logits[:2], logits[2:] * 0.1]))
    assert torch.equal(learn(Spectral(), p)[:2], learn(Spectral(), other)[:2])
    assert not torch.equal(learn(Spectral(), p[..., 0, 0])[:2], learn(Spectral(), other[..., 0, 0])[:2])
    valid = torch.zeros(4, 6, 6)
    valid[:, 0, 0] = 1
    pooled, single = learn(Spectral(), p, valid)[:, 0, 0], learn(Spectral(), p[..., 0, 0])
    torch.testing.assert_close(pooled, single)
    alone = learn(Spectral(), p[:1], valid[:1])
    assert torch.equal(alone, (p[:1].amax(dim=1) >= 0.95).float())


def test_schedules():
    ramp = Ramp(0.5, 2.0, over=0.5)
    assert [ramp(Progress(k, 11)) for k in (0, 2, 5, 10)] == pytest.approx([0.5, 1.1, 2.0, 2.0])
    assert Constant(3.0)(Progress(4, 5)) == 3.0
    assert (Progress(0, 1).fraction, Progress(0, 10).fraction, Progress(9, 10).fraction) == (0.0, 0.0, 1.0)
    assert Ramp(0.0, 3.0, over=0.0)(Progress(0, 10)) == 3.0
    slow = ExponentialRamp(2.0, over=0.5)
    assert [slow(Progress(k, 11)) for k in (0, 2, 5, 10)] == pytest.approx([2 * exp(-5), 2 * exp(-1.8), 2.0, 2.0])
    assert ExponentialRamp(3.0, over=0.0)(Progress(0, 10)) == 3.0
    assert rising("linear", 2.0, over=0.5) == Ramp(0.0, 2.0, over=0.5)
    with pytest.raises(UsageError, match=r"rise='linaer'\): expected one of linear, exponential. Did you mean"):
        rising("linaer", 1.0, over=0.5)


def test_the_gate_follows_k_and_stays_in_its_range():
    p, e = some(200), normalized_entropy(some(200))
    for k, step in ((1.0, 0), (2.0, 9)):
        gate = EntropyGate(k=Ramp(1.0, 2.0), entropy_range=(0.0, 1.0))
        weight = learn(gate, p, progress=Progress(step, 10))
        eps = e.mean() + k * e.std(unbiased=False)
        assert gate.eps.item() == pytest.approx(min(1.0, eps.item()), rel=1e-4)
        assert torch.equal(weight, (e <= gate.eps).float())
    tight = EntropyGate(k=Constant(-50.0), entropy_range=(0.1, 0.3))
    learn(tight, p)
    assert tight.eps.item() == pytest.approx(0.1)
    loose = EntropyGate(k=Constant(50.0), entropy_range=(0.1, 0.3))
    learn(loose, p)
    assert loose.eps.item() == pytest.approx(0.3)


def test_alignment_evens_out_a_leaning_model():
    rule = DistributionAlignment(5)
    p = some(500, shift=2.0)
    aligned = learn(rule, p)
    assert p.mean(dim=0)[0] > 0.35
    assert (aligned.mean(dim=0) - 0.2).abs().max() < (p.mean(dim=0) - 0.2).abs().max() * 0.7


def test_alignment_to_labels_counts_them():
    rule = DistributionAlignment(3, target="labeled")
    y = torch.tensor([0, 0, 0, 1])
    learn(rule, some(8, 3), labeled=torch.zeros(4, 3), y=y)
    assert rule.goal.tolist() == pytest.approx([0.75, 0.25, 0.0], abs=1e-5)


def test_alignment_to_a_power_of_the_prior():
    rule = DistributionAlignment(2, target="labeled", prior=torch.tensor([8.0, 2.0]), power=0.5)
    assert rule.goal.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_debiased_alignment_does_not_depend_on_its_start():
    """After two batches the average holds both alike, whereas the peers still hold mostly the first."""
    first, second = some(64, shift=3.0), some(64, seed=1, shift=-3.0)
    ours, peers = DistributionAlignment(5, momentum=0.999), DistributionAlignment(5, momentum=0.999, init="peer")
    for rule in (ours, peers):
        learn(rule, first)
        learn(rule, second)
    both = torch.cat([first, second]).mean(dim=0)
    torch.testing.assert_close(ours.model.value, both, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(peers.model.value, first.mean(dim=0), rtol=2e-2, atol=2e-2)


def test_a_curriculum_lowers_the_threshold_of_classes_seldom_learnt():
    rule = ClassCurriculum(2, 10, threshold=0.8)
    sure = torch.tensor([[0.9, 0.1]] * 6 + [[0.1, 0.9]] * 3)
    assert learn(rule, sure).tolist() == [1.0] * 9  # nothing learnt yet: every sample passes
    learn(rule, sure, torch.zeros(9))  # counts nothing, but takes in what the first batch left
    beta = 3 / 6
    assert rule.status.tolist() == pytest.approx([1.0, beta])
    doubtful = torch.tensor([[0.7, 0.3], [0.3, 0.7], [0.45, 0.55]])
    assert 0.8 * beta / (2 - beta) < 0.55
    assert rule(doubtful).tolist() == [0.0, 1.0, 1.0]


def test_a_self_adaptive_threshold_is_lower_for_rare_classes():
    rule = SelfAdaptiveThreshold(5, momentum=0.0)
    learn(rule, some(400, shift=2.0))
    assert rule.thresholds.argmax().item() == 0
    assert rule.thresholds[0].item() == pytest.approx(rule.global_threshold.item())
    capped = SelfAdaptiveThreshold(5, momentum=0.0, ceiling=0.3)
    learn(capped, some(400))
    assert capped.global_threshold.item() == pytest.approx(0.3)


def test_a_quantile_ignores_what_is_ignored():
    p, valid = some(50), torch.ones(50)
    valid[::2] = 0
    rule = SelfAdaptiveThreshold(5, momentum=0.0, quantile=0.8)
    learn(rule, p, valid)
    assert rule.level.value.item() == pytest.approx(torch.quantile(p[1::2].amax(dim=1), 0.8).item())


def test_normalised_weights_average_one():
    rule = MeanNormalized(Bell(), momentum=0.9)
    p = some(300)
    assert learn(rule, p).mean().item() == pytest.approx(1.0, rel=1e-4)
    sure = torch.tensor([[1 - 4e-7, *[1e-7] * 4]] * 8)
    rule = MeanNormalized(Bell(), momentum=0.0, ceiling=10.0)
    learn(rule, sure)
    assert rule(some(300)).max().item() == 10.0


def test_aligned_statistics_are_of_what_it_says():
    p = some(64, shift=2.0)
    for raw in (True, False):
        align, gaussian = DistributionAlignment(5), TruncatedGaussian(5, momentum=0.0)
        weight = learn(Aligned(align, gaussian, observe_raw=raw), p)
        source = p if raw else align(p)
        assert gaussian.confidence.mean.item() == pytest.approx(source.amax(dim=1).mean().item(), rel=1e-5)
        torch.testing.assert_close(weight, gaussian(align(p)))


def test_fixed_threshold_reads_the_limit_in_the_precision_of_p():
    p = torch.tensor([[0.95, 0.05], [0.949, 0.051]])
    assert FixedThreshold(0.95)(p).tolist() == [1.0, 0.0]


def test_peak_threshold_follows_the_best_of_each_class_predicted():
    rule = PeakThreshold(4, threshold=0.8, momentum=0.9).double()
    p = torch.tensor([[0.7, 0.3, 0, 0], [0.9, 0.1, 0, 0], [0, 0.4, 0.6, 0], [0.01, 0.99, 0, 0]], dtype=torch.float64)
    valid = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    tau = 0.8 * 0.9 + 0.1 * (0.9 + 0.6) / 2  # the second class is predicted where nothing is valid only
    assert learn(rule, p, valid).tolist() == [0.0, 1.0, 0.0, 1.0]
    assert float(rule.level.value) == pytest.approx(tau, abs=1e-7)
    learn(rule, p, torch.zeros_like(valid))
    assert float(rule.level.value) == pytest.approx(tau, abs=1e-7)
    assert PeakThreshold(3).level.value == pytest.approx(0.85)
    with pytest.raises(UsageError, match=r"PeakThreshold\(threshold=85\): expected a probability"):
        PeakThreshold(3, threshold=85)

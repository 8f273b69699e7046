import pytest
import torch

from sfumato.errors import UsageError
from sfumato.rules import (
    ClassCurriculum,
    ClassRebalance,
    Coverage,
    DistributionAlignment,
    EntropyGate,
    EntropyLimit,
    FeaturePerturbation,
    FixedThreshold,
    PrototypeAttraction,
    RelativeThreshold,
    SelfAdaptiveThreshold,
    Sharpen,
    Sharpened,
    Spectral,
    TopK,
    TruncatedGaussian,
)
from sfumato.types import Output, Views

WRONG = {
    "FixedThreshold(threshold=95): expected a probability between 0 and 1": lambda: FixedThreshold(95),
    "RelativeThreshold(threshold=-1): expected a probability": lambda: RelativeThreshold(-1),
    "Coverage(threshold=97): expected a probability": lambda: Coverage(97),
    "FeaturePerturbation(normalize='vaild'): expected one of valid, selected, all, weight_sum. Did you mean 'valid'?": (
        lambda: FeaturePerturbation(normalize="vaild")
    ),
    "FeaturePerturbation needs the perturbed output: ViewSpec(feature_dropout=0.5).": (
        lambda: FeaturePerturbation()(Views(Output(torch.zeros(1, 2))), None, None, None)
    ),
    "ClassCurriculum(threshold=2): expected a probability": lambda: ClassCurriculum(3, 5, threshold=2),
    "ClassCurriculum(num_unlabeled=0): expected the size of the unlabeled set": lambda: ClassCurriculum(3, 0),
    "Sharpened(temperature=0): expected a number above 0": lambda: Sharpened(0),
    "Sharpen(temperature=-1): expected a number above 0": lambda: Sharpen(-1),
    "SelfAdaptiveThreshold(quantile=80): expected a number between 0 and 1": lambda: SelfAdaptiveThreshold(
        3, quantile=80
    ),
    "TopK(k=0): expected at least 1 class.": lambda: TopK(0),
    "EntropyLimit(limit=-1): expected a number between 0 and 1": lambda: EntropyLimit(-1),
    "ClassRebalance(reading='saef'): expected one of safe, safe_ema, expected, literal. Did you mean 'safe'?": (
        lambda: ClassRebalance(3, reading="saef")
    ),
    "Spectral(keep='nor'): expected one of or, and, onesided.": lambda: Spectral(keep="nor"),
    "Spectral(conf_floor=50): expected a confidence between 0 and 1, such as 0.5.": lambda: Spectral(conf_floor=50),
    "Spectral was asked for weights before it observed a batch to split. Call observe first.": (
        lambda: Spectral()(torch.ones(2, 3))
    ),
    "PrototypeAttraction(proto_grad='on'): expected one of": lambda: PrototypeAttraction(3, proto_grad="on"),
    "momentum=1.0: expected at least 0 and below 1": lambda: TruncatedGaussian(3, momentum=1.0),
    "EntropyGate(entropy_range=(0.9, 0.2)): expected 0 <= low <= high <= 1": lambda: EntropyGate(
        entropy_range=(0.9, 0.2)
    ),
    "SelfAdaptiveThreshold(init='unifrom'): expected one of uniform, first. Did you mean 'uniform'?": lambda: (
        SelfAdaptiveThreshold(3, init="unifrom")
    ),
    "TruncatedGaussian(estimate='biased'): expected one of": lambda: TruncatedGaussian(3, estimate="biased"),
    "TruncatedGaussian(n_sigma=0): expected a number above 0, such as 2.": lambda: TruncatedGaussian(3, n_sigma=0),
    "DistributionAlignment(target='labelled'): expected one of uniform, labeled, model. Did you mean 'labeled'?": (
        lambda: DistributionAlignment(3, target="labelled")
    ),
    "DistributionAlignment(prior=..., target='uniform'): a prior is read with target='labeled' only.": (
        lambda: DistributionAlignment(3, prior=torch.ones(3))
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings_say_what_is_expected(message):
    with pytest.raises(UsageError) as error:
        WRONG[message]()
    assert str(error.value).startswith(message)

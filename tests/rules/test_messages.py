import pytest
import torch

from sfumato.errors import UsageError
from sfumato.rules import (
    ClassCurriculum,
    DistributionAlignment,
    EntropyGate,
    FixedThreshold,
    RelativeThreshold,
    SelfAdaptiveThreshold,
    Sharpen,
    Sharpened,
    TruncatedGaussian,
)

WRONG = {
    "FixedThreshold(threshold=95): expected a probability between 0 and 1": lambda: FixedThreshold(95),
    "RelativeThreshold(threshold=-1): expected a probability": lambda: RelativeThreshold(-1),
    "ClassCurriculum(threshold=2): expected a probability": lambda: ClassCurriculum(3, 5, threshold=2),
    "ClassCurriculum(num_unlabeled=0): expected the size of the unlabeled set": lambda: ClassCurriculum(3, 0),
    "Sharpened(temperature=0): expected a number above 0": lambda: Sharpened(0),
    "Sharpen(temperature=-1): expected a number above 0": lambda: Sharpen(-1),
    "SelfAdaptiveThreshold(quantile=80): expected a number between 0 and 1": lambda: SelfAdaptiveThreshold(
        3, quantile=80
    ),
    "momentum=1.0: expected at least 0 and below 1": lambda: TruncatedGaussian(3, momentum=1.0),
    "EntropyGate(entropy_range=(0.9, 0.2)): expected 0 <= low <= high <= 1": lambda: EntropyGate(
        entropy_range=(0.9, 0.2)
    ),
    "SelfAdaptiveThreshold(init='unifrom'): expected one of uniform, first. Did you mean 'uniform'?": lambda: (
        SelfAdaptiveThreshold(3, init="unifrom")
    ),
    "TruncatedGaussian(estimate='biased'): expected one of": lambda: TruncatedGaussian(3, estimate="biased"),
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

"""Rules: hyper-parameters, a formula and its running statistic. Any rule goes with any method, on both tasks."""

from sfumato.rules.base import Charge, Extra, Product, Refiner, Rule, Targeter, Weigher
from sfumato.rules.charge import Adjusted, AdjustedAfterwards, ClassWeighted
from sfumato.rules.equal_share import EqualShare
from sfumato.rules.feature_distance import FeatureDistance
from sfumato.rules.loss_threshold import LossThreshold, SoftThenHard
from sfumato.rules.mixing import Blend, GuidedMixup, RandomMixup
from sfumato.rules.offset import ClassOffset, ClassThreshold, Instead, OffsetFirst
from sfumato.rules.percentile import EntropyPercentile
from sfumato.rules.perturbation import FeaturePerturbation
from sfumato.rules.pixel_contrast import PixelContrast
from sfumato.rules.prior import Debiased, Prior, Watch
from sfumato.rules.prototype import PrototypeAttraction
from sfumato.rules.rebalance import ClassRebalance
from sfumato.rules.refine import DistributionAlignment, NoRefinement, ProgressiveAlignment, Sharpen, Then
from sfumato.rules.rotation import Rotation
from sfumato.rules.schedule import Constant, CosineRamp, Ramp, Schedule
from sfumato.rules.smoothing import Smoothed
from sfumato.rules.spectral import Spectral
from sfumato.rules.target import Hard, Sharpened, Soft, TopK
from sfumato.rules.threshold import (
    ClassCurriculum,
    Coverage,
    FixedThreshold,
    PeakThreshold,
    RelativeThreshold,
    SelfAdaptiveThreshold,
)
from sfumato.rules.weigh import (
    Aligned,
    All,
    Bell,
    EntropyGate,
    EntropyLimit,
    MeanNormalized,
    OneMinusEntropy,
    OneSidedBell,
    TruncatedGaussian,
)

__all__ = [
    "Adjusted",
    "AdjustedAfterwards",
    "Aligned",
    "All",
    "Bell",
    "Blend",
    "Charge",
    "ClassCurriculum",
    "ClassOffset",
    "ClassRebalance",
    "ClassThreshold",
    "ClassWeighted",
    "Constant",
    "CosineRamp",
    "Coverage",
    "Debiased",
    "DistributionAlignment",
    "EntropyGate",
    "EntropyLimit",
    "EntropyPercentile",
    "EqualShare",
    "Extra",
    "FeatureDistance",
    "FeaturePerturbation",
    "FixedThreshold",
    "GuidedMixup",
    "Hard",
    "Instead",
    "LossThreshold",
    "MeanNormalized",
    "NoRefinement",
    "OffsetFirst",
    "OneMinusEntropy",
    "OneSidedBell",
    "PeakThreshold",
    "PixelContrast",
    "Prior",
    "Product",
    "ProgressiveAlignment",
    "PrototypeAttraction",
    "Ramp",
    "RandomMixup",
    "Refiner",
    "RelativeThreshold",
    "Rotation",
    "Rule",
    "Schedule",
    "SelfAdaptiveThreshold",
    "Sharpen",
    "Sharpened",
    "Smoothed",
    "Soft",
    "SoftThenHard",
    "Spectral",
    "Targeter",
    "Then",
    "TopK",
    "TruncatedGaussian",
    "Watch",
    "Weigher",
]

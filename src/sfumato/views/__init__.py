"""Views of images: batched on the device, every sample with draws of its own, every draw a function of its place."""

from sfumato.views.augment import Augment
from sfumato.views.cutmix import CutMix, classmix
from sfumato.views.dense import DenseAugment
from sfumato.views.dense_presets import DENSE_PRESETS, Boxes, Colors, DensePreset, Patches
from sfumato.views.draws import uniform
from sfumato.views.presets import OPERATIONS, PRESETS, Operation, Preset
from sfumato.views.windows import draw_windows

__all__ = [
    "DENSE_PRESETS",
    "OPERATIONS",
    "PRESETS",
    "Augment",
    "Boxes",
    "Colors",
    "CutMix",
    "DenseAugment",
    "DensePreset",
    "Operation",
    "Patches",
    "Preset",
    "classmix",
    "draw_windows",
    "uniform",
]

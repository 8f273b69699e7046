"""Views of images: batched on the device, every sample with draws of its own, every draw a function of its place."""

from sfumato.views.augment import Augment
from sfumato.views.draws import uniform
from sfumato.views.presets import OPERATIONS, PRESETS, Operation, Preset

__all__ = ["OPERATIONS", "PRESETS", "Augment", "Operation", "Preset", "uniform"]

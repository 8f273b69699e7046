"""What may happen to an image: the parameters of the weak and strong view, under a name or built by the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sfumato.errors import UsageError, nearest

OPERATIONS = (
    "autocontrast",  # no magnitude
    "blur",  # standard deviation of the Gaussian in pixels
    "brightness",  # factor: 0 is black, 1 leaves the image
    "color",  # factor: 0 is grey, 1 leaves the image
    "contrast",  # factor: 0 is the mean grey, 1 leaves the image
    "equalize",  # number of equal bins of grey values, 2 to 256
    "hue",  # turns of the color circle, -0.5 to 0.5
    "identity",  # no magnitude
    "posterize",  # bits kept, rounded down: (4, 8) keeps 4 to 7
    "rotate",  # degrees, anticlockwise
    "sharpness",  # factor: 0 is smoothed, 1 leaves the image
    "shear_x",  # columns per row, about the centre
    "shear_y",  # rows per column, about the centre
    "solarize",  # values from here (0 to 256) on are inverted
    "translate_x",  # share of the side, to the left
    "translate_y",  # share of the side, upwards
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the strong view, its magnitude uniform in [low, high). `OPERATIONS` lists names and units."""

    name: str
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in OPERATIONS:
            raise UsageError(f"Operation(name='{self.name}') does not exist.{nearest(self.name, OPERATIONS)}")
        if self.low > self.high:
            raise UsageError(f"Operation('{self.name}') needs low <= high, got low={self.low}, high={self.high}.")


@dataclass(frozen=True, slots=True)
class Preset:
    """The parameters of both views. The weak view crops, shifts and flips; the strong view goes on from there.

    Attributes:
        operations: the pool; each slot draws one of them, all equally likely, with replacement.
        slots: operations applied to each strong view.
        shift: largest shift of the crop as a share of the side, in whole pixels, reflected at the border.
        flip: probability of a horizontal flip.
        area: (smallest, largest) area of a random resized crop as a share of the largest square in the image, or None
            for that square itself, in the middle.
        aspect: largest ratio of width to height of the random crop; the smallest is its inverse.
        cutout: largest side of the square cut out of the strong view, as a share of the side.
        fill: value of what is cut out, 0 (black) to 1 (white).
        padding: what the strong view shows where it looks beyond the image.
    """

    operations: tuple[Operation, ...]
    slots: int = 2
    shift: float = 0.0
    flip: float = 0.0
    area: tuple[float, float] | None = None
    aspect: float = 4 / 3
    cutout: float = 0.0
    fill: float = 0.0
    padding: Literal["zeros", "reflection"] = "reflection"

    def __post_init__(self) -> None:
        if self.slots > 0 and not self.operations:
            raise UsageError(f"Preset(slots={self.slots}) needs operations to draw from. Give some, or slots=0.")
        for name in ("shift", "flip", "cutout", "fill"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"Preset({name}={getattr(self, name)}) must lie in 0 to 1.")
        if self.area is not None and not 0 < self.area[0] <= self.area[1] <= 1:
            raise UsageError(f"Preset(area={self.area}) must be (smallest, largest) with 0 < smallest <= largest <= 1.")
        if self.aspect < 1:
            raise UsageError(f"Preset(aspect={self.aspect}) must be 1 or more: its inverse is the other end.")
        if self.padding not in ("zeros", "reflection"):
            raise UsageError(f"Preset(padding='{self.padding}') must be 'zeros' or 'reflection'.")


_DIGITS = Preset(
    slots=3,  # of 1 to 3 the best on validation images: benchmarks/settings/choose_quick.py
    shift=1 / 7,  # 4 of 28 pixels
    cutout=0.3,
    padding="zeros",
    operations=(
        Operation("rotate", -21, 21),
        Operation("shear_x", -0.21, 0.21),
        Operation("shear_y", -0.21, 0.21),
        Operation("translate_x", -0.21, 0.21),
        Operation("translate_y", -0.21, 0.21),
        Operation("autocontrast"),
        Operation("brightness", 0.3, 1.5),
        Operation("contrast", 0.3, 1.6),
        Operation("color", 0.3, 1.6),  # leaves a grey image as it is: digits' share of gentler views
        Operation("solarize", 0, 256),
        Operation("posterize", 2, 7),
        Operation("sharpness", 0.3, 1.6),
        Operation("equalize", 64, 64),
    ),
)

# The ranges of the reference implementation of FixMatch's RandAugment in PyTorch.
_NATURAL = Preset(
    slots=3,
    shift=1 / 8,
    flip=0.5,
    cutout=0.5,
    fill=0.48,
    operations=(
        Operation("autocontrast"),
        Operation("brightness", 0.05, 0.95),
        Operation("color", 0.05, 0.95),
        Operation("contrast", 0.05, 0.95),
        Operation("equalize", 256, 256),
        Operation("identity"),
        Operation("posterize", 4, 8),
        Operation("rotate", -30, 30),
        Operation("sharpness", 0.05, 0.95),
        Operation("shear_x", -0.3, 0.3),
        Operation("shear_y", -0.3, 0.3),
        Operation("solarize", 0, 256),
        Operation("translate_x", -0.3, 0.3),
        Operation("translate_y", -0.3, 0.3),
    ),
)

PRESETS: dict[str, Preset] = {
    "digits": _DIGITS,
    "natural32": _NATURAL,
    "natural32_no_flip": replace(_NATURAL, flip=0.0),  # photographs of what has a right way round, such as numbers
    "photos": replace(_NATURAL, slots=2, shift=0.0, area=(0.5, 1.0)),
}


def find(preset: str | Preset) -> Preset:
    """The preset of that name; a `Preset` is returned as it is. Raises `UsageError` for an unknown name."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise UsageError(f"Views preset '{preset}' does not exist.{nearest(preset, PRESETS)}")
    return PRESETS[preset]

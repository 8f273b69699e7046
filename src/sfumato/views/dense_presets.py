"""What may happen to images with masks: the geometry of their windows, strong colors, boxes to mix and patches to mask.

A preset is put together from its parts, so that another color or another law of the boxes is one `replace` away.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from sfumato.errors import UsageError, check_choice, nearest
from sfumato.views.presets import Operation

_GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def _check_probabilities(part: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(part, name) <= 1:
            raise UsageError(f"{type(part).__name__}({name}={getattr(part, name)}) must lie in 0 to 1.")


def _check_ranges(part: object, *names: str) -> None:
    for name in names:
        low, high = getattr(part, name)
        if not 0 <= low <= high:
            raise UsageError(
                f"{type(part).__name__}({name}={(low, high)}) must be (smallest, largest), 0 <= smallest <= largest."
            )


@dataclass(frozen=True, slots=True)
class Colors:
    """The strong view's colors, in this order: jitter, grey, blur, then operations of the pool.

    Attributes:
        jitter: reach of brightness, contrast, saturation (factors 1 - reach to 1 + reach) and of the hue (turns of the
            color circle, up to 0.5). The four apply in random order, as in torchvision's ColorJitter.
        jitter_probability: of all four together.
        grey_probability: of losing all color.
        blur_probability: of a Gaussian blur.
        sigma: (smallest, largest) standard deviation of the blur in pixels, uniform.
        operations: a pool, drawn from with replacement, all equally likely; photometric ones only.
        most: from 1 to so many of the pool, each number equally likely.
    """

    jitter: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.25)
    jitter_probability: float = 0.8
    grey_probability: float = 0.2
    blur_probability: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    operations: tuple[Operation, ...] = ()
    most: int = 3

    def __post_init__(self) -> None:
        _check_probabilities(self, "jitter_probability", "grey_probability", "blur_probability")
        _check_ranges(self, "sigma")
        if not all(0 <= reach <= 1 for reach in self.jitter) or self.jitter[3] > 0.5:
            raise UsageError(f"Colors(jitter={self.jitter}) must hold four numbers of 0 to 1, the hue's at most 0.5.")
        if self.most < 1:
            raise UsageError(f"Colors(most={self.most}) must be 1 or more. Leave operations=() for none.")
        moved = [operation.name for operation in self.operations if operation.name in _GEOMETRIC]
        if moved:
            raise UsageError(
                f"Colors(operations=...) holds '{moved[0]}', which would move pixels away from their labels."
            )


@dataclass(frozen=True, slots=True)
class Boxes:
    """The rectangles that CutMix fills from a partner.

    Attributes:
        probability: that an image is mixed at all.
        together: True for one such draw per step instead of one per image.
        area: (smallest, largest) share of the image, all boxes of an image together.
        beta: None for an area uniform in that range, (a, b) for whole numbers of a Beta distribution over it.
        shape: law of a box's sides. "uniform" or "log": height to width, or its logarithm, uniform in `aspect`, drawn
            again together with the place until the box lies in the image. "width": the width uniform over all at which
            the area fits. "image": the sides of the image, scaled. The last two then take any place at which they fit.
        aspect: (smallest, largest) height to width, in pixels.
        count: boxes of an image, each with an equal part of the area; where they overlap they are one.
    """

    probability: float = 0.5
    together: bool = False
    area: tuple[float, float] = (0.02, 0.4)
    beta: tuple[int, int] | None = None
    shape: Literal["uniform", "log", "width", "image"] = "uniform"
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    count: int = 1

    def __post_init__(self) -> None:
        _check_probabilities(self, "probability")
        _check_ranges(self, "area", "aspect")
        check_choice("Boxes", "shape", self.shape, ("uniform", "log", "width", "image"))
        if self.area[1] > 1 or self.aspect[0] <= 0:
            raise UsageError(f"Boxes(area={self.area}, aspect={self.aspect}): areas reach at most 1, aspects exceed 0.")
        if self.count < 1 or (self.beta is not None and min(self.beta) < 1):
            raise UsageError(f"Boxes(count={self.count}, beta={self.beta}) must be whole numbers of 1 or more.")


@dataclass(frozen=True, slots=True)
class Patches:
    """A view of which patches may be masked, and its colors (CSL's trusted mask perturbation, as released).

    Attributes:
        side: of a patch in pixels. A crop is cut into crop // side patches each way, which it fills.
        rate: probability of each patch to be masked.
        probability: that an image has any masked patch; an image without is an ordinary strong view.
        colors: of the images with masked patches.
    """

    side: int = 32
    rate: float = 0.7
    probability: float = 0.5
    colors: Colors = field(default=Colors(jitter=(0.2, 0.2, 0.2, 0.1), grey_probability=0.0))

    def __post_init__(self) -> None:
        _check_probabilities(self, "rate", "probability")
        if self.side < 1:
            raise UsageError(f"Patches(side={self.side}) must be 1 pixel or more.")


@dataclass(frozen=True, slots=True)
class DensePreset:
    """The parameters of all views of an image with a mask.

    Attributes:
        scale: (smallest, largest) long side of the resized image, as a share of `base`.
        base: a long side in pixels, or None for each image's own.
        flip: probability of a horizontal flip.
        colors: of strong views.
        boxes: of CutMix.
        labeled_boxes: of labeled images in unlabeled ones, for methods that paste them.
        cutout: boxes that are erased, for methods that ask for it (ST++ has the law of UniMatch's mixing for them).
        patches: of the masked view.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    base: int | None = None
    flip: float = 0.5
    colors: Colors = field(default=Colors())
    boxes: Boxes = field(default=Boxes())
    labeled_boxes: Boxes = field(default=Boxes(probability=1.0, area=(0.0, 1.0), beta=(2, 8), shape="image"))
    cutout: Boxes = field(default=Boxes())
    patches: Patches = field(default=Patches())

    def __post_init__(self) -> None:
        _check_probabilities(self, "flip")
        _check_ranges(self, "scale")
        if self.scale[0] <= 0 or (self.base is not None and self.base < 1):
            raise UsageError(f"DensePreset(scale={self.scale}, base={self.base}) must be above 0.")


_PLAIN = Colors(jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0)
_UNIMATCH = DensePreset()
_AUGSEG = replace(
    _PLAIN,
    operations=(
        Operation("identity"),
        Operation("autocontrast"),
        Operation("equalize", 256, 256),
        Operation("blur", 0.1, 2.0),
        Operation("contrast", 0.05, 0.95),
        Operation("brightness", 0.05, 0.95),
        Operation("color", 0.05, 0.95),
        Operation("sharpness", 0.05, 0.95),
        Operation("posterize", 4, 8),
        Operation("solarize", 1, 256),
        Operation("hue", -0.5, 0.5),
    ),
)
# Small images: the same blur and the same patches would hide whole objects, and half the scale leaves nothing of them.
_SMALL = DensePreset(
    scale=(0.75, 1.5),
    colors=Colors(jitter=(0.4, 0.4, 0.4, 0.1), grey_probability=0.1, sigma=(0.1, 1.0)),
    patches=Patches(side=8, colors=Colors(jitter=(0.2, 0.2, 0.2, 0.05), grey_probability=0.0, sigma=(0.1, 1.0))),
)

DENSE_PRESETS: dict[str, DensePreset] = {
    # UniMatch's released transforms; FixMatch, FARCLUSS, CorrMatch and UniMatch V2 share them.
    "unimatch": _UNIMATCH,
    # CSL's are UniMatch's, with the masked view of `Patches`.
    "csl": _UNIMATCH,
    # AugSeg's on VOC: 1 to 3 of eleven operations, boxes of Beta(4, 4) area with the sides of the image. Its labeled
    # boxes, which all presets have, are of Beta(2, 8) area: the released code draws the area left over, Beta(8, 2).
    "augseg": DensePreset(
        base=500, colors=_AUGSEG, boxes=Boxes(probability=1.0, area=(0.0, 1.0), beta=(4, 4), shape="image")
    ),
    # U2PL's: colors as they are; in half of the steps a box of exactly half the image.
    "u2pl": DensePreset(colors=_PLAIN, boxes=Boxes(together=True, area=(0.5, 0.5), shape="width")),
    "small": _SMALL,  # up to some 160 pixels
}


def find(preset: str | DensePreset) -> DensePreset:
    """The preset of that name; a `DensePreset` is returned as it is. Raises `UsageError` for an unknown name."""
    if isinstance(preset, DensePreset):
        return preset
    if preset not in DENSE_PRESETS:
        raise UsageError(
            f"Views preset '{preset}' for images with masks does not exist.{nearest(preset, DENSE_PRESETS)}"
        )
    return DENSE_PRESETS[preset]

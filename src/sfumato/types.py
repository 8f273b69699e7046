"""The nouns of the package. All are frozen; shapes stand beside each field.

N samples of a batch, M labelled samples, C classes (always axis 1), S the space: `()` for a class per image,
`(H, W)` for a class per pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sfumato.errors import UsageError

VOID = 255  # the label of a pixel that has none; such pixels are not valid


@dataclass(frozen=True, slots=True)
class Output:
    """What every model returns."""

    logits: Tensor  # (N, C, *S)
    features: Tensor | None = None  # (N, D, *S')


@dataclass(frozen=True, slots=True)
class Sparse:
    """A distribution over K of the C classes, the others having none: K planes where a dense one holds C."""

    labels: Tensor  # (N, K, *S) int64, the most probable first
    share: Tensor  # (N, K, *S), sums to 1 over K


Target = Tensor | Sparse
"""Labels (N, *S) int64, distributions (N, C, *S) floating, or distributions over few classes."""


@dataclass(frozen=True, slots=True)
class Pseudo:
    """A pseudo-label: what to predict, how much it counts, and where there is anything to predict."""

    target: Target
    weight: Tensor  # (N, *S) >= 0
    valid: Tensor  # (N, *S) 0 or 1


Warp = Callable[[Pseudo], Pseudo]
"""Carries a pseudo-label through the geometry that its strong view underwent."""


def unwarped(pseudo: Pseudo) -> Pseudo:
    """The warp of a view whose geometry leaves the label as it is: any view, when the label is one class per image."""
    return pseudo


class Mixing(Protocol):
    """Which parts of N images come from which rows of a bank; without a bank, from which rows of the batch itself."""

    def images(self, x: Tensor, bank: Tensor | None = None) -> Tensor:
        """The mixed images, (N, channels, *image)."""
        ...

    def __call__(self, pseudo: Pseudo, bank: Pseudo | None = None) -> Pseudo:
        """The pseudo-label of the mixed images."""
        ...

    def only(self, rows: Tensor) -> Mixing:
        """The same in the images where `rows` (N,) is true, and nothing in the others."""
        ...


@dataclass(frozen=True, slots=True)
class Unmixed:
    """The mixing that leaves every image as it is: the one there is, when the label is one class per image."""

    def images(self, x: Tensor, bank: Tensor | None = None) -> Tensor:
        return x

    def __call__(self, pseudo: Pseudo, bank: Pseudo | None = None) -> Pseudo:
        return pseudo

    def only(self, rows: Tensor) -> Unmixed:
        return self


@dataclass(frozen=True, slots=True)
class Pasting:
    """Boxes that a method may fill from other images. It decides where, and applies them to images and labels."""

    labeled: Mixing  # with labeled images: row i of a bank of N for image i
    others: Mixing  # with other images of the batch


Draw = Callable[[str, int], Tensor]
"""Uniform numbers (N, count) in [0, 1) from a purpose and a count, a function of seed, step, purpose and sample."""


def undrawn(purpose: str, count: int) -> Tensor:
    """The draw of a batch that was made without one."""
    raise UsageError(
        f"The method needs random numbers ({purpose}), but the batch holds none. Give Labeled and Unlabeled their "
        "`draw`, such as views.draws.uniform of the run's seed, the step and the places of the samples."
    )


@dataclass(frozen=True, slots=True)
class Windows:
    """What n crops show of n images: cut `box` out, resize it to `shape`, pad right and below, flip the whole crop.

    The reader of images executes them, the views draw them, and neither knows the other.
    """

    box: NDArray[np.float64]  # (n, 4) left, top, right, bottom in pixels of the stored image, fractions allowed
    shape: NDArray[np.int64]  # (n, 2) width, height of the resized part, each at least 1 and at most the crop's
    flip: NDArray[np.bool_]  # (n,) mirror left to right, last of all: the padding of a flipped crop is on its left

    def __len__(self) -> int:
        return len(self.box)


@dataclass(frozen=True, slots=True)
class Labeled:
    x: Tensor  # (M, channels, *image), weak view
    y: Tensor  # (M, *S) int64
    valid: Tensor  # (M, *S) float, 0 where the label is to be ignored
    index: Tensor  # (M,) int64, place in the labelled set
    strong: Tensor | None = None  # (M, channels, *image), when the method asks for it
    warp: Warp = unwarped  # from the labels of the weak view to those of the strong one
    draw: Draw = undrawn  # for whatever else is random in the step


@dataclass(frozen=True, slots=True)
class Unlabeled:
    """Known labels of unlabelled samples are not here and cannot be: only telemetry looks them up, by index."""

    weak: Tensor  # (N, channels, *image)
    strong: tuple[Tensor, ...]  # one (N, channels, *image) for each strong view
    valid: Tensor  # (N, *S) float
    index: Tensor  # (N,) int64, place in the unlabelled set
    warps: tuple[Warp, ...] = (unwarped,)  # one for each strong view
    patches: Tensor | None = None  # (N, *image) 1 where the last strong view may be masked, when the method asks for it
    pasting: Pasting | None = None  # boxes for the last strong view, when the method asks for them
    stored: Pseudo | None = None  # labels that an earlier network left on the disk, as the weak view lies
    draw: Draw = undrawn  # for whatever else is random in the step


@dataclass(frozen=True, slots=True)
class Batch:
    labeled: Labeled
    unlabeled: Unlabeled | None = None  # None for labels-only methods and during the warm start


@dataclass(frozen=True, slots=True)
class Views:
    """The student's outputs for each view of a batch; `weak` is the pseudo-labelling network's."""

    labeled: Output
    labeled_strong: Output | None = None
    weak: Output | None = None
    strong: tuple[Output, ...] = ()
    perturbed: Output | None = None  # the student's of the weak view, from features with channels dropped


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """What a method needs to see. The loop makes exactly these views and no others."""

    strong: int = 1  # strong views of each unlabelled sample; 0 is allowed
    further: Literal["strong", "weak"] = "strong"  # "weak": these views are drawn as the weak one is, each for itself
    uncut: int = 0  # how many of them no CutMix touches, the last ones
    patches: bool = False  # which patches of the last strong view may be masked
    weak: bool = True  # False: the method uses no unlabelled data at all
    labeled_strong: bool = False  # a strong view of each labelled sample too
    weak_gradient: bool = False  # gradient flows through the weak view
    teacher: Literal["student", "ema"] = "student"  # which network makes the pseudo-labels
    pasting: bool = False  # boxes of labeled and of other images, for the method to paste into the last strong view
    feature_dropout: float = 0.0  # above 0: a further output of the weak view, from features with such a share dropped
    complementary: bool = False  # the two strong views see complementary halves of the features
    stored: bool = False  # labels on the disk, of an earlier network, take the place of the weak view's output
    cutout: bool = False  # the strong views that CutMix would touch have boxes erased instead


class Networks(Protocol):
    """What a method asks of the networks: the outputs of its views, gradient and batch norm decided elsewhere."""

    def forward(self, batch: Batch, spec: ViewSpec, weak: Output | None = None) -> Views: ...

    def weak(self, batch: Batch, spec: ViewSpec) -> Output:
        """The weak view's output before the rest, for a method that makes a strong view from it."""
        ...

    def further(self, x: Tensor, *, statistics: bool = True, dropout: bool = True) -> Output:
        """The student's output for images (n, channels, *image) of the method's own making, in a forward of their own.

        statistics: the running statistics of batch norm take these images in; else they are as before.
        dropout: without it nothing is dropped at random: neither features nor, in networks of timm, whole blocks.
        """
        ...

    def average(self, x: Tensor) -> Output:
        """The same of the averaged weights where there are any, and without gradient."""
        ...

    def momentum(self, step: int) -> float:
        """Of the teacher's average after this step, for a method that averages modules of its own alike."""
        ...

    def beside(self, net: nn.Module) -> Networks:
        """The same with `net`, one of the method's own, in the student's place, and without a teacher."""
        ...


Pick = Callable[[Tensor, Tensor], Tensor]
"""The places (m,) int64, in order, of those images that are taken as labeled, from the probabilities (n, C) that a
network gives to them and the number of labels (C,) that each class has. A place may come more than once."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """Self-training from labels on the disk: the trainings, each from scratch, by which a method with `stored` is run.

    The first round trains on the labels alone. Each further one follows once the network of the round before it has
    labeled images: all of them, or, with `reliable`, this share of them at first and the others after the second round.
    """

    first: str = "supervised_strong"  # the method of the first round, one of labels only
    reliable: float | None = None  # share of the images, the most stable ones; None: all are labeled after round 1
    labeler: Literal["last", "best"] = "last"  # which network labels: the last, or the best on validation
    flip: bool = True  # the labels are those of the image and its mirror image together, where training mirrors too
    labelings: int = 1  # how often all images are labeled, each time by the newest network
    keep: Pick | None = None  # which of the labeled images are trained on; None: all
    soft: bool = False  # the labels are distributions, one for an image

    @property
    def count(self) -> int:
        return 1 + self.labelings if self.reliable is None else 3


@dataclass(frozen=True, slots=True)
class Generations:
    """Trainings from scratch, after each of which images that its network has labeled join the labeled set.

    They stay among the unlabeled ones. For one class per image.
    """

    count: int  # of the trainings; with `stay` there are fewer once no image joins any more
    pick: Pick
    stay: bool = False  # an image that has joined keeps its label for good; else all are picked anew each time
    labeler: Literal["last", "best"] = "last"  # which network labels: the last, or the best on validation
    last_power: float | None = None  # of `rules.ProgressiveAlignment` in the last generation; 1 in the first


@dataclass(frozen=True, slots=True)
class Progress:
    step: int  # from 0
    steps: int

    @property
    def fraction(self) -> float:
        """0 at the first step, 1 at the last."""
        return self.step / max(1, self.steps - 1)


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may learn from beside the probabilities it is given."""

    progress: Progress
    index: Tensor  # (N,) of the unlabelled samples, none of them for a method of labels only
    labeled_logits: Tensor  # (M, C, *S), without gradient
    labeled_y: Tensor  # (M, *S)
    labeled_valid: Tensor  # (M, *S)
    features: Tensor | None = None  # (N, D, *S') of the weak view, without gradient, where the network gives any
    logits: Tensor | None = None  # (N, C, *S) of the weak view, without gradient: what the probabilities came from
    labeled_index: Tensor | None = None  # (M,) of the labeled samples


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Validation predictions, for `Method.calibrate`. Never the test split."""

    logits: Tensor  # (N, C, *S)
    y: Tensor  # (N, *S)
    valid: Tensor  # (N, *S)


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars with gradient, each already weighted, and the pseudo-label for telemetry."""

    supervised: Tensor
    unsupervised: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    pseudo: Pseudo | None = None  # before the warp, aligned with `batch.unlabeled.index`

    @property
    def total(self) -> Tensor:
        return sum(self.extras.values(), self.supervised + self.unsupervised)

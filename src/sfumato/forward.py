"""Which network sees which view, with or without gradient, and together with which others.

The last point is the batch-norm policy of the package, and it stands here alone. In training mode a batch norm
normalises by the statistics of the images that go through together, and moves its running statistics once per forward.
In the order in which they run:

layout "split" (default)
    1. weak views: one forward without gradient. The student stays in training mode, so they are normalised by their own
       statistics, which its running statistics take in; or the teacher, in evaluation mode, which takes in nothing.
    2. labeled, labeled strong and strong views: one forward of the student with gradient.
    A weak view through which gradient flows joins 2, that of dropped features included.
layout "concat"
    labeled, labeled strong, weak and strong views: one forward of the student with gradient, normalised together. It is
    what published results of the classic benchmarks used, at half the speed. Weak views of a teacher go first, as in 1.

In both, a batch without unlabeled images has one forward: labeled and labeled strong. A method that makes a strong view
from the output of the weak one asks for `weak` first, which is 1 in either layout, and hands it on to `forward`.

Features with channels dropped are made inside 2, and what follows them, a decoder or a head, normalises them together
with all others. Where the student's weak view is part of 2 for their sake, its plain output is decoded beside them and
is what makes the pseudo-labels: 1 falls away. Where the pseudo-labels come from 1, of a teacher or asked for first, the
weak images are part of 2 with their dropped features alone.

A method may send images of its own making through as well, `further`: each such forward comes after these.

Where labels on the disk take the place of the weak view's output, `stored`, no weak image goes through at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from sfumato.errors import UsageError, nearest
from sfumato.models.feature_dropout import FeatureDropout, complementary, dropped_again
from sfumato.teacher import Ema, unwrapped
from sfumato.types import Batch, Output, Unlabeled, Views, ViewSpec

Layout = Literal["split", "concat"]


@dataclass(slots=True)
class Nets:
    """The student, as wrapped for training, and the average of its weights where there is one.

    Student outputs keep the dtype that autocast gave them.
    """

    student: nn.Module
    teacher: Ema | None = None
    layout: Layout = "split"

    def __post_init__(self) -> None:
        if self.layout not in ("split", "concat"):
            raise UsageError(f"Unknown layout '{self.layout}'." + nearest(self.layout, ("split", "concat")))

    @property
    def evaluation(self) -> nn.Module:
        """The network to evaluate and to keep: the average if there is one, otherwise the student without wrappers."""
        return unwrapped(self.student) if self.teacher is None else self.teacher.module

    def beside(self, net: nn.Module) -> Nets:
        """The same views and layout for a network that a method trains beside the student; it has no teacher."""
        return replace(self, student=net, teacher=None)

    def momentum(self, step: int) -> float:
        """Of the average of the weights after this step, the weight of the old value; 0 where there is no average."""
        return 0.0 if self.teacher is None else self.teacher.momentum_at(step)

    def further(self, x: Tensor, *, statistics: bool = True, dropout: bool = True) -> Output:
        """The student's output for images (n, channels, *image) of the method's own making.

        A forward of its own: they are normalized by their own statistics. The student's running ones take these in, or
        with `statistics=False` do not move. With `dropout=False` nothing is dropped at random.
        """
        # Without the wrapper of ranks, as `_weak`: the gradient of a step is reduced once, whatever led to it.
        net = unwrapped(self.student)
        with nullcontext() if statistics else _statistics_kept(net), nullcontext() if dropout else _undropped(net):
            return cast(Output, net(x))

    def average(self, x: Tensor) -> Output:
        """The output of the averaged weights for these images, without gradient; where there are none, `further`'s
        with the running statistics left as they are.
        """
        with torch.no_grad():
            return self.further(x, statistics=False) if self.teacher is None else self.teacher(x)

    def weak(self, batch: Batch, spec: ViewSpec) -> Output:
        """The output of the weak view, without gradient and before the other views, to be handed to `forward`.

        Raises:
            UsageError: as `forward`, or there is no weak view, or `spec` asks for gradient through it.

        """
        self._check(batch, spec)
        if batch.unlabeled is None or not spec.weak or spec.weak_gradient:
            raise UsageError("The weak view goes first only where there is one, without gradient: weak_gradient=False.")
        return self._weak(batch.unlabeled, spec)

    def forward(self, batch: Batch, spec: ViewSpec, weak: Output | None = None) -> Views:
        """Outputs of the declared views of `batch`. See the head of this module for the number and order of forwards.

        weak: what `weak` gave for this batch, when it was asked; that view then does not go through again.

        Raises:
            UsageError: the batch lacks a view that `spec` declares, or `spec` asks for a teacher that is not there.

        """
        self._check(batch, spec)
        unlabeled = batch.unlabeled if spec.weak else None
        joint = [batch.labeled.x]
        if batch.labeled.strong is not None and spec.labeled_strong:
            joint.append(batch.labeled.strong)
        joins, dropped = weak is None and self._weak_joins(spec), spec.feature_dropout > 0
        perturb = None
        if unlabeled is not None:
            if weak is None and not joins and not spec.stored:
                weak = self._weak(unlabeled, spec)
            start = sum(map(len, joint))
            if joins or dropped:
                joint.append(unlabeled.weak)
            joint.extend(unlabeled.strong)
            if dropped:
                perturb = self._dropped(unlabeled, spec, start, again=joins)
            elif spec.complementary:
                perturb = self._complementary(unlabeled, start + joins * len(unlabeled.weak))
        parts = self._together(joint, perturb)
        labeled, labeled_strong, perturbed = parts.pop(0), None, None
        if spec.labeled_strong:
            labeled_strong = parts.pop(0)
        if unlabeled is not None:
            if joins:
                weak = parts.pop(0)
            if dropped:
                perturbed = parts.pop() if joins else parts.pop(0)
        return Views(labeled, labeled_strong, weak, tuple(parts), perturbed)

    def _weak_joins(self, spec: ViewSpec) -> bool:
        alike = (self.layout == "concat" and not spec.stored) or spec.feature_dropout > 0
        return spec.weak_gradient or (alike and spec.teacher == "student")

    def _weak(self, unlabeled: Unlabeled, spec: ViewSpec) -> Output:
        # The student without its wrapper: there is no gradient to reduce, and no buffers to broadcast twice a step.
        net = self.teacher if spec.teacher == "ema" and self.teacher is not None else unwrapped(self.student)
        with torch.no_grad():
            return cast(Output, net(unlabeled.weak))

    def _dropped(self, unlabeled: Unlabeled, spec: ViewSpec, start: int, *, again: bool) -> FeatureDropout:
        """For the weak views, which begin at `start` of the joint forward."""
        channels = self._channels()
        rows = torch.arange(start, start + len(unlabeled.weak), device=unlabeled.weak.device)
        draw = unlabeled.draw("feature dropout", sum(channels))
        return replace(dropped_again(channels, rows, draw, rate=spec.feature_dropout), again=again)

    def _complementary(self, unlabeled: Unlabeled, start: int) -> FeatureDropout:
        """For the two strong views, which begin at `start` of the joint forward."""
        channels, n = self._channels(), len(unlabeled.weak)
        first = torch.arange(start, start + n, device=unlabeled.weak.device)
        draw, order = unlabeled.draw("complementary dropout", sum(channels)), unlabeled.draw("stays whole", 1)
        return complementary(channels, first, first + n, draw, order[:, 0])

    def _channels(self) -> tuple[int, ...]:
        net = unwrapped(self.student)
        channels: tuple[int, ...] | None = getattr(net, "tap_channels", None)
        if channels is None:
            raise UsageError(
                f"The method drops channels of the features, which {type(net).__name__} cannot do. Use a network of "
                "build_model or build_segmenter, or give yours `tap_channels` and forward(x, perturb)."
            )
        return channels

    def _together(self, images: list[Tensor], perturb: FeatureDropout | None) -> list[Output]:
        """One forward of the student; the output of each part. Concatenation keeps the memory format of its parts.

        Outputs that are decoded again are a part behind the others.
        """
        if len(images) == 1:
            return [self.student(images[0])]
        joint = torch.cat(images)
        out: Output = self.student(joint) if perturb is None else self.student(joint, perturb)
        sizes = [len(part) for part in images]
        if perturb is not None and perturb.again:
            sizes.append(len(perturb.rows))
        logits = torch.split(out.logits, sizes)
        features: tuple[Tensor | None, ...] = (None,) * len(sizes)
        if out.features is not None:
            features = torch.split(out.features, sizes)
        return [Output(z, f) for z, f in zip(logits, features, strict=True)]

    def _check(self, batch: Batch, spec: ViewSpec) -> None:
        check_teacher(spec, averaged=self.teacher is not None)
        if spec.teacher == "ema" and spec.weak and spec.weak_gradient:
            raise UsageError(
                "The method asks for gradient through the weak view and for a teacher, which has none. "
                "Use weak_gradient=False, or teacher='student'."
            )
        if spec.labeled_strong and batch.labeled.strong is None:
            raise UsageError("The method declares a strong view of the labeled images, but the batch holds none.")
        if spec.weak and batch.unlabeled is not None and len(batch.unlabeled.strong) != spec.strong:
            raise UsageError(
                f"The method declares {spec.strong} strong view(s) of the unlabeled images, the batch holds "
                f"{len(batch.unlabeled.strong)}."
            )
        if spec.weak and spec.patches and batch.unlabeled is not None and batch.unlabeled.patches is None:
            raise UsageError("The method declares patches of the last strong view, but the batch says of none.")
        if spec.weak and spec.pasting and batch.unlabeled is not None and batch.unlabeled.pasting is None:
            raise UsageError("The method pastes boxes into the last strong view, but the batch says of none.")
        if spec.weak and spec.stored and batch.unlabeled is not None and batch.unlabeled.stored is None:
            raise UsageError(
                "The method trains on labels that an earlier network left on the disk, and the data has none. "
                "`sfumato train method=st_pp` makes them in rounds; in Python give the data `stored`."
            )
        self._check_perturbed(spec)

    def _check_perturbed(self, spec: ViewSpec) -> None:
        if not 0 <= spec.feature_dropout < 1:
            raise UsageError(f"feature_dropout={spec.feature_dropout}: expected a share of channels below 1, or 0.")
        if spec.feature_dropout and spec.complementary:
            raise UsageError("The method asks for feature_dropout and complementary features. Only one is possible.")
        if (spec.feature_dropout or spec.complementary) and not spec.weak:
            raise UsageError("The method drops channels of the features of unlabeled views, of which it declares none.")
        if spec.complementary and spec.strong != 2:
            raise UsageError(f"Complementary features need 2 strong views; the method declares {spec.strong}.")


def check_teacher(spec: ViewSpec, *, averaged: bool) -> None:
    """Raise a UsageError where the weak view is to be a teacher's, unless there is an average of the weights."""
    if spec.teacher == "ema" and spec.weak and not averaged:
        raise UsageError(
            "The method takes its pseudo-labels from an average of the weights, and there is none. "
            "Set ema above 0, for example ema=0.999."
        )


@contextmanager
def _statistics_kept(net: nn.Module) -> Iterator[None]:
    """Batch norms in training mode go on normalizing by the images at hand, and forget these."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def _undropped(net: nn.Module) -> Iterator[None]:
    """Dropout, and timm's of whole blocks, lets everything through; the rest stays in training mode."""
    droppers = [
        m
        for m in net.modules()
        if m.training and (isinstance(m, nn.modules.dropout._DropoutNd) or type(m).__name__ == "DropPath")
    ]
    for dropper in droppers:
        dropper.training = False
    try:
        yield
    finally:
        for dropper in droppers:
            dropper.training = True

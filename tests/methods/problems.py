"""Small problems to put methods to: tasks, networks without batch norm, and batches of which each rank has a share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sfumato import distributed
from sfumato.models.feature_dropout import FeatureDropout, perturbed
from sfumato.types import (
    Batch,
    Labeled,
    Output,
    Pasting,
    Pseudo,
    Sparse,
    Unlabeled,
    Unmixed,
    ViewSpec,
    Warp,
    unwarped,
)
from sfumato.views.draws import uniform

SAMPLES = 64  # the unlabelled set
LABELED = 8
FEATURES = 8  # of the networks, at most: what grows with features and classes would fill the memory


@dataclass(frozen=True)
class Task:
    """Classification: a label per sample, space (). Segmentation: a label per pixel, space (H, W)."""

    name: str
    space: tuple[int, ...]

    @property
    def dense(self) -> bool:
        return bool(self.space)


CLASSIFICATION, SEGMENTATION = Task("classification", ()), Task("segmentation", (3, 4))
TASKS = (CLASSIFICATION, SEGMENTATION)


class Echo(nn.Module):
    """Its logits are its input (N, C, *S), scaled by a parameter: a test says what the network predicts. Its features
    are the first of them, dropped all of an image together or none. Under autocast its outputs are of `dtype`.
    """

    tap_channels = (1,)

    def __init__(self, dtype: torch.dtype | None = None, *, classes: int = 5) -> None:
        super().__init__()
        self.num_classes, self.num_features = classes, min(classes, FEATURES)
        self.gain = nn.Parameter(torch.ones(()))
        self.heads = ()  # a copy with new heads is the same network
        self.dtype = dtype

    def forward(self, x: Tensor, perturb: FeatureDropout | None = None) -> Output:
        if perturb is not None:
            (mask,) = perturb.masks
            (x,) = perturbed((x,), (0,), replace(perturb, masks=(mask.expand(-1, x.shape[1]),)))
        logits = x * self.gain
        if self.dtype is not None and torch.is_autocast_enabled("cpu"):
            logits = logits.to(self.dtype)
        return Output(logits, logits[:, :FEATURES])


class Tiny(nn.Module):
    """Images (N, 2, H, W) to a class per pixel by convolutions, or per image by their mean."""

    tap_channels = (8,)
    num_features = 8

    def __init__(self, classes: int, *, dense: bool) -> None:
        super().__init__()
        self.dense, self.num_classes = dense, classes
        self.body = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 1)
        draw = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=draw)
        self.heads = (self.head,)

    @property
    def output_layer(self) -> nn.Conv2d:
        return self.head

    def forward(self, x: Tensor, perturb: FeatureDropout | None = None) -> Output:
        features = self.body(x)
        if perturb is not None:
            (features,) = perturbed((features,), (0,), perturb)
        logits = self.head(features)
        return Output(logits, features) if self.dense else Output(logits.mean(dim=(2, 3)), features.mean(dim=(2, 3)))


@dataclass(frozen=True)
class Drawn:
    """The draw of a batch whose samples have these places in the global one."""

    seed: int
    slots: Tensor
    part: str = ""

    def __call__(self, purpose: str, count: int) -> Tensor:
        return uniform(self.seed, 0, self.part + purpose, self.slots, count)


Predicts = Callable[[Tensor], Tensor]


def _as_drawn(logits: Tensor) -> Tensor:
    return logits


def logits_batch(
    task: Task,
    views: ViewSpec,
    *,
    seed: int = 0,
    classes: int = 5,
    labeled: int = LABELED,
    unlabeled: int = 24,
    void: float = 0.2,
    predicts: Predicts = _as_drawn,
) -> Batch:
    """This rank's share of a batch for `Echo`: its images are logits, between doubtful and sure.

    void: share of ignored entries; an ignored label is 255. predicts: rewrites the logits of every view.
    """
    draw = torch.Generator().manual_seed(seed)

    def logits(n: int) -> Tensor:
        sharp = torch.rand((n, 1, *task.space), generator=draw) * 8
        return torch.randn((n, classes, *task.space), generator=draw) * sharp

    def noisy(x: Tensor) -> Tensor:
        return predicts(x + torch.randn(x.shape, generator=draw))

    def validity(n: int) -> Tensor:
        return (torch.rand((n, *task.space), generator=draw) >= void).float()

    x, weak = logits(labeled), logits(unlabeled)
    y, valid = torch.randint(classes, (labeled, *task.space), generator=draw), validity(labeled)
    index = torch.randperm(SAMPLES, generator=draw)
    batch = Batch(
        Labeled(
            x=predicts(x),
            y=y.masked_fill(valid == 0, 255),
            valid=valid,
            index=torch.arange(labeled),
            strong=noisy(x) if views.labeled_strong else None,
            draw=Drawn(seed, torch.arange(labeled), "labeled"),
        ),
        Unlabeled(
            weak=predicts(weak),
            strong=tuple(noisy(weak) for _ in range(views.strong)),
            valid=validity(unlabeled),
            index=index.repeat(-(-unlabeled // SAMPLES))[:unlabeled],
            warps=(unwarped,) * views.strong,
            patches=_patches((unlabeled, *task.space), draw) if views.patches else None,
            pasting=Pasting(Unmixed(), Unmixed()) if views.pasting else None,
            draw=Drawn(seed, torch.arange(unlabeled)),
        ),
    )
    return _share(_with_stored(batch, predicts(weak).argmax(dim=1)) if views.stored else batch)


def image_batch(task: Task, views: ViewSpec, *, seed: int = 0, classes: int = 3) -> Batch:
    """This rank's share of a batch for `Tiny`: the class moves the mean of the image, in each pixel's own place."""
    draw = torch.Generator().manual_seed(seed)
    space = task.space or (4, 4)
    means = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])[:classes]

    def images(n: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(classes, (n, *task.space), generator=draw)
        shift = means[y].movedim(-1, 1).reshape(n, 2, *(task.space or (1, 1)))
        return shift + torch.randn((n, 2, *space), generator=draw), y

    def noisy(x: Tensor) -> Tensor:
        return x + 0.5 * torch.randn(x.shape, generator=draw)

    (x, y), (weak, right) = images(6), images(18)
    batch = Batch(
        Labeled(
            x,
            y,
            torch.ones(6, *task.space),
            torch.arange(6),
            noisy(x) if views.labeled_strong else None,
            draw=Drawn(seed, torch.arange(6), "labeled"),
        ),
        Unlabeled(
            weak=weak,
            strong=tuple(noisy(weak) for _ in range(views.strong)),
            valid=torch.ones(18, *task.space),
            index=torch.randperm(SAMPLES, generator=draw)[:18],
            warps=(unwarped,) * views.strong,
            patches=_patches((18, *space), draw) if views.patches else None,
            pasting=Pasting(Unmixed(), Unmixed()) if views.pasting else None,
            draw=Drawn(seed, torch.arange(18)),
        ),
    )
    return _share(_with_stored(batch, right) if views.stored else batch)


def _with_stored(batch: Batch, labels: Tensor) -> Batch:
    """The batch with labels (N, *S) of an earlier network."""
    assert batch.unlabeled is not None
    ones = torch.ones_like(batch.unlabeled.valid)
    return replace(batch, unlabeled=replace(batch.unlabeled, stored=Pseudo(labels, ones, ones)))


def _patches(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=draw) < 0.4).float()


def _share(batch: Batch) -> Batch:
    """This rank's rows of a global batch."""
    world, rank = distributed.world_size(), distributed.rank()
    return rows(
        batch,
        torch.arange(len(batch.labeled.y)).chunk(world)[rank],
        torch.arange(len(batch.unlabeled.index)).chunk(world)[rank],  # type: ignore[union-attr]
    )


def rows(batch: Batch, labeled: Tensor, unlabeled: Tensor) -> Batch:
    """The batch with only these rows, in this order."""
    marked, rest = batch.labeled, batch.unlabeled
    assert rest is not None
    return Batch(
        replace(
            marked,
            x=marked.x[labeled],
            y=marked.y[labeled],
            valid=marked.valid[labeled],
            index=marked.index[labeled],
            strong=None if marked.strong is None else marked.strong[labeled],
            draw=replace(marked.draw, slots=marked.draw.slots[labeled]),
        ),
        replace(
            rest,
            weak=rest.weak[unlabeled],
            strong=tuple(view[unlabeled] for view in rest.strong),
            valid=rest.valid[unlabeled],
            index=rest.index[unlabeled],
            patches=None if rest.patches is None else rest.patches[unlabeled],
            stored=None if rest.stored is None else on_maps(rest.stored, lambda x: x[unlabeled]),
            draw=replace(rest.draw, slots=rest.draw.slots[unlabeled]),
        ),
    )


def on_images(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with `change` applied to the images of every view."""
    marked, rest = batch.labeled, batch.unlabeled
    assert rest is not None
    return Batch(
        replace(marked, x=change(marked.x), strong=None if marked.strong is None else change(marked.strong)),
        replace(rest, weak=change(rest.weak), strong=tuple(change(view) for view in rest.strong)),
    )


def with_validity(batch: Batch, labeled: Tensor, unlabeled: Tensor) -> Batch:
    """The batch with other validity; labels where there is none become 255."""
    assert batch.unlabeled is not None
    y = batch.labeled.y.masked_fill(labeled == 0, 255)
    return Batch(replace(batch.labeled, y=y, valid=labeled), replace(batch.unlabeled, valid=unlabeled))


def on_maps(pseudo: Pseudo, change: Callable[[Tensor], Tensor]) -> Pseudo:
    """The pseudo-label with `change` applied to labels, weights and validity alike."""
    assert isinstance(pseudo.target, Tensor)
    return Pseudo(change(pseudo.target), change(pseudo.weight), change(pseudo.valid))


def with_warps(batch: Batch, warp: Warp, change: Callable[[Tensor], Tensor] = _as_drawn) -> Batch:
    """The batch with `change` applied to the strong unlabelled views and the patches of the last one, and `warp` said
    to undo or follow it.
    """
    rest = batch.unlabeled
    assert rest is not None
    strong = tuple(change(view) for view in rest.strong)
    patches = None if rest.patches is None else change(rest.patches)
    return replace(batch, unlabeled=replace(rest, strong=strong, warps=(warp,) * len(strong), patches=patches))


def flip(pseudo: Pseudo) -> Pseudo:
    target = pseudo.target
    if isinstance(target, Sparse):
        flipped: Tensor | Sparse = Sparse(target.labels.flip(-1), target.share.flip(-1))
    else:
        flipped = target.flip(-1)
    return Pseudo(flipped, pseudo.weight.flip(-1), pseudo.valid.flip(-1))


def halve(pseudo: Pseudo) -> Pseudo:
    return Pseudo(pseudo.target, pseudo.weight / 2, pseudo.valid)

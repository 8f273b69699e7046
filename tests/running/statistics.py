"""Every running statistic of the pseudo-labels: how to make it, feed it a batch and read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.functional.margins import margins
from sfumato.functional.probability import class_counts, class_sums, confidence, one_hot, probability
from sfumato.running.average import RunningMean
from sfumato.running.bank import LabeledBank
from sfumato.running.block_counts import BlockCounts
from sfumato.running.gaussian import RunningGaussian, RunningMoments
from sfumato.running.histogram import ConfidenceHistogram
from sfumato.running.margin_memory import MarginMemory
from sfumato.running.prior import RunningPrior
from sfumato.running.queue import SampleQueue
from sfumato.running.sample_table import SampleTable
from sfumato.running.status import LearningStatus, PixelStatus
from sfumato.running.window import WindowMean

CLASSES, SAMPLES = 5, 60


@dataclass(frozen=True)
class Seen:
    """What one batch offers: probabilities (N, C, *S), valid (N, *S), index (N,)."""

    p: Tensor
    valid: Tensor
    index: Tensor

    def part(self, k: int, of: int) -> Seen:
        n = len(self.index) // of
        rows = slice(k * n, (k + 1) * n)
        return Seen(self.p[rows], self.valid[rows], self.index[rows])


def batches(count: int, size: int = 8, *, space: tuple[int, ...] = (), seed: int = 0) -> list[Seen]:
    """Batches with ignored entries, repeated samples, and now and then no valid entry at all."""
    draw = torch.Generator().manual_seed(seed)
    out = []
    for k in range(count):
        p = probability(torch.randn((size, CLASSES, *space), generator=draw) * 3)
        valid = (torch.rand((size, *space), generator=draw) < (0.0 if k == 3 else 0.8)).float()
        out.append(Seen(p, valid, torch.randint(SAMPLES // 4, (size,), generator=draw)))
    return out


@dataclass(frozen=True)
class Kind:
    build: Callable[[], nn.Module]
    observe: Callable[[nn.Module, Seen], None]
    read: Callable[[nn.Module], Tensor]


def _mean_top(m, b):
    m.observe((confidence(b.p)[0] * b.valid).sum(), b.valid.sum())


def _class_sums(m, b):
    m.observe(class_sums(b.p, b.valid), b.valid.sum())


def _per_class(m, b):
    """The mean confidence among the predictions of each class: many batches lack a class."""
    top, label = confidence(b.p)
    sums = class_sums(one_hot(label, CLASSES) * top.unsqueeze(1), b.valid)
    m.observe(sums, class_counts(label, CLASSES, b.valid))


def _confident(m, b):
    m.observe(*confidence(b.p), b.valid)


def _shifted(m, b):
    m.observe(b.p, b.valid, SKEWED)


def _top(m, b):
    m.observe(confidence(b.p)[0], b.valid)


def _status(m, b):
    top, label = confidence(b.p)
    m.observe(b.index, label, (top > 0.6) & (b.valid > 0))


def _margins(m, b):
    m.observe(b.index, margins(b.p.clamp_min(1e-6).log()), b.valid)


def _rows(m, b):
    m.observe(b.index, b.p, b.valid)


def _blocks(m, b):
    m.observe(class_counts(confidence(b.p)[1], CLASSES, b.valid))


def _queued(m, b):
    m.observe(b.p, b.p, b.valid, b.p[:, 0])


def _banked(m, b):
    m.observe(b.p, b.index % CLASSES, b.index, b.valid)


def _every_row(m):
    return m.at(torch.arange(SAMPLES))


def _value(m):
    return m.value


def _moments(m):
    return torch.stack([m.mean, m.std])


def _gaussian(m):
    return torch.stack([m.mean, m.variance])


SKEWED = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
UNIFORM = torch.full((CLASSES,), 1 / CLASSES)
KINDS: dict[str, Kind] = {
    **{
        f"RunningMean-{init}": Kind(lambda init=init: RunningMean(0.3, momentum=0.9, init=init), _mean_top, _value)
        for init in ("first", "given", "debiased")
    },
    **{
        f"RunningMean-classes-{init}": Kind(
            lambda init=init: RunningMean(UNIFORM, momentum=0.9, init=init), _per_class, _value
        )
        for init in ("first", "given", "debiased")
    },
    **{
        f"RunningMean-prior-{init}": Kind(
            lambda init=init: RunningMean(UNIFORM, momentum=0.9, init=init), _class_sums, _value
        )
        for init in ("first", "given", "debiased")
    },
    **{
        f"WindowMean-{init}": Kind(lambda init=init: WindowMean(UNIFORM, length=3, init=init), _class_sums, _value)
        for init in ("first", "given")
    },
    "ConfidenceHistogram": Kind(
        lambda: ConfidenceHistogram(CLASSES, torch.linspace(0, 1, 8), momentum=0.9), _confident, lambda m: m.mass
    ),
    "RunningPrior": Kind(lambda: RunningPrior(SKEWED, momentum=0.9), _shifted, _value),
    "LabeledBank": Kind(lambda: LabeledBank(SAMPLES, dim=CLASSES), _banked, lambda m: m.rows),
    "SampleQueue": Kind(lambda: SampleQueue(CLASSES, size=12, dim=CLASSES), _queued, lambda m: m.features),
    "RunningMoments": Kind(lambda: RunningMoments(momentum=0.9), _top, _moments),
    **{
        f"RunningGaussian-{estimate}": Kind(
            lambda estimate=estimate: RunningGaussian(0.2, momentum=0.9, estimate=estimate), _top, _gaussian
        )
        for estimate in ("unbiased", "population")
    },
    **{
        f"MarginMemory-{decay}": Kind(
            lambda decay=decay: MarginMemory(SAMPLES, CLASSES, decay=decay, momentum=0.9), _margins, _every_row
        )
        for decay in ("mean", "eq5", "ema")
    },
    "SampleTable": Kind(lambda: SampleTable(SAMPLES, UNIFORM), _rows, _value),
    "BlockCounts": Kind(lambda: BlockCounts(CLASSES, length=2), _blocks, _value),
    "LearningStatus": Kind(lambda: LearningStatus(CLASSES, SAMPLES), _status, lambda m: m.value(count_unused=True)),
    "PixelStatus": Kind(lambda: PixelStatus(CLASSES, SAMPLES), _status, lambda m: m.value(count_unused=True)),
}


def space_of(name: str) -> tuple[int, ...]:
    return (3, 2) if name == "PixelStatus" else ()

"""What CalibrateMix adds to a step of FixMatch, and what its memories cost as the set of images grows.

The step: the small net (98,042 parameters) at 28 px, 64 labeled and 448 unlabeled images, loss, backward, SGD and the
average of the weights; both methods in turn, each with a net of its own. The memories: the margins of 448 samples and
10 classes, taken in and read, for 10,000 samples and for 1,000,000. Process CPU time, one thread; median of the ratios.
Exit code 1 above a gate.
"""

from __future__ import annotations

import sys
from statistics import median
from time import process_time

import torch

from sfumato.addons import join
from sfumato.forward import Nets
from sfumato.methods import Facts, Method, build
from sfumato.models import build_model
from sfumato.running.margin_memory import MarginMemory
from sfumato.teacher import Ema
from sfumato.types import Batch, Labeled, Progress, Unlabeled
from sfumato.views.draws import draw_for

STEP_GATE, MEMORY_GATE = 1.15, 2.0
REPETITIONS, WARM = 25, 3
LABELED, RATIO, CLASSES = 64, 7, 10
FACTS = Facts(CLASSES, 50_000, num_labeled=4_000, label_counts=(400,) * CLASSES)
FEW, MANY, UPDATES = 10_000, 1_000_000, 100


def batch(step: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    count = LABELED * RATIO
    x, weak, strong = (
        torch.randn(n, 1, 28, 28, generator=draw).to(memory_format=torch.channels_last) for n in (LABELED, count, count)
    )
    y = torch.randint(CLASSES, (LABELED,), generator=draw)
    places = [torch.randint(n, (m,), generator=draw) for n, m in ((4_000, LABELED), (50_000, count))]
    draws = [draw_for(0, step, torch.arange(m)) for m in (LABELED, count)]
    return Batch(
        Labeled(x, y, torch.ones(LABELED), places[0], draw=draws[0]),
        Unlabeled(weak, (strong,), torch.ones(count), places[1], draw=draws[1]),
    )


class Training:
    def __init__(self, addon: str | None) -> None:
        torch.manual_seed(0)
        net = build_model("small", num_classes=CLASSES, in_channels=1, image_size=28).train()
        self.net = net.to(memory_format=torch.channels_last)
        self.method: Method = build("fixmatch", FACTS)
        if addon is not None:
            join(addon, self.method, FACTS)
        self.nets = Nets(self.net, Ema(self.net))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.03, momentum=0.9, nesterov=True)

    def step(self, number: int, given: Batch) -> float:
        """Process CPU seconds of a step in the middle of training, past the warm-up."""
        start = process_time()
        losses = self.method.loss(self.nets, given, Progress(500 + number, 1000))
        losses.total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        assert self.nets.teacher is not None
        self.nets.teacher.update(self.net, number)
        return process_time() - start


def updates(memory: MarginMemory, seed: int) -> float:
    """Process CPU milliseconds of taking in and reading a batch."""
    draw = torch.Generator().manual_seed(seed)
    count = LABELED * RATIO
    parts = [
        (torch.randint(memory.num_samples, (count,), generator=draw), torch.randn(count, CLASSES, generator=draw))
        for _ in range(UPDATES)
    ]
    start = process_time()
    for index, margin in parts:
        memory.observe(index, margin)
        memory.at(index)
    return (process_time() - start) / UPDATES * 1e3


def main() -> int:
    torch.set_num_threads(1)
    plain, guided, random = Training(None), Training("calibratemix"), Training("random_mixup")
    times = []
    for number in range(WARM + REPETITIONS):
        given = batch(number)
        times.append(tuple(training.step(number, given) for training in (plain, guided, random)))
    times = times[WARM:]
    base, with_guided, with_random = (median(column) for column in zip(*times, strict=True))
    ratio, control = median(b / a for a, b, _ in times), median(c / a for a, _, c in times)
    print(
        f"FixMatch step {base * 1e3:.0f} ms, with CalibrateMix {with_guided * 1e3:.0f} ms: ratio {ratio:.3f} "
        f"(gate {STEP_GATE:g}); with random mixup {with_random * 1e3:.0f} ms: ratio {control:.3f}"
    )

    small, large = (MarginMemory(n, CLASSES) for n in (FEW, MANY))
    large.average.normal_()  # so that every page of it is there
    pairs = [(updates(small, seed), updates(large, seed)) for seed in range(WARM + REPETITIONS)][WARM:]
    few, many = (median(column) for column in zip(*pairs, strict=True))
    growth = median(b / a for a, b in pairs)
    print(
        f"Memory update and read, {LABELED * RATIO} samples: {few:.3f} ms of {FEW:,}, {many:.3f} ms of {MANY:,}: ratio "
        f"{growth:.2f} (gate {MEMORY_GATE:g})"
    )
    return int(ratio > STEP_GATE or growth > MEMORY_GATE)


if __name__ == "__main__":
    sys.exit(main())

"""FlexMatch's learning status at the size of ImageNet: moved by the batch, against counting the whole table again.

1,281,167 samples, 1000 classes, batches of 448; process CPU time, one thread, the three in turn; median of the ratios.
Two recounts: the usual one, a Python list and a Counter, which the gate is on, and the strongest one, a single
bincount. Each of the three keeps its own table, and all must agree. Exit code 1 below the gate.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from statistics import median
from time import process_time

import torch
from torch import Tensor

from sfumato.running.status import LearningStatus

GATE = 100.0
SAMPLES, CLASSES, BATCH = 1_281_167, 1000, 448
REPETITIONS, STEPS = 5, 40

Batch = tuple[Tensor, Tensor, Tensor]  # index, label, confident


class Recount:
    """A label for every sample, -1 for none; every step counts them all."""

    def __init__(self) -> None:
        self.label = torch.full((SAMPLES,), -1)
        self.status = torch.zeros(CLASSES)

    def record(self, batch: Batch) -> None:
        index, label, confident = batch
        chosen = confident.nonzero(as_tuple=True)[0]
        self.label[index[chosen]] = label[chosen]

    def with_counter(self, batch: Batch) -> None:
        self.record(batch)
        counts = Counter(self.label.tolist())
        largest = max(counts.values())
        for c in range(CLASSES):
            self.status[c] = counts[c] / largest

    def with_bincount(self, batch: Batch) -> None:
        self.record(batch)
        counts = torch.bincount(self.label + 1, minlength=CLASSES + 1)
        self.status = counts[1:] / counts.max()


class Incremental:
    def __init__(self) -> None:
        self.memory = LearningStatus(CLASSES, SAMPLES)
        self.status = torch.zeros(CLASSES)

    def step(self, batch: Batch) -> None:
        self.memory.observe(*batch)
        self.status = self.memory.value(count_unused=True)


def batches(count: int, *, size: int = BATCH) -> list[Batch]:
    """Without repeats inside a batch, so that the order of writes does not matter."""
    out = []
    for _ in range(count):
        index = torch.randint(SAMPLES - size, ()) + torch.arange(size)
        out.append((index, torch.randint(CLASSES, (size,)), torch.rand(size) < 0.7))
    return out


def seconds(step: Callable[[Batch], None], given: list[Batch]) -> float:
    start = process_time()
    for batch in given:
        step(batch)
    return (process_time() - start) / len(given)


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours, counter, bincount = Incremental(), Recount(), Recount()
    for batch in batches(2, size=SAMPLES // 3):  # a training some way on
        ours.step(batch)
        counter.record(batch)
        bincount.record(batch)
    times: list[tuple[float, float, float]] = []
    for _ in range(REPETITIONS):
        few, many = batches(2), batches(STEPS)
        times.append(
            (
                seconds(ours.step, [*few, *many]),
                seconds(bincount.with_bincount, [*few, *many]),
                seconds(counter.with_counter, few),
            )
        )
        for batch in many:
            counter.record(batch)
    counter.with_counter(few[0])
    for recount in (ours.step, bincount.with_bincount):
        recount(few[0])
    torch.testing.assert_close(ours.status, bincount.status)
    torch.testing.assert_close(ours.status, counter.status)

    fast, single, plain = (median(column) for column in zip(*times, strict=True))
    ratios = [(b / a, c / a) for a, b, c in times]
    by_bincount, by_counter = median(r for r, _ in ratios), median(r for _, r in ratios)
    print(f"incremental {fast * 1e3:.3f} ms, bincount {single * 1e3:.2f} ms, list and Counter {plain * 1e3:.0f} ms")
    print(f"ratio to bincount {by_bincount:.0f}x, ratio to list and Counter {by_counter:.0f}x (gate {GATE:.0f}x)")
    return 0 if by_counter >= GATE else 1


if __name__ == "__main__":
    sys.exit(main())

"""The default layout of a step (weak view without gradient, channels_last) against one forward of all views, NCHW.

A FixMatch-like step of WRN-28-2 at 32 px, forward and backward, 8 labeled and 56 unlabeled images. Process CPU time,
one thread, the two in turn; median of the ratios. Exit code 1 below the gate.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from statistics import median
from time import process_time

import torch
import torch.nn.functional as F

from sfumato.forward import Nets
from sfumato.models import build_model
from sfumato.types import Batch, Labeled, Unlabeled, ViewSpec

GATE = 1.5
REPETITIONS = 5
LABELED, RATIO, CLASSES = 8, 7, 10
SPEC = ViewSpec(strong=1)


def batch() -> Batch:
    x, weak, strong = (torch.randn(count * LABELED, 3, 32, 32) for count in (1, RATIO, RATIO))
    y = torch.arange(LABELED) % CLASSES
    labeled = Labeled(x, y, torch.ones(LABELED), torch.arange(LABELED))
    return Batch(labeled, Unlabeled(weak, (strong,), torch.ones(len(weak)), torch.arange(len(weak))))


def channels_last(given: Batch) -> Batch:
    assert given.unlabeled is not None
    last = torch.channels_last
    unlabeled = replace(
        given.unlabeled,
        weak=given.unlabeled.weak.to(memory_format=last),
        strong=tuple(one.to(memory_format=last) for one in given.unlabeled.strong),
    )
    return Batch(replace(given.labeled, x=given.labeled.x.to(memory_format=last)), unlabeled)


def step(nets: Nets, given: Batch) -> float:
    """Process CPU seconds of one forward and backward."""
    nets.student.zero_grad()
    start = process_time()
    views = nets.forward(given, SPEC)
    assert views.weak is not None
    p = views.weak.logits.detach().softmax(1)
    confidence, target = p.max(1)
    charge = F.cross_entropy(views.strong[0].logits, target, reduction="none")
    loss = F.cross_entropy(views.labeled.logits, given.labeled.y) + (charge * (confidence >= 0.95)).mean()
    loss.backward()
    return process_time() - start


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = batch()
    models = [build_model("wrn_28_2", num_classes=CLASSES, image_size=32).train() for _ in range(2)]
    joint = Nets(models[0], None, "concat")
    split = Nets(models[1].to(memory_format=torch.channels_last), None, "split")
    ours = channels_last(given)
    step(joint, given), step(split, ours)  # the first of each sets up its kernels
    times = [(step(joint, given), step(split, ours)) for _ in range(REPETITIONS)]
    ratio = median(slow / fast for slow, fast in times)
    slow, fast = (median(column) for column in zip(*times, strict=True))
    print(f"Step, WRN-28-2: split, channels_last {fast:.2f} s, joint {slow:.2f} s, ratio {ratio:.2f} (gate {GATE:g})")
    return int(ratio < GATE)


if __name__ == "__main__":
    sys.exit(main())

"""The fused weight average against a loop over tensors that reloads a module, as in common reference code.

WRN-28-2, process CPU time, one thread, the two in turn; median of the ratios. Exit code 1 below the gate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from statistics import median
from time import process_time

import torch
from torch import nn

from sfumato.models import build_model
from sfumato.teacher import Ema

GATE = 10.0
REPETITIONS, UPDATES = 15, 20


class Loop:
    """A dictionary of shadow tensors. Every step: a new tensor and its clone for each weight, a clone of each buffer,
    and two loads of the module to evaluate, first the student's whole state and then the shadow over it.
    """

    def __init__(self, student: nn.Module, momentum: float) -> None:
        self.momentum = momentum
        self.module = deepcopy(student).eval()
        self.shadow = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}

    def update(self, student: nn.Module) -> None:
        for name, parameter in student.named_parameters():
            average = (1.0 - self.momentum) * parameter.detach() + self.momentum * self.shadow[name]
            self.shadow[name] = average.clone()
        for name, buffer in student.named_buffers():
            self.shadow[name] = buffer.detach().clone()
        self.module.load_state_dict(student.state_dict())
        self.module.load_state_dict(self.shadow, strict=False)


def seconds(update: Callable[..., None], *arguments: object) -> float:
    start = process_time()
    for _ in range(UPDATES):
        update(*arguments)
    return (process_time() - start) / UPDATES


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = build_model("wrn_28_2", num_classes=10, image_size=32)
    ema, loop = Ema(student, momentum=0.999, ramp=False, buffers="copy"), Loop(student, 0.999)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    ema.update(student, 0)
    loop.update(student)
    pairs = zip(ema.module.state_dict().values(), loop.module.state_dict().values(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in pairs), "the two compute the same average"
    times = [(seconds(loop.update, student), seconds(ema.update, student, 1)) for _ in range(REPETITIONS)]
    ratio = median(slow / fast for slow, fast in times)
    slow, fast = (median(column) * 1e3 for column in zip(*times, strict=True))
    print(f"EMA update, WRN-28-2: {fast:.2f} ms, loop {slow:.2f} ms, ratio {ratio:.1f} (gate {GATE:g})")
    return int(ratio < GATE)


if __name__ == "__main__":
    sys.exit(main())

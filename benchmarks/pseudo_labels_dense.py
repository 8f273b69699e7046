"""Pseudo-labels of logit maps at the size of a Pascal VOC crop: one pass in cache, against the usual chain.

8 x 21 x 321 x 321 float32; process CPU time, one thread, both sides in turn; median of the ratios, no compilation.
Hard: confidence and label, against softmax, max and argmax. Fuzzy: the two most probable classes with their shares,
the entropy and the label, against softmax, topk, scatter, sum, divide, the entropy's log, and argmax, as FARCLUSS
prints it. The shortest chain that gives the same, a softmax and one max with its indices, or topk without a dense
target, is reported beside them without a gate. Both sides must agree. Exit code 1 below the gate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from time import process_time

import torch
from torch import Tensor

from sfumato.functional.one_pass import fuzzy_label, hard_label
from sfumato.functional.probability import normalized_entropy

GATE = 2.0
SHAPE = (8, 21, 321, 321)
REPETITIONS = 7
K = 2


def usual_hard(logits: Tensor) -> tuple[Tensor, Tensor]:
    p = torch.softmax(logits, dim=1)
    return p.max(dim=1).values, logits.argmax(dim=1)


def shortest_hard(logits: Tensor) -> tuple[Tensor, Tensor]:
    top, label = torch.softmax(logits, dim=1).max(dim=1)
    return top, label


def usual_fuzzy(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    p = torch.softmax(logits, dim=1)
    values, labels = p.topk(K, dim=1)
    dense = torch.zeros_like(p).scatter_(1, labels, values)
    dense = dense / dense.sum(dim=1, keepdim=True)
    entropy = -(p * torch.log(p + 1e-8)).sum(dim=1)
    return dense, entropy, dense.argmax(dim=1)


def shortest_fuzzy(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    p = torch.softmax(logits, dim=1)
    values, labels = p.topk(K, dim=1)
    return values / values.sum(dim=1, keepdim=True), normalized_entropy(p), labels


def seconds(step: Callable[[Tensor], object], logits: Tensor) -> float:
    start = process_time()
    step(logits)
    return process_time() - start


def compare(name: str, ours: Callable[[Tensor], object], *theirs: Callable[[Tensor], object]) -> list[float]:
    """Median ratios of each of theirs to ours, after a call of each to warm up."""
    sides = (ours, *theirs)
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(REPETITIONS + 1):
        logits = torch.randn(SHAPE, generator=torch.Generator().manual_seed(turn)) * 3
        for side, own in zip(sides, times, strict=True):
            own.append(seconds(side, logits))
    times = [own[1:] for own in times]
    ratios = [median(b / a for a, b in zip(times[0], own, strict=True)) for own in times[1:]]
    usual, shortest = (f"{median(own) * 1e3:.0f} ms" for own in times[1:])
    print(
        f"{name}: one pass {median(times[0]) * 1e3:.0f} ms; usual chain {usual}, ratio {ratios[0]:.1f} "
        f"(gate >= {GATE:.0f}); shortest chain {shortest}, ratio {ratios[1]:.1f} (no gate)"
    )
    return ratios


def agree() -> None:
    logits = torch.randn(SHAPE, generator=torch.Generator().manual_seed(100)) * 3
    for got, want in zip(hard_label(logits), usual_hard(logits), strict=True):
        torch.testing.assert_close(got, want)
    fuzzy, (share, entropy, labels) = fuzzy_label(logits, K), shortest_fuzzy(logits)
    torch.testing.assert_close(fuzzy.target.share, share)
    torch.testing.assert_close(fuzzy.entropy, entropy)
    assert torch.equal(fuzzy.target.labels, labels)


def main() -> int:
    torch.set_num_threads(1)
    agree()
    hard = compare("hard", hard_label, usual_hard, shortest_hard)
    fuzzy = compare("fuzzy", lambda logits: fuzzy_label(logits, K), usual_fuzzy, shortest_fuzzy)
    return 0 if min(hard[0], fuzzy[0]) >= GATE else 1


if __name__ == "__main__":
    sys.exit(main())

"""Confusion matrices of a batch of label maps against histograms image by image, as in published evaluation code.

    python benchmarks/confusion.py

8 x 21 classes x 321 x 321, maps of blobs, process CPU time, one thread, the two in turn; median of the ratios. Exit
code 1 below the gate. Each side gets the masks as its loader has them: ours of a byte, theirs of 64 bits. Theirs also
counts less: the histograms of intersection, prediction and mask hold 3 x 21 numbers, the matrix 21 x 21.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from time import process_time

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sfumato.functional.confusion import confusion_each
from sfumato.functional.iou import intersection_union

GATE = 5.0
REPETITIONS, CALLS = 15, 10
SHAPE, CLASSES, VOID = (8, 321, 321), 21, 255


def maps() -> tuple[Tensor, Tensor]:
    """Predictions and masks, alike where the prediction is right, with a void border of 5 pixels."""
    generator = torch.Generator().manual_seed(0)

    def blobs() -> Tensor:
        return interpolate(torch.randn(SHAPE[0], CLASSES, 10, 10, generator=generator), SHAPE[1:], mode="bilinear")

    truth = blobs()
    labels = truth.argmax(dim=1)
    labels[:, :5] = labels[:, -5:] = labels[:, :, :5] = labels[:, :, -5:] = VOID
    return (truth + 0.5 * blobs()).argmax(dim=1), labels


def histograms(prediction: Tensor, labels: Tensor) -> list[np.ndarray]:
    """Intersection, union of every image: to the host, void out, three histograms."""
    found, edges = [], np.arange(CLASSES + 1)
    for one, mask in zip(prediction, labels, strict=True):
        guess, label = one.cpu().numpy().flatten(), mask.cpu().numpy().flatten()
        guess[label == VOID] = VOID
        hit, said, there = (np.histogram(values, bins=edges)[0] for values in (guess[guess == label], guess, label))
        found.append(np.stack([hit, said + there - hit]))
    return found


def seconds(count: Callable[[], object]) -> float:
    start = process_time()
    for _ in range(CALLS):
        count()
    return (process_time() - start) / CALLS


def main() -> int:
    torch.set_num_threads(1)
    prediction, labels = maps()
    bytes_ = labels.to(torch.uint8)
    ours = torch.stack(intersection_union(confusion_each(prediction, bytes_, CLASSES)), dim=1)
    theirs = np.stack(histograms(prediction, labels))
    assert np.array_equal(ours.numpy(), theirs), "the two count the same"
    times = [
        (
            seconds(lambda: histograms(prediction, labels)),
            seconds(lambda: confusion_each(prediction, bytes_, CLASSES)),
            seconds(lambda: confusion_each(prediction, labels, CLASSES)),
        )
        for _ in range(REPETITIONS)
    ]
    ratio, wide = (median(row[0] / row[side] for row in times) for side in (1, 2))
    slow, fast, _ = (median(column) * 1e3 for column in zip(*times, strict=True))
    shape = " x ".join(map(str, (SHAPE[0], CLASSES, *SHAPE[1:])))
    print(f"confusion matrices, {shape}: {fast:.2f} ms, histograms {slow:.2f} ms, ratio {ratio:.1f} (gate {GATE:g})")
    print(f"the same, masks of 64 bits on our side too: ratio {wide:.1f} (no gate)")
    return int(ratio < GATE)


if __name__ == "__main__":
    sys.exit(main())

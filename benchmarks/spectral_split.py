"""CSL's split of the predictions of an image: in closed form, against the singular vectors of a library.

Eight images of 321 x 321 predictions; process CPU time, one thread, both sides in turn; median of the ratios. Theirs is
torch.linalg.svd without the full matrices, an image at a time, and the larger of both entries; the full ones, as they
are printed, would take 42 GB for a single image. Ours is the sums of products over all images and the comparison. The
axes are compared with a decomposition in float64. Exit code 1 below the gate, or when axis or parts differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from time import process_time

import torch
from torch import Tensor

from sfumato.functional.probability import probability
from sfumato.functional.spectral import moments, principal_axis, residual_dispersion, spectral_split

GATE = 4.0
AXIS_ERROR = 1e-5
PARTS = 1e-4  # share of predictions that float32 singular vectors may put in the other part
IMAGES, CLASSES, SIDE = 8, 21, 321
REPETITIONS = 11


def features(seed: int) -> tuple[Tensor, Tensor]:
    """Confidence and dispersion (images, pixels) float32 of predictions between doubtful and sure."""
    draw = torch.Generator().manual_seed(seed)
    sharp = 0.3 + 6 * torch.rand((IMAGES, 1, SIDE, SIDE), generator=draw)
    p = probability(torch.randn((IMAGES, CLASSES, SIDE, SIDE), generator=draw) * sharp)
    return p.amax(dim=1).flatten(1), residual_dispersion(p).flatten(1)


def theirs(confidence: Tensor, dispersion: Tensor) -> Tensor:
    parts = []
    for c, d in zip(confidence, dispersion, strict=True):
        _, _, vectors = torch.linalg.svd(torch.stack([c, d]), full_matrices=False)
        parts.append(vectors.abs().argmax(dim=0) == 0)
    return torch.stack(parts)


def ours(confidence: Tensor, dispersion: Tensor, valid: Tensor) -> Tensor:
    return spectral_split(moments(confidence, dispersion, valid), confidence, dispersion)


def seconds(step: Callable[..., Tensor], *given: Tensor) -> float:
    start = process_time()
    step(*given)
    return process_time() - start


def axis_error(confidence: Tensor, dispersion: Tensor, valid: Tensor) -> float:
    """The largest relative error of a component of the first axis."""
    axis, _, _ = principal_axis(moments(confidence, dispersion, valid))
    worst = 0.0
    for own, c, d in zip(axis, confidence.double(), dispersion.double(), strict=True):
        exact = torch.linalg.svd(torch.stack([c, d]), full_matrices=False)[0][:, 0]
        worst = max(worst, float(((own.abs() - exact.abs()) / exact.abs()).abs().max()))
    return worst


def main() -> int:
    torch.set_num_threads(1)
    valid = torch.ones(IMAGES, SIDE * SIDE)
    given = features(0)
    differ = float((ours(*given, valid) != theirs(*given)).float().mean())
    error = axis_error(*given, valid)
    times = []
    for turn in range(REPETITIONS):
        given = features(turn)
        times.append((seconds(ours, *given, valid), seconds(theirs, *given)))
    us, them = (median(side) * 1e3 for side in zip(*times, strict=True))
    ratio = median(b / a for a, b in times)
    print(f"split of {IMAGES} images: closed form {us:.1f} ms, singular vectors {them:.1f} ms, ratio {ratio:.1f}x")
    print(f"(gate >= {GATE:.0f}x); error of the axis {error:.1e} (<= {AXIS_ERROR:.0e}), parts differ {differ:.1e}")
    return 0 if ratio >= GATE and error <= AXIS_ERROR and differ <= PARTS else 1


if __name__ == "__main__":
    sys.exit(main())

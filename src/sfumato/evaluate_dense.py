"""What predictions of a class per pixel are worth, observed image by image and added up once.

Held in memory: a confusion matrix of each image, one of the bands along the contours, the bins of the calibration
error, a few sums, and a sample of pixels. Never a map of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato import distributed
from sfumato.errors import UsageError
from sfumato.evaluate import agreement
from sfumato.functional.boundary import SHARE, boundary_confusion
from sfumato.functional.confusion import confusion_each, ignored
from sfumato.functional.entries import entries
from sfumato.functional.iou import Absent, intersection_union, iou, mean_iou, mean_ratio
from sfumato.pixel_sample import PixelSample
from sfumato.running.calibration import ProperScores, TopLabelBins
from sfumato.types import HeldOut


@dataclass(frozen=True, slots=True)
class PerImage:
    """The confusion matrix of each image, for a verdict over images."""

    images: Tensor  # (N,) int64, ascending
    counts: Tensor  # (N, C, C) int32, rows = label


@dataclass(frozen=True, slots=True)
class _Calibration:
    """Confidence against the labels, at one temperature."""

    temperature: float
    bins: TopLabelBins
    scores: ProperScores

    def result(self) -> dict[str, float]:
        nll, brier = self.scores.value.tolist()
        return {"nll": nll, "brier": brier, "ece": float(self.bins.value)}


class DenseScores:
    """Every metric of pixel-wise predictions. Labels of 255 (`VOID`) and negative ones are in none of them.

    Ranks observe what images they like, each image on one rank only; they are merged when a result is read, which all
    of them have to do together. Reading changes nothing.

    Args:
        classes: C names.
        bins: of the calibration error.
        temperature: adds `calibrated`, the metrics with logits divided by it. Fit it beforehand, on the `held_out` of
            the validation images, and one pass over the test images gives both.
        boundary: width of the bands along the contours, as a share of the image's diagonal.
        pixels: at most so many of each image are kept for `held_out`.
        device: of everything that is kept; with an NCCL group it has to be the rank's accelerator.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        bins: int = 15,
        temperature: float | None = None,
        boundary: float = SHARE,
        pixels: int = 2000,
        device: torch.device | str = "cpu",
    ) -> None:
        if temperature is not None and not temperature > 0:
            raise UsageError(f"temperature={temperature}: expected a positive number.")
        self.classes, self.boundary, self.device = list(classes), boundary, torch.device(device)
        count = len(self.classes)
        self._calibrations = [
            _Calibration(at, TopLabelBins(bins).to(self.device), ProperScores().to(self.device))
            for at in (1.0, *(() if temperature is None else (temperature,)))
        ]
        self._bands = torch.zeros((count + 1, count + 1), dtype=torch.int64, device=self.device)
        self._images: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._sample = PixelSample(count, each=pixels, device=self.device)

    @torch.no_grad()
    def observe(self, logits: Tensor, labels: Tensor, images: Tensor | None = None) -> None:
        """A batch of images, which may have another size than those before.

        logits: (n, C, H, W), or logarithms of probabilities; labels: (n, H, W) of any integer type; images: (n,) the
        number of each, by which ranks tell images apart; None counts on, with one process only.

        Raises UsageError when the shapes do not fit, a label is C or more, or `images` is missing.
        """
        count = len(self.classes)
        if logits.dim() != 4 or logits.shape[1] != count:
            raise UsageError(
                f"logits of shape {tuple(logits.shape)} do not fit {count} class names: expected (n, {count}, H, W)."
            )
        images = self._numbers(len(logits), images)
        guess = logits.argmax(dim=1)
        counts = confusion_each(guess, labels, count)  # checks the labels, before anything is kept
        self._counts.append(counts.int().to(self.device))
        self._images.append(images.to(self.device))
        self._bands += boundary_confusion(guess, labels, count, self.boundary).to(self.device)
        valid, labels = ~ignored(labels, count), labels.long()
        for calibration in self._calibrations:
            each = entries(logits, guess, labels, valid, calibration.temperature)
            calibration.bins.observe_entries(each.top, each.right)
            calibration.scores.observe_entries(each.nll, each.brier)
        self._sample.observe(images, logits, labels, valid)

    def _numbers(self, count: int, images: Tensor | None) -> Tensor:
        if images is None:
            if distributed.active():
                raise UsageError("images=None on several ranks: pass the number of each image, (n,) int64.")
            return torch.arange(count) + sum(len(numbers) for numbers in self._images)
        if tuple(images.shape) != (count,):
            raise UsageError(f"images of shape {tuple(images.shape)} do not fit {count} images: expected ({count},).")
        return images.long()

    def result(self, absent: Absent = "nan") -> dict[str, float]:
        """Every metric so far, as fractions and nats; NaN where there is nothing to count, which means leave out.

        "miou", "acc" of the pixels, "balanced_acc" (mean recall), "boundary_iou" (`functional.boundary`), "nll",
        "brier" and "ece" over the pixels; "iou/<class>", "recall/<class>".

        absent: what the IoU of a class is that is neither labeled nor predicted: "nan", or "zero" as in published
        tables (`functional.iou`).

        Raises UsageError when an image was observed twice, on one rank or on two.
        """
        self._check_numbers()
        counts = torch.zeros(len(self.classes), len(self.classes), dtype=torch.int64, device=self.device)
        for part in self._counts:
            counts += part.sum(dim=0)
        counts = distributed.sum_over_ranks(counts)
        found = agreement(counts, self.classes)
        intersection, union = intersection_union(distributed.sum_over_ranks(self._bands))
        scores = {
            "miou": float(mean_iou(counts, absent)),
            "acc": found["acc"],
            "balanced_acc": found["balanced_acc"],
            "boundary_iou": float(mean_ratio(intersection[:-1], union[:-1], absent)),
            **self._calibrations[0].result(),
        }
        scores |= {f"iou/{name}": value for name, value in zip(self.classes, iou(counts, absent).tolist(), strict=True)}
        return scores | {f"recall/{name}": found[f"recall/{name}"] for name in self.classes}

    def calibrated(self, absent: Absent = "nan") -> dict[str, float]:
        """As `result`, with "nll", "brier" and "ece" at the temperature that was given."""
        if len(self._calibrations) < 2:
            raise UsageError("calibrated() needs a temperature: DenseScores(..., temperature=...).")
        return self.result(absent) | self._calibrations[1].result()

    @property
    def per_image(self) -> PerImage:
        """The matrices of all ranks in the order of the images' numbers."""
        self._check_numbers()
        count = len(self.classes)
        none = torch.zeros((0, count, count), dtype=torch.int32, device=self.device)
        images, counts = self._gathered_numbers(), distributed.gather(torch.cat([none, *self._counts]))
        order = images.argsort()
        return PerImage(images[order], counts[order])

    @property
    def held_out(self) -> HeldOut:
        """A sample of the pixels of all ranks, (M, C) logits, for a temperature or `Method.calibrate`."""
        return self._sample.held_out

    @property
    def bins(self) -> TopLabelBins:
        """Those of the calibration error, whose `table` is a reliability diagram."""
        return self._calibrations[0].bins

    def _gathered_numbers(self) -> Tensor:
        none = torch.zeros(0, dtype=torch.int64, device=self.device)
        return distributed.gather(torch.cat([none, *self._images]))

    def _check_numbers(self) -> None:
        numbers, times = torch.unique(self._gathered_numbers(), return_counts=True)
        if bool((times > 1).any()):
            raise UsageError(
                f"image {int(numbers[times > 1][0])} was observed {int(times.max())} times and would count as often: "
                "give each image to one rank, once. A sampler that fills the last batch repeats images."
            )

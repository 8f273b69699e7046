"""A few labeled pixels of each image, with their logits: enough to fit a temperature, and bounded in memory.

Which pixels depends on the image's number alone: not on the batches, their order, the ranks or torch's random state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato import distributed
from sfumato.types import HeldOut
from sfumato.views.draws import uniform

_MOST_VALUES = 1 << 22  # logits kept in all, 16 MB: 200,000 pixels of 21 classes


class PixelSample:
    """Keeps up to `each` valid pixels of an image, one from each of `each` equal parts of them.

    When all images together exceed `most`, `each` is halved, for those that follow and for those that are kept: the
    pixels of an image are in random order, so that the first half of them is a sample as good. What remains does not
    depend on the order of the images. Ranks are merged when `held_out` is read, by all of them together, which changes
    nothing.
    """

    def __init__(
        self, num_classes: int, *, each: int = 2000, most: int | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.num_classes, self.device = num_classes, torch.device(device)
        self.each = self._quota = each
        self.most = _MOST_VALUES // num_classes if most is None else most
        self._images: list[int] = []
        self._counts: list[int] = []  # that an image would give if there were no limit in all
        self._logits: list[Tensor] = []  # (up to the quota, C) float32
        self._labels: list[Tensor] = []

    @torch.no_grad()
    def observe(self, images: Tensor, logits: Tensor, labels: Tensor, valid: Tensor) -> None:
        """images: (n,) int64, the number of each; logits: (n, C, *S); labels: (n, *S) int64; valid: (n, *S) bool."""
        z, y, kept = logits.flatten(2), labels.flatten(1), valid.flatten(1)
        if self.each < 1:
            return
        images = images.cpu()
        places = uniform(0, 0, "pixels of an image", images, self.each).double()
        order = uniform(0, 0, "order of pixels", images, self.each)
        for i, image in enumerate(images.tolist()):
            there = kept[i].nonzero().squeeze(1)
            count = min(self.each, len(there))
            ends = torch.arange(count + 1) * len(there) // max(1, count)
            chosen = ends[:-1] + (places[i, :count] * ends.diff()).long()
            chosen = chosen[order[i, :count].argsort(stable=True)][: self._quota]
            pixels = there[chosen.to(there.device)]
            self._images.append(image)
            self._counts.append(count)
            self._logits.append(z[i, :, pixels].T.float().to(self.device))
            self._labels.append(y[i, pixels].long().to(self.device))
        quota = self._fitting(self._counts)
        if quota < self._quota:  # clones, so that the memory of what goes is free
            self._quota = quota
            self._logits = [kept[:quota].clone() for kept in self._logits]
            self._labels = [kept[:quota].clone() for kept in self._labels]

    def _fitting(self, counts: list[int]) -> int:
        """The largest halving of `each` with which images of so many pixels stay within `most`."""
        quota = self._quota
        while quota > 1 and sum(min(count, quota) for count in counts) > self.most:
            quota //= 2
        return quota

    @property
    def held_out(self) -> HeldOut:
        """The sample of all ranks in the order of the images: logits (M, C), labels and ones (M,)."""
        images, counts = (
            torch.tensor(numbers, dtype=torch.int64, device=self.device) for numbers in (self._images, self._counts)
        )
        quota = self._fitting(distributed.gather(counts).tolist())
        none = torch.zeros((0, self.num_classes), device=self.device)
        logits = distributed.gather(torch.cat([none, *(kept[:quota] for kept in self._logits)]))
        labels = distributed.gather(torch.cat([none[:, 0].long(), *(kept[:quota] for kept in self._labels)]))
        order = distributed.gather(images.repeat_interleave(counts.clamp(max=quota))).argsort(stable=True)
        return HeldOut(logits[order], labels[order], torch.ones(len(order), device=self.device))

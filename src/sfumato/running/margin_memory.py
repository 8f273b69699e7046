"""The average margin of every sample: the training dynamics that CalibrateMix and MarginMatch read, and label triage.

aum = MarginMemory(num_labeled)                     # one number a sample: the margin of its label
aum.observe(batch.index, margin_of(logits, y))      # functional.margins
aum.at(index)                                       # low where a label contradicts what the others teach
apm = MarginMemory(num_unlabeled, num_classes)      # C numbers a sample: the margin of every class
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sfumato.distributed import gather_batch
from sfumato.errors import UsageError, check_choice
from sfumato.running.average import checked_momentum
from sfumato.running.memory import check_fits, readable

Decay = Literal["mean", "eq5", "ema"]
Storage = Literal["auto", "ram", "mapped"]
MAPPED_ABOVE = 2 * 2**30  # bytes: CIFAR-100 with all 100 classes needs 20 MB, ImageNet with 1000 needs 5 GB


class MarginMemory(nn.Module):
    """The average of each sample's margins over its visits, kept by the place of the sample in its set.

    A step costs O(batch), however many samples there are. All ranks hold the whole table, since the batch is gathered
    first. A sample that occurs k times in a global batch is visited k times, each time with the mean of those margins:
    the order inside a batch does not matter.

    With t visits before, m the new margin and a its weight, average <- a m + (1 - a) average:

    - decay="mean": a = 1 / (t + 1), every visit counts alike (AUM; CalibrateMix, eq. 4).
    - decay="eq5": a = delta / (t + 1), as CalibrateMix (eq. 5) and MarginMatch have it, with delta 0.997. It is meant
      to forget and hardly differs from the mean: old visits even weigh a little *more*.
    - decay="ema": a = 1 - momentum, and 1 at the first visit: this one forgets.

    Args:
        num_samples: N, the size of the set.
        num_classes: C numbers for each sample; None for one.
        decay, delta, momentum: see above.
        memory: "ram" keeps the table on the device of the module, "mapped" in a file that the system pages in and out,
            "auto" the latter above 2 GiB, and says so. The file has no name and goes with the process: what is kept is
            in `state_dict`, as always. It lies in the folder for temporary files, which TMPDIR sets; a step waits for
            the device then.

    Buffers: `average` (N + 1,) or (N + 1, C) float32, and `visits` (N + 1,) int32; the last row is a bin for what must
    not be written. Merge rule: the global batch is written by every rank alike.

    Raises:
        UsageError: an unknown choice, a delta or momentum that is no weight, or a table that does not fit.
    """

    average: Tensor
    visits: Tensor

    def __init__(
        self,
        num_samples: int,
        num_classes: int | None = None,
        *,
        decay: Decay = "mean",
        delta: float = 0.997,
        momentum: float = 0.99,
        memory: Storage = "auto",
    ) -> None:
        super().__init__()
        check_choice("MarginMemory", "decay", decay, get_args(Decay))
        check_choice("MarginMemory", "memory", memory, get_args(Storage))
        if num_samples < 1:
            raise UsageError(
                f"MarginMemory(num_samples={num_samples}): expected the size of the set, for it keeps a row for each."
            )
        if not 0.0 < delta <= 1.0:
            raise UsageError(f"MarginMemory(delta={delta}): expected above 0 and at most 1, such as 0.997.")
        self.num_samples, self.decay, self.delta = num_samples, decay, delta
        self.momentum = checked_momentum(momentum)
        shape = (num_samples + 1,) if num_classes is None else (num_samples + 1, num_classes)
        self.mapped = _mapped(shape, memory)
        if self.mapped:
            self.average = _in_a_file(shape)  # no buffer: it stays on the CPU wherever the module goes
        else:
            self.register_buffer("average", torch.zeros(shape))
        self.register_buffer("visits", torch.zeros(num_samples + 1, dtype=torch.int32))

    @torch.no_grad()
    def observe(self, index: Tensor, margin: Tensor, valid: Tensor | None = None) -> None:
        """index: (B,) int64 of this rank's samples; margin: (B,) or (B, C); valid: (B,), where 0 there is no visit."""
        if valid is not None:
            index = torch.where(valid > 0, index, self.num_samples)
        index, margin = gather_batch(index), gather_batch(margin.to(self.average.dtype))
        slot, count, mean = _by_sample(index.to(self.visits.device), margin.to(self.average.device), self.num_samples)
        seen = self.visits[slot]
        weight = self._weight(seen, count).to(mean)
        weight = weight if mean.dim() == 1 else weight.unsqueeze(1)
        place = slot.to(self.average.device)
        old = self.average[place]
        # Not lerp: where the weight is 0, as in the bin, the old value is to stay whatever the new one.
        self.average[place] = torch.where(weight > 0, weight * mean + (1 - weight) * old, old)
        self.visits[slot] = seen + count

    def at(self, index: Tensor) -> Tensor:
        """The averages of these samples, (B,) or (B, C); 0 for one that was never visited."""
        return self.average[index.to(self.average.device)].to(index.device)

    def seen(self, index: Tensor) -> Tensor:
        """How often each of these samples was visited, (B,) int32."""
        return self.visits[index]

    def _weight(self, seen: Tensor, count: Tensor) -> Tensor:
        """Of the mean margin of `count` visits after `seen` of them, (B,) float64."""
        t, k = seen.double(), count.double()
        if self.decay == "ema":
            return torch.where(count == 0, 0.0, torch.where(seen == 0, 1.0, 1 - self.momentum**k))
        return (self.delta if self.decay == "eq5" else 1.0) * k / (t + k).clamp_min(1)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """With the mapped table among the buffers: it is saved and restored as these are, and nothing else."""
        if not self.mapped:
            yield
            return
        self._buffers["average"] = self.__dict__["average"]
        try:
            yield
        finally:
            del self._buffers["average"]

    def _save_to_state_dict(self, *args: Any) -> None:
        with self._shown():
            super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        with self._shown():
            super()._load_from_state_dict(*args)


def _by_sample(index: Tensor, margin: Tensor, bin_slot: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each sample of a batch once: its slot, how often it occurs and the mean of its margins, all padded to (B,).

    What is left over goes to the bin, with a count of 0.
    """
    ordered, order = index.sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    group = first.cumsum(0) - 1
    slot = torch.full_like(ordered, bin_slot).scatter_(0, group, ordered)
    count = torch.zeros_like(ordered).scatter_add_(0, group, (ordered != bin_slot).long())
    place = group.to(margin.device)
    total = torch.zeros_like(margin).index_add_(0, place, margin[order.to(margin.device)])
    divisor = count.clamp_min(1).to(margin)
    return slot, count.int(), total / (divisor if margin.dim() == 1 else divisor.unsqueeze(1))


# Where the table lies


def _mapped(shape: tuple[int, ...], memory: Storage) -> bool:
    """Whether to map the table; UsageError where it is to be in memory and cannot, or does not fit on the disk."""
    size = 4 * torch.Size(shape).numel()
    words = f"The margins of {shape[0] - 1:,} samples" + (f" and {shape[1]:,} classes" if len(shape) > 1 else "")
    if memory == "ram":
        check_fits(words, size, "Use memory='mapped', which keeps them in a file.")
        return False
    if memory == "auto" and size <= MAPPED_ABOVE:
        return False
    folder = Path(tempfile.gettempdir())
    if size > (free := shutil.disk_usage(folder).free):
        raise UsageError(
            f"{words} take {readable(size)} in a file, and {folder} has {readable(free)} free. Set TMPDIR to a "
            "folder on a larger disk, or train on fewer samples."
        )
    if memory == "auto":
        warnings.warn(
            f"{words} take {readable(size)}: they are kept in a file in {folder}, which a step has to wait for. With "
            "memory enough, memory='ram' is faster.",
            stacklevel=4,
        )
    return True


def _in_a_file(shape: tuple[int, ...]) -> Tensor:
    """Zeros in a file without a name, of which only what is written takes space."""
    with tempfile.NamedTemporaryFile(prefix="sfumato-margins-") as file:
        numel = torch.Size(shape).numel()
        file.truncate(4 * numel)
        return torch.from_file(file.name, shared=True, size=numel, dtype=torch.float32).reshape(shape)

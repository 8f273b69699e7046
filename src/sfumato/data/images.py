"""The images of a table, decoded on demand and kept in memory when they fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sfumato.data.decode import BrokenImage, Item, attempt_each, decode, digest
from sfumato.data.listing import SHOWN, plural
from sfumato.errors import DataError

KEEP_LIMIT = 2 << 30  # bytes
T = TypeVar("T")


class ImageStore:
    """N images of one size, as uint8.

    `items` is an array (N, H, W) or (N, H, W, 3) of uint8, or a sequence of files or encoded images. Each image is
    resized and centre cropped to `image_size` square and converted to `channels` (1 or 3) when first asked for. It is
    kept from then on if all N together need at most `keep_limit` bytes; otherwise it is decoded every time. Either way
    the same row gives the same bits.
    """

    def __init__(
        self,
        items: Sequence[Item] | NDArray[np.uint8],
        names: Sequence[str],
        *,
        image_size: int,
        channels: int,
        keep_limit: int = KEEP_LIMIT,
    ) -> None:
        self.image_size = image_size
        self.channels = channels
        self.items = items
        self._names = names
        self._digests: dict[int, str] = {}
        self._kept: NDArray[np.uint8] | None = None  # (N, channels, image_size, image_size), valid where ready
        self._ready = np.zeros(len(items), dtype=bool)
        if isinstance(items, np.ndarray) and items.shape[1:3] == (image_size, image_size) and _depth(items) == channels:
            self._kept = items.reshape(*items.shape[:3], channels).transpose(0, 3, 1, 2)
            self._ready[:] = True
        elif len(items) * channels * image_size**2 <= keep_limit:
            self._kept = np.empty((len(items), channels, image_size, image_size), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.items)

    def load(self, rows: ArrayLike) -> Tensor:
        """Images (n, channels, image_size, image_size), uint8 on the CPU, in the order of `rows`.

        Raises DataError naming the images that cannot be decoded.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if self._kept is None:
            return torch.from_numpy(self._decode(wanted))
        missing = np.unique(wanted[~self._ready[wanted]])
        if len(missing):
            self._kept[missing] = self._decode(missing)
            self._ready[missing] = True
        return torch.from_numpy(np.ascontiguousarray(self._kept[wanted]))

    def digests(self, rows: ArrayLike) -> list[str]:
        """A content hash for each of `rows`: equal for equal pixels, whatever the file format or `image_size`.

        Raises DataError naming the images that cannot be decoded.
        """
        wanted = [int(row) for row in np.asarray(rows, dtype=np.int64)]
        missing = [row for row in dict.fromkeys(wanted) if row not in self._digests]
        found = attempt_each(digest, [self.items[row] for row in missing])
        self._digests.update(zip(missing, self._all_sound(missing, found), strict=True))
        return [self._digests[row] for row in wanted]

    def _decode(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        one = partial(decode, image_size=self.image_size, channels=self.channels)
        decoded = self._all_sound(rows.tolist(), attempt_each(one, [self.items[row] for row in rows]))
        empty = np.empty((0, self.channels, self.image_size, self.image_size), dtype=np.uint8)
        return np.stack(decoded) if decoded else empty

    def _all_sound(self, rows: list[int], results: list[T | BrokenImage]) -> list[T]:
        pairs = zip(rows, results, strict=True)
        broken = {self._names[row]: str(result) for row, result in pairs if isinstance(result, BrokenImage)}
        if broken:
            raise DataError(describe_broken(broken))
        return [result for result in results if not isinstance(result, BrokenImage)]


def describe_broken(broken: dict[str, str]) -> str:
    """The message for images that cannot be read: name -> reason."""
    shown = ", ".join(f"'{name}' ({reason})" for name, reason in list(broken.items())[:SHOWN])
    more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    them = "it" if len(broken) == 1 else "them"
    return (
        f"{plural(len(broken), 'image')} cannot be read: {shown}{more}. "
        f"Replace or delete {them}, or leave {them} out with skip_broken=true (`sfumato predict`: --skip-broken)."
    )


def _depth(pixels: NDArray[np.uint8]) -> int:
    return 1 if pixels.ndim == 3 else int(pixels.shape[3])

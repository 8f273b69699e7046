"""Masks that a network has given to images of a table: an index image each, in the folder of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from sfumato.data.decode import BrokenImage, attempt_each, read_header
from sfumato.data.images import KEEP_LIMIT
from sfumato.data.pairs.masks import read_raw
from sfumato.data.pairs.store import PIXELS_PER_TASK, Kept, PairStore, check_windows, cut_labels
from sfumato.errors import DataError
from sfumato.types import VOID, Windows


class StoredMasks:
    """Class numbers of the pixels of some images, cut by the windows of the images themselves.

    files: row of the table -> its mask, of the size at which the table reads the image. mend: ends every message.

    Every file is looked for when this is made, and decoded when it is first used. Raises DataError naming a file that
    is missing, broken, of another size, or holds numbers that are no class.
    """

    def __init__(
        self, files: Mapping[int, Path], images: PairStore, classes: int, *, mend: str, keep_limit: int = KEEP_LIMIT
    ) -> None:
        self.files = dict(files)
        self.classes = classes
        self.mend = mend
        self._images = images
        self._kept = Kept(keep_limit)
        attempt_each(self._check_header, list(self.files))

    def crops(self, rows: ArrayLike, windows: Windows, size: tuple[int, int]) -> Tensor:
        """(n, h, w) uint8, VOID where padded. As `PairStore.crops` cuts the masks of the table."""
        wanted = [int(row) for row in np.asarray(rows, dtype=np.int64)]
        check_windows(windows, len(wanted), size)
        labels = np.full((len(wanted), *size), VOID, dtype=np.uint8)

        def cut(place: int) -> None:
            cut_labels(self._mask(wanted[place]), windows, place, labels[place])

        attempt_each(cut, range(len(wanted)), chunk=max(1, PIXELS_PER_TASK // (size[0] * size[1])))
        return torch.from_numpy(labels)

    def _mask(self, row: int) -> Image.Image:
        return self._kept.get(row, lambda: self._decoded(row))

    def _decoded(self, row: int) -> Image.Image:
        path = self.files[row]
        try:
            raw = read_raw(path)
        except BrokenImage as broken:
            raise self._error(path, f"not readable ({broken})") from broken
        values: NDArray[np.uint8] = raw.values.astype(np.uint8)
        self._check_size(row, raw.values.shape[1], raw.values.shape[0])
        numbers = np.where(raw.values == VOID, 0, raw.values)
        if raw.colored or numbers.min(initial=0) < 0 or numbers.max(initial=0) >= self.classes:
            raise self._error(path, f"it holds other numbers than 0..{self.classes - 1} and {VOID}")
        return Image.fromarray(values)

    def _check_header(self, row: int) -> None:
        path = self.files[row]
        if not path.is_file():
            raise self._error(path, "no such file")
        try:
            header = read_header(path)
        except BrokenImage as broken:
            raise self._error(path, f"not readable ({broken})") from broken
        self._check_size(row, header.width, header.height)

    def _check_size(self, row: int, width: int, height: int) -> None:
        across, down = (int(side) for side in self._images.sizes([row])[0])
        if (width, height) != (across, down):
            raise self._error(self.files[row], f"{width}x{height} pixels; its image is read at {across}x{down}")

    def _error(self, path: Path, what: str) -> DataError:
        return DataError(f"{path}: {what}. {self.mend}")


def mask_names(names: list[str]) -> list[str]:
    """The file of each image's mask: its name with .png in place of its ending, or behind it where two would be one.

    Names stay below the folder that they are put in. Where two are still one, images are numbered.
    """
    inside = [PurePosixPath(*_below(name)) for name in names]
    for found in (
        [path.with_suffix(".png").as_posix() for path in inside],
        [f"{path.as_posix()}.png" for path in inside],
    ):
        if len({name.lower() for name in found}) == len(found):
            return found
    return [f"{place:06d}.png" for place in range(len(names))]


def _below(name: str) -> list[str]:
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    return parts or ["image"]

"""Images for the gallery, as PNG data URIs: nothing beside the page is needed to see them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.errors import DataError

Images = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Rows of the data table (n,) -> uint8 images (n, channels, H, W)."""

SIDE = 112
"""Longest side of an embedded picture in pixels; larger ones are reduced."""


_PIXELS = 48
"""Up to so many pixels a picture is shown with hard edges, since smoothing would hide what the network saw."""


@dataclass(frozen=True, slots=True)
class Picture:
    uri: str
    small: bool


def pictures(images: Images, rows: Sequence[int]) -> dict[int, Picture]:
    """A picture for each row, loaded in one call.

    Raises `DataError` when what comes back is not one uint8 image (channels, H, W) for each row.
    """
    wanted = np.array(sorted(set(rows)), np.int64)
    if not len(wanted):
        return {}
    found = np.asarray(images(wanted))
    if found.dtype != np.uint8 or found.ndim != 4 or len(found) != len(wanted):
        raise DataError(
            f"images for the gallery: expected uint8 ({len(wanted)}, channels, H, W), "
            f"found {found.dtype} {found.shape}. Give `ImageStore.load` of the table this run was trained on."
        )
    small = max(found.shape[2:]) <= _PIXELS
    return {int(row): Picture(data_uri(image), small) for row, image in zip(wanted, found, strict=True)}


def data_uri(image: NDArray[np.uint8], side: int = SIDE) -> str:
    """One image (channels, H, W) as PNG: colour from three channels or more, else grey from the first."""
    colour = image.shape[0] >= 3
    picture = Image.fromarray(np.ascontiguousarray(image[:3].transpose(1, 2, 0) if colour else image[0]))
    picture.thumbnail((side, side))
    sheet = io.BytesIO()
    picture.save(sheet, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(sheet.getvalue()).decode("ascii")

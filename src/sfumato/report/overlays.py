"""Images of a run with masks: beside each what is known of it, what the network says, and where it is unsure.

A map is a PNG of its own size with the colors of the classes, laid over the image by the page: the image is in the page
once, and no color is mixed beforehand. Where nothing is known a map is transparent.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from sfumato.report import wording
from sfumato.report.palette import light
from sfumato.report.pictures import data_uri
from sfumato.report.records import Account, Maps
from sfumato.types import VOID

SIDE = 208
"""Longest side of an embedded image in pixels; larger ones are reduced."""

_PIXELS = 96  # up to so many an image is shown with hard edges
_LEVELS = 32  # of uncertainty: more cannot be told apart, and would only make the file heavy


@dataclass(frozen=True, slots=True)
class Layer:
    title: str
    uri: str
    kind: str  # "classes" or "entropy"


@dataclass(frozen=True, slots=True)
class Plate:
    """One image with its layers."""

    key: str  # unique on the page
    name: str
    photo: str
    width: int
    height: int
    small: bool
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Overlays:
    tested: str  # which images `test` shows
    test: tuple[Plate, ...]
    unlabeled: tuple[Plate, ...]
    legend: tuple[tuple[str, str], ...]  # name and color of the classes that are to be seen
    void: bool  # whether parts of the masks are void


def overlays(account: Account) -> Overlays | None:
    """None where the run kept no images."""
    entry, held = account.entry(account.focus), account.gallery
    if entry is None or held is None or not entry.runs:
        return None
    run = entry.runs[0]
    untested = run.predictions is not None and not len(run.predictions.rows)
    shown = [*held.test, *held.unlabeled]
    seen = {int(c) for maps in shown for plane in (maps.truth, maps.labels) for c in np.unique(plane)}
    legend = [
        (name, wording.hex_color(color))
        for place, (name, color) in enumerate(zip(run.classes, held.colors, strict=False))
        if place in seen
    ]
    return Overlays(
        tested="validation" if untested else "test",
        test=tuple(_plate(f"test-{n}", maps, held.colors, _TESTED) for n, maps in enumerate(held.test)),
        unlabeled=tuple(_plate(f"new-{n}", maps, held.colors, _UNLABELED) for n, maps in enumerate(held.unlabeled)),
        legend=tuple(legend),
        void=any((maps.truth == VOID).any() and (maps.truth != VOID).any() for maps in shown),
    )


_TESTED = (("truth", "mask"), ("labels", "prediction"), ("entropy", "uncertainty"))
_UNLABELED = (("labels", "the network's label"), ("entropy", "uncertainty"), ("truth", "hidden mask"))


def _plate(key: str, maps: Maps, colors: NDArray[np.uint8], titles: Sequence[tuple[str, str]]) -> Plate:
    """Without the layer of a mask where none is known."""
    height, width = maps.truth.shape
    uris = {"labels": mask_uri(maps.labels, colors), "entropy": entropy_uri(maps.entropy)}
    if (maps.truth != VOID).any():
        uris["truth"] = mask_uri(maps.truth, colors)
    layers = tuple(
        Layer(title, uris[part], "entropy" if part == "entropy" else "classes")
        for part, title in titles
        if part in uris
    )
    small = max(height, width) <= _PIXELS
    return Plate(key, maps.name, data_uri(maps.image, SIDE), width, height, small, layers)


def mask_uri(labels: NDArray[np.uint8], colors: NDArray[np.uint8]) -> str:
    """(H, W) labels as PNG in the colors (C, 3) of the classes, transparent where void."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors[:256]
    return _indexed(labels, table, np.where(np.arange(256) == VOID, 0, 255))


def entropy_uri(entropy: NDArray[np.float32]) -> str:
    """(H, W) in 0..1 as PNG of one hue: transparent where sure, full where all classes are alike."""
    step = -(-max(entropy.shape) // SIDE)
    share = np.clip(np.nan_to_num(entropy[::step, ::step], nan=1.0), 0.0, 1.0)
    levels = (share * (_LEVELS - 1)).round().astype(np.uint8)
    hue = np.array([round(255 * part) for part in to_rgb(light("accent"))], np.uint8)
    return _indexed(levels, np.tile(hue, (_LEVELS, 1)), np.linspace(0, 255, _LEVELS).round())


def _indexed(places: NDArray[np.uint8], table: NDArray[np.uint8], opacity: NDArray[np.generic]) -> str:
    """A PNG of places (H, W) in a table of colors (n, 3) and their opacity (n,), 0..255."""
    picture = Image.fromarray(np.ascontiguousarray(places))
    picture.putpalette(table.tobytes())
    sheet = io.BytesIO()
    picture.save(sheet, format="PNG", optimize=True, transparency=opacity.astype(np.uint8).tobytes())
    return "data:image/png;base64," + base64.b64encode(sheet.getvalue()).decode("ascii")

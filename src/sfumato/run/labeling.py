"""A trained classifier at work: labels for new images, and its figures on other labelled ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.data import ImageStore, Table, load_table
from sfumato.data.decode import BrokenImage, attempt_each, digest
from sfumato.data.images import describe_broken
from sfumato.data.listing import find_images
from sfumato.errors import DataError
from sfumato.evaluate import predict
from sfumato.image_data import sections
from sfumato.run.trained import Trained, no_run_metrics
from sfumato.views import Augment

BATCH = 256


def logits_of(trained: Trained, images: ImageStore, rows: Sequence[int]) -> Tensor:
    """(N, C) float32 on the CPU."""
    card = trained.card
    augment = Augment(
        card["preset"], seed=0, image_size=card["image_size"], mean=tuple(card["mean"]), std=tuple(card["std"])
    )

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(rows), BATCH):
            yield augment.evaluation(images.load(rows[start : start + BATCH]).to(trained.device))

    return predict(trained.model, batches(), device=trained.device)


@dataclass(frozen=True)
class Predicted:
    """`text` is a CSV with the columns file, label, probability and top3, one line an image, ordered by name."""

    text: str
    count: int
    left_out: dict[str, str]  # name -> why it cannot be read


def predict_folder(trained: Trained, images: Path, *, top: int = 3, skip_broken: bool = False) -> Predicted:
    """The labels of new images. Probabilities are after temperature scaling.

    images: a folder, searched through, or one image. skip_broken: leave out images that cannot be read (decodes all of
    them once to find out) instead of raising DataError.
    """
    names, paths, left_out = images_in(images, skip_broken=skip_broken)
    size, channels = trained.card["image_size"], trained.card["channels"]
    store = ImageStore(paths, names, image_size=size, channels=channels, keep_limit=0)
    p = torch.softmax(logits_of(trained, store, range(len(paths))).double() / trained.temperature, dim=1)
    values, places = p.topk(min(top, p.shape[1]), dim=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label", "probability", f"top{top}"])
    for name, sure, found in zip(names, values.tolist(), places.tolist(), strict=True):
        labels = [trained.classes[place] for place in found]
        ranked = "; ".join(f"{label}:{share:.4f}" for label, share in zip(labels, sure, strict=True))
        writer.writerow([name, labels[0], f"{sure[0]:.4f}", ranked])
    return Predicted(text.getvalue(), len(paths), left_out)


def images_in(images: Path, *, skip_broken: bool) -> tuple[list[str], list[Path], dict[str, str]]:
    """Names below the folder and paths of its images, or of one image; and what was left out, with the reason."""
    if not images.exists():
        raise DataError(f"{images}: no such file or folder. Give a folder of images, or one image.")
    paths = find_images(images) if images.is_dir() else [images]
    if not paths:
        raise DataError(f"{images}: no image in it or below it.")
    root = images if images.is_dir() else images.parent
    left_out = _broken(paths, root) if skip_broken else {}
    paths = [path for path in paths if path.relative_to(root).as_posix() not in left_out]
    if not paths:
        raise DataError(describe_broken(left_out))
    return [path.relative_to(root).as_posix() for path in paths], paths, left_out


def _broken(paths: Sequence[Path], root: Path) -> dict[str, str]:
    looks = attempt_each(digest, paths)
    found = zip(paths, looks, strict=True)
    return {path.relative_to(root).as_posix(): str(look) for path, look in found if isinstance(look, BrokenImage)}


def evaluate_on(trained: Trained, source: str, labels: Path | None, *, bins: int = 15) -> dict[str, Any]:
    """Figures on other labelled images: the test split of `source` if it has one, otherwise all that have a label.

    The temperature stays that of the run. Raises DataError when classes are not those of the run.
    """
    card = trained.card
    table = load_table(source, labels=labels, image_size=card["image_size"], channels=card["channels"])
    rows = _labeled_rows(table)
    place = {name: number for number, name in enumerate(trained.classes)}
    strange = [name for name in table.classes if name not in place]
    if strange:
        raise DataError(
            f"{source}: class '{strange[0]}' is none of the run's classes: {', '.join(trained.classes)}. "
            "Rename the class or leave its images out."
        )
    y = torch.tensor([place[table.classes[table.labels[row]]] for row in rows])
    logits = logits_of(trained, table.images, rows)
    empty = torch.zeros(0, len(place)), torch.zeros(0, dtype=torch.int64)
    found = sections({"test": (logits, y), "val": empty}, trained.classes, bins, trained.temperature)
    return no_run_metrics(trained, found, len(rows))


def _labeled_rows(table: Table) -> list[int]:
    known = [row for row in range(len(table)) if table.labels[row] >= 0]
    test = [row for row in known if table.split[row] == "test"]
    if not known:
        raise DataError(f"{table.source}: no image has a label, so there is nothing to measure with.")
    return test or known

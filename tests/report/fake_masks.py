"""Run folders of images with masks that look like real ones, without training. Sizes, colors and errors are uneven.

`python tests/report/fake_masks.py FOLDER` writes one of each kind with its report.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.report import fake_run

CLASSES = ("ground", "disc", "square", "ring")
SIZE = (36, 60)
TEST = 12
RARE = "ring"
VOID = 255
BASELINE = "supervised_strong"


@dataclass(frozen=True)
class Scene:
    """What the images of one run show, by row: test images first, then unlabelled ones."""

    masks: NDArray[np.uint8]  # (n, H, W)
    images: NDArray[np.uint8]  # (n, channels, H, W)


def colors(classes: int) -> NDArray[np.uint8]:
    """Different in every channel, so that a swap of channels or classes is seen. -> (C, 3)"""
    c = np.arange(classes)
    return np.stack([40 + 97 * c % 200, 10 + 41 * c % 230, 250 - 53 * c % 240], axis=1).astype(np.uint8)


def scene(classes: int, n: int = TEST + 4, *, size: tuple[int, int] = SIZE, channels: int = 3) -> Scene:
    """Blocks on a ground of class 0, each class smaller than the one before; a void frame and a void seam."""
    rng = np.random.default_rng(5)
    height, width = size
    masks = np.zeros((n, height, width), np.uint8)
    for mask in masks:
        for c in range(1, classes):
            side = max(2, round(0.45 * height / c**0.7))
            top, left = rng.integers(1, height - side), rng.integers(1, width - side)
            mask[top : top + side, left : left + side] = c
    masks[:, :1] = masks[:, :, :1] = masks[:, :, 20] = VOID
    shades = rng.integers(40, 220, (n, channels, classes + 1))
    images = np.stack([shade[:, np.minimum(mask, classes)] for shade, mask in zip(shades, masks, strict=True)])
    return Scene(masks, (images + rng.integers(-15, 15, images.shape)).astype(np.uint8))


def predicted(masks: NDArray[np.uint8], classes: int, right: float, seed: int) -> NDArray[np.uint8]:
    """A class is taken for the one before it, never for the one after: confusions are one-sided."""
    rng = np.random.default_rng([seed, 11])
    truth = np.where(masks == VOID, 0, masks)
    share = right - 0.5 * truth / classes * (1 - right) * 3
    wrong = rng.random(masks.shape) > share
    return np.where(wrong, np.maximum(truth.astype(int) - 1, 0), truth).astype(np.uint8)


def confusion(masks: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> NDArray[np.int32]:
    """Of each image, (n, C, C), rows = label."""
    counts = np.zeros((len(masks), classes, classes), np.int32)
    for count, mask, label in zip(counts, masks, labels, strict=True):
        for c in range(classes):
            count[c] = np.bincount(label[mask == c], minlength=classes)
    return counts


def scores(counts: NDArray[np.int32], classes: Sequence[str], rare: Sequence[str], ece: float) -> dict[str, float]:
    total = counts.sum(axis=0)
    found: dict[str, float] = {"acc": float(np.trace(total) / total.sum()), "boundary_iou": 0.31, "nll": 0.6}
    for c, name in enumerate(classes):
        found[f"iou/{name}"] = float(total[c, c] / (total[c].sum() + total[:, c].sum() - total[c, c]))
        found[f"recall/{name}"] = float(total[c, c] / total[c].sum())
    found["miou"] = float(np.mean([found[f"iou/{name}"] for name in classes]))
    found["balanced_acc"] = float(np.mean([found[f"recall/{name}"] for name in classes]))
    return found | {"ece": ece} | ({"miou_rare": float(np.mean([found[f"iou/{n}"] for n in rare]))} if rare else {})


def sample(truth: NDArray[Any], labels: NDArray[Any], classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits (M, C) that say `labels`, and the truth (M,), of some pixels that are not void."""
    rng = np.random.default_rng(3)
    places = rng.permutation(np.flatnonzero(truth.ravel() != VOID))[:1500]
    y, guess = truth.ravel()[places].astype(np.int64), labels.ravel()[places]
    logits = rng.normal(0, 0.7, (len(places), classes))
    logits[np.arange(len(places)), guess] += np.where(guess == y, 5.0, 3.2) * rng.random(len(places)) + 1.5
    return logits.astype(np.float32), y


def gallery(drawn: Scene, labels: NDArray[np.uint8], classes: int) -> dict[str, NDArray[Any]]:
    """Two test images and two unlabelled ones, of which the last has no known mask."""
    held: dict[str, NDArray[Any]] = {"colors": colors(classes)}
    for kind, rows in (("test", [0, 1]), ("unlabeled", [TEST, TEST + 1])):
        held[f"{kind}-rows"] = np.array(rows)
        held[f"{kind}-names"] = np.array([f"{kind}/{row}.png" for row in rows])
        for place, row in enumerate(rows):
            unknown = kind == "unlabeled" and place == 1
            mask = np.full_like(drawn.masks[row], VOID) if unknown else drawn.masks[row]
            held[f"{kind}-image-{place}"], held[f"{kind}-truth-{place}"] = drawn.images[row], mask
            held[f"{kind}-labels-{place}"] = labels[row]
            steps = np.linspace(0, 1, mask.size, dtype=np.float32)
            held[f"{kind}-entropy-{place}"] = steps.reshape(mask.shape)
    return held


def write_run(
    folder: Path,
    method: str = "fixmatch",
    right: float = 0.8,
    *,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
    size: tuple[int, int] = SIZE,
    channels: int = 3,
    steps: int = 400,
) -> Path:
    """One run folder as training leaves it. right: about the share of pixels that is right."""
    (folder / "predictions").mkdir(parents=True)
    drawn, count, rare = scene(len(classes), size=size, channels=channels), len(classes), [RARE] * (RARE in classes)
    labels = predicted(drawn.masks, count, right, seed)
    counts = confusion(drawn.masks[:TEST], labels[:TEST], count)
    logits, y = sample(drawn.masks[:TEST], labels[:TEST], count)
    rows = np.arange(TEST)
    arrays = {"rows": rows, "names": np.array([f"test/{row}.png" for row in rows]), "counts": counts}
    np.savez(folder / "predictions" / "test.npz", **arrays, logits=logits, labels=y)  # type: ignore[arg-type]
    np.savez(folder / "predictions" / "gallery.npz", **gallery(drawn, labels, count))  # type: ignore[arg-type]
    miou = _write_metrics(folder, method, scores(counts, classes, rare, 0.09), seed, classes, steps)
    (folder / "card.json").write_text(json.dumps({"classes": list(classes), "rare": rare}))
    _write_lines(folder, method, miou, classes, steps)
    fake_run.write_surroundings(folder, fake_run.Fake(method, right), seed, classes, steps)
    return folder


def _write_metrics(
    folder: Path, method: str, test: dict[str, float], seed: int, classes: Sequence[str], steps: int
) -> float:
    metrics = {
        "method": method,
        "criterion": "miou",
        "seed": seed,
        "steps": steps,
        "seconds": 80.0 + seed,
        "temperature": 1.4,
        "test": test,
        "test_calibrated": test | {"ece": 0.04},
        "val": {"miou": test["miou"] - 0.01, "acc": test["acc"]},
        "best": {"step": steps, "test": {"miou": test["miou"]}},
        "classes": list(classes),
        "collapse": None,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return test["miou"]


def _write_lines(folder: Path, method: str, miou: float, classes: Sequence[str], steps: int) -> None:
    rng = np.random.default_rng(1)
    fake = fake_run.Fake(method, 0.8, coverage=None if method.startswith("supervised") else 0.7, precision=0.9)
    lines: list[dict[str, object]] = []
    for step in range(25, steps + 1, 25):
        share = step / steps
        losses = {"train/loss_sup": 1.8 * np.exp(-5 * share), "train/loss_unsup": 0.4 * share if fake.coverage else 0.0}
        lines.append({"step": step} | losses | fake_run.telemetry(fake, classes, share, rng))
        if step % 100 == 0:
            lines.append({"step": step, "val/miou": miou - 0.3 * np.exp(-4 * share), "val/acc": 0.8})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_pair(folder: Path, method: str = "fixmatch", **options: Any) -> Path:
    """A run with its baseline and a verdict."""
    write_run(folder, method, 0.86, **options)
    write_run(folder / "baseline", BASELINE, 0.74, **options)
    mine, theirs = (
        json.loads((run / "metrics.json").read_text())["test"]["miou"] for run in (folder, folder / "baseline")
    )
    fake_run.write_verdict(folder, "helps", mine - theirs, 0.03, method=method)
    held = json.loads((folder / "verdict.json").read_text())
    (folder / "verdict.json").write_text(json.dumps(held | {"metric": "miou", "n": TEST}))
    return folder


def main(folder: Path) -> None:
    from sfumato.report import write_report

    many = [f"class {place}" for place in range(24)]
    folders = [
        write_pair(folder / "pair"),
        write_pair(folder / "csl", "csl", size=(240, 320)),
        write_pair(folder / "many", classes=many, size=(120, 160)),
        write_run(folder / "alone", "supervised"),
    ]
    for seed in (0, 1, 2):
        write_pair(folder / "seeds" / f"seed-{seed}", seed=seed)
    for one in (*folders, folder / "seeds"):
        path = write_report(one)
        print(f"{path} {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

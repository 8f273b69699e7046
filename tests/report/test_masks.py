"""The page of a run with masks: what it shows, against the arrays of its folder."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sfumato.errors import DataError
from sfumato.report import write_report
from tests.report import fake_masks, fake_run
from tests.report.conftest import Page

THIN = "\u202f"
FIELDS = ("class", "share", "iou", "baseline", "recall", "precision")


def counts_of(folder: Path) -> NDArray[np.int64]:
    with np.load(folder / "predictions" / "test.npz") as held:
        total: NDArray[np.int64] = held["counts"].sum(axis=0, dtype=np.int64)
    return total


def metrics_of(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return held


def said(text: str) -> str:
    body = text.split("</style>")[1]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"</?(code|b|i)\b[^>]*>", "", body)))


def section(text: str, name: str) -> str:
    return text.split(f'<section id="{name}"')[1].split("</section>")[0]


def classes_told(text: str) -> list[dict[str, str]]:
    table = text.split('<table class="list classes regions')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<td.*?</td>", row) for row in table.split("</tr>")[:-1]]
    return [dict(zip(FIELDS, (said_of(cell) for cell in row), strict=True)) for row in rows]


def said_of(cell: str) -> str:
    return re.sub(r"<[^>]+>", "", cell).strip()


def percent(share: float) -> str:
    return f"{100 * share:.1f}{THIN}%"


def pixels(uri: str) -> NDArray[np.uint8]:
    """(H, W, 4)"""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    return np.asarray(picture.convert("RGBA"))


def plates(text: str) -> list[dict[str, NDArray[np.uint8]]]:
    """Title of each panel -> its picture, for each image shown; that of the image itself is "image"."""
    found = []
    for plate in text.split('<figure class="plate')[1:]:
        panels = re.findall(r'href="(data:[^"]*)".*?<span[^>]*>(.*?)</span>', plate.split("</figure>")[0], re.DOTALL)
        found.append({title if place else "image": pixels(uri) for place, (uri, title) in enumerate(panels)})
    return found


def test_matrix_tells_percents_of_the_rows_of_all_pixels(masks: Page) -> None:
    counts = counts_of(masks.folder)
    table = masks.text.split('<table class="matrix')[1].split("</table>")[0]
    cells = [re.findall(r"<td class=.*?>(.*?)</td>", row) for row in table.split("<tbody>")[1].split("</tr>")[:-1]]
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert not np.allclose(shares, shares.T, atol=0.02)  # else a transposed matrix would pass
    for row, expected in zip(cells, shares, strict=True):
        assert row == ["" if not s else "<1" if s < 0.005 else f"{100 * s:.0f}" for s in expected]
    assert "Percent of the pixels of each class" in table


def test_table_of_classes(masks: Page) -> None:
    counts, test = counts_of(masks.folder), metrics_of(masks.folder)["test"]
    other = metrics_of(masks.folder / "baseline")["test"]
    told = {row["class"].removesuffix(" rare"): row for row in classes_told(masks.text)}
    assert set(told) == set(fake_masks.CLASSES)
    for c, name in enumerate(fake_masks.CLASSES):
        assert told[name]["iou"] == percent(test[f"iou/{name}"])
        assert told[name]["baseline"] == percent(other[f"iou/{name}"])
        assert told[name]["recall"] == percent(counts[c, c] / counts[c].sum())
        assert told[name]["precision"] == percent(counts[c, c] / counts[:, c].sum())
        assert told[name]["share"] == percent(counts[c].sum() / counts.sum())
    order = [test[f"iou/{row['class'].removesuffix(' rare')}"] for row in classes_told(masks.text)]
    assert order == sorted(order)
    assert [row["class"] for row in classes_told(masks.text) if row["class"].endswith("rare")] == ["ring rare"]


def test_bars_of_every_class_from_common_to_rare(masks: Page) -> None:
    counts, test = counts_of(masks.folder), metrics_of(masks.folder)["test"]
    drawn = section(masks.text, "confusions").split("</svg>")[0]
    label = re.search(r'aria-label="Intersection over union by class: ([^"]*)"', drawn)
    assert label
    order = [fake_masks.CLASSES[c] for c in np.argsort(-counts.sum(axis=1))]
    assert label[1] == "; ".join(f"{name} {percent(test[f'iou/{name}'])}" for name in order)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert [text for text in texts if text.split()[0] in fake_masks.CLASSES] == [*order[:-1], "ring (rare)"]
    assert [text for text in texts if re.fullmatch(r"\d+\.\d", text)] == [
        f"{100 * test[f'iou/{n}']:.1f}" for n in order
    ]
    assert "Grey: supervised_strong." in section(masks.text, "confusions")


def test_masks_and_predictions_wear_the_colors_of_their_classes(masks: Page) -> None:
    shown = plates(masks.text)
    assert [list(plate) for plate in shown] == [
        ["image", "mask", "prediction", "uncertainty"],
        ["image", "mask", "prediction", "uncertainty"],
        ["image", "the network&#39;s label", "uncertainty", "hidden mask"],
        ["image", "the network&#39;s label", "uncertainty"],  # no mask is known
    ]
    with np.load(masks.folder / "predictions" / "gallery.npz") as held:
        for place, plate in enumerate(shown):
            kind, n = ("test", place) if place < 2 else ("unlabeled", place - 2)
            np.testing.assert_array_equal(plate["image"][..., :3], held[f"{kind}-image-{n}"].transpose(1, 2, 0))
            for part, titles in (
                ("truth", ("mask", "hidden mask")),
                ("labels", ("prediction", "the network&#39;s label")),
            ):
                picture = next((plate[title] for title in titles if title in plate), None)
                if picture is None:
                    continue
                known = held[f"{kind}-{part}-{n}"] != fake_masks.VOID
                np.testing.assert_array_equal(picture[..., 3], np.where(known, 255, 0))
                expected = held["colors"][np.where(known, held[f"{kind}-{part}-{n}"], 0)]
                np.testing.assert_array_equal(picture[known, :3], expected[known])
                assert known.all() == (part == "labels")


def test_uncertainty_deepens_with_entropy(masks: Page) -> None:
    opacity = plates(masks.text)[0]["uncertainty"][..., 3].ravel().astype(int)  # entropy grows from 0 to 1 along it
    assert (np.diff(opacity) >= 0).all()
    assert (opacity[0], opacity[-1]) == (0, 255)
    assert abs(opacity[len(opacity) // 2] - 127) < 10


def test_legend_names_the_colors(masks: Page) -> None:
    gallery = section(masks.text, "gallery")
    legend = re.findall(r'<i class="swatch" style="--chip: (#[0-9a-f]{6})"></i>(\w+)', gallery)
    named = {
        name: "#" + bytes(color).hex() for name, color in zip(fake_masks.CLASSES, fake_masks.colors(4), strict=True)
    }
    assert {name: color for color, name in legend} == named
    assert "void, not judged" in gallery


def test_words_speak_of_pixels_and_masks(masks: Page) -> None:
    text = said(masks.text)
    metrics = metrics_of(masks.folder)["test"]
    for told in (
        "Percentage points of mIoU gained over labels only",
        "12 test images",
        "Share of the unlabelled pixels that count in the loss.",
        "Measured on the pixels of hidden masks",
        "Pale columns hold few pixels.",
        "Masks used",
        "those with less than a tenth of an even share of the labelled pixels",
        "Mean over the classes of intersection over union, on validation images.",
    ):
        assert told in text
    for absent in ("Balanced", "would be even", "Most confident mistakes", "Names only", "accuracy gained"):
        assert absent not in text
    row = masks.text.split('<table class="runs">')[1].split("<tr")[2]
    for column, key in (("mIoU", "miou"), ("mIoU, rare", "miou_rare"), ("ECE", "ece")):
        assert f'<td data-column="{column}">{percent(metrics[key])}</td>' in row
    for label, key in (("mIoU along contours", "boundary_iou"), ("Pixels that are right", "acc")):
        assert f"<dt>{label}</dt><dd>{percent(metrics[key])}</dd>" in masks.text
    assert ">images</text>" not in section(masks.text, "calibration")
    assert ">pixels</text>" in section(masks.text, "calibration")


def test_page_of_images_of_one_class_speaks_of_no_pixels(pair: Page, demo: Page) -> None:
    for page in (pair, demo):
        text = said(page.text)
        assert not re.search(r"pixel|mask|IoU|void|dispersion", text)
        assert 'class="plate' not in page.text
        for told in ("Balanced counts every class alike.", "Most confident mistakes", "Labels used", "would be even"):
            assert told in text
        assert ">images</text>" in section(page.text, "calibration")
        assert "Share of the unlabelled images that count in the loss." in text
    assert ">test accuracy</text>" in demo.text
    with np.load(pair.folder / "predictions" / "test.npz") as held:
        zeros = int(((held["logits"].argmax(axis=1) == 0) & (held["labels"] == 0)).sum())
    assert re.search(rf'<td class="right[^>]*>{zeros}</td>', pair.text)  # counts, no percents


def test_calibration_error_is_the_runs_and_the_bins_are_of_the_sample(masks: Page) -> None:
    calibration = section(masks.text, "calibration")
    assert f"As trained: ECE 9.0{THIN}%" in calibration
    assert f"After temperature: ECE 4.0{THIN}%" in calibration
    bins = [int(n) for n in re.findall(r">(\d+)</text>", calibration.split("</svg>")[0])]
    assert sum(bins) == 1500


def test_plane_of_csl_only(masks: Page, tmp_path: Path) -> None:
    part = section(masks.text, "pseudo-labels")
    with np.load(masks.folder / "predictions" / "test.npz") as held:
        right = int((held["logits"].argmax(axis=1) == held["labels"]).sum())
    assert f"Right: {right:,} pixels".replace(",", THIN) in part
    assert f"Wrong: {1500 - right:,} pixels".replace(",", THIN) in part
    assert part.count(">residual dispersion</text>") == part.count(">confidence</text>") == 2
    for name, classes in (("farcluss", fake_masks.CLASSES), ("csl_robust", ("skin", "lesion"))):
        text = write_report(fake_masks.write_run(tmp_path / name, name, classes=classes)).read_text()
        assert "dispersion" not in said(text)  # two classes: one loser is never uneven


def test_plane_of_images(tmp_path: Path) -> None:
    fake = fake_run.Fake("csl", 0.9, coverage=0.8)
    text = write_report(fake_run.write_run(tmp_path / "run", fake, n=200)).read_text()
    assert "The test images, when training has ended." in text
    assert re.search(r"Right: \d+ images", text)


def test_seeds(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    runs = [fake_masks.write_pair(folder / f"seed-{seed}", seed=seed) for seed in (0, 1)]
    text = write_report(folder).read_text()
    assert ">test mIoU</text>" in text
    scores = [metrics_of(run)["test"]["iou/disc"] for run in runs]
    assert scores[0] != scores[1]
    told = {row["class"]: row for row in classes_told(text)}
    assert told["disc"]["iou"] == percent(float(np.mean(scores)))
    both = counts_of(runs[0]) + counts_of(runs[1])
    assert told["disc"]["precision"] == percent(both[1, 1] / both[:, 1].sum())
    assert "all seeds together" in text


def test_method_is_chosen_by_its_criterion(tmp_path: Path) -> None:
    """Without a verdict the report is about the method best on validation: by mIoU, not by pixels."""
    for method, miou, acc in (("farcluss", 0.6, 0.8), ("fixmatch", 0.5, 0.95)):
        folder = fake_masks.write_run(tmp_path / method, method)
        held = metrics_of(folder)
        (folder / "metrics.json").write_text(json.dumps(held | {"val": {"miou": miou, "acc": acc}}))
    assert "· farcluss" in said(write_report(tmp_path).read_text())


def test_many_classes(tmp_path: Path) -> None:
    names = [f"class {place}" for place in range(24)]
    folder = fake_masks.write_pair(tmp_path / "run", classes=names, size=(120, 160))
    text = write_report(folder).read_text()
    assert "The most confused pairs of 24 classes." in text
    counts = counts_of(folder)
    np.fill_diagonal(counts, 0)
    true, taken = np.unravel_index(counts.argmax(), counts.shape)
    pair = f"<tr><td>class {true}</td><td>class {taken}</td>"
    assert f'{pair}<td class="n">{counts.max():,}</td>'.replace(",", THIN) in text
    assert len(classes_told(text)) == 20
    assert "4 more are not shown" in text


def test_photos_stay_small(tmp_path: Path) -> None:
    """The worst case for PNG: eight large images of noise."""
    folder, rng = fake_masks.write_run(tmp_path / "run"), np.random.default_rng(0)
    held: dict[str, Any] = {"colors": fake_masks.colors(4)}
    for kind in ("test", "unlabeled"):
        held[f"{kind}-rows"] = np.arange(4)
        for n in range(4):
            held[f"{kind}-image-{n}"] = rng.integers(0, 256, (3, 320, 320), dtype=np.uint8)
            held[f"{kind}-truth-{n}"] = rng.integers(0, 4, (320, 320), dtype=np.uint8)
            held[f"{kind}-labels-{n}"] = rng.integers(0, 4, (320, 320), dtype=np.uint8)
            held[f"{kind}-entropy-{n}"] = rng.random((320, 320), dtype=np.float32)
    np.savez(folder / "predictions" / "gallery.npz", **held)
    path = write_report(folder)
    assert path.stat().st_size < 3_000_000, path.stat().st_size
    shown = plates(path.read_text())
    assert shown[0]["image"].shape[:2] == (208, 208)
    assert shown[0]["mask"].shape[:2] == (320, 320)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(tmp_path: Path, channels: int) -> None:
    folder = fake_masks.write_run(tmp_path / "run", channels=channels)
    image = plates(write_report(folder).read_text())[0]["image"]
    with np.load(folder / "predictions" / "gallery.npz") as held:
        expected = held["test-image-0"][[0, 0, 0] if channels == 1 else [0, 1, 2]]
    np.testing.assert_array_equal(image[..., :3], expected.transpose(1, 2, 0))


def rewrite(name: str, **changed: Any) -> Callable[[Path], None]:
    """A file of predictions with arrays replaced, or left out where None."""

    def spoil(folder: Path) -> None:
        path = folder / "predictions" / name
        with np.load(path) as held:
            arrays = {key: held[key] for key in held.files} | changed
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})

    return spoil


def test_without_a_gallery(tmp_path: Path) -> None:
    folder = fake_masks.write_run(tmp_path / "run")
    (folder / "predictions" / "gallery.npz").unlink()
    text = said(write_report(folder).read_text())
    assert "No pictures: the run folder holds no predictions/gallery.npz, which sfumato eval writes." in text


def test_without_test_images(tmp_path: Path) -> None:
    """The pictures are then of validation images, and there is nothing to count."""
    folder = fake_masks.write_run(tmp_path / "run")
    none = {"rows": np.zeros(0, int), "names": np.zeros(0, str), "counts": np.zeros((0, 4, 4), np.int32)}
    rewrite("test.npz", **none, logits=np.zeros((0, 4), np.float32), labels=np.zeros(0, int))(folder)
    text = write_report(folder).read_text()
    assert "<h3>Validation images</h3>" in text
    assert "No confusion matrix" in text


def test_class_that_is_nowhere(tmp_path: Path) -> None:
    """Neither labelled nor predicted: no IoU, and last of all."""
    folder = fake_masks.write_pair(tmp_path / "run")
    with np.load(folder / "predictions" / "test.npz") as arrays:
        counts = arrays["counts"].copy()
    counts[:, 3], counts[:, :, 3] = 0, 0
    rewrite("test.npz", counts=counts)(folder)
    held = metrics_of(folder)
    (folder / "metrics.json").write_text(json.dumps(held | {"test": held["test"] | {"iou/ring": None}}))
    told = classes_told(write_report(folder).read_text())
    assert told[-1]["class"] == "ring rare"
    assert [told[-1][field] for field in ("iou", "recall", "precision")] == ["–"] * 3


BROKEN = {
    "no counts": (
        rewrite("test.npz", counts=None),
        r"test\.npz: holds no array 'counts'\. Expected rows, names, counts",
    ),
    "counts of other classes": (
        rewrite("test.npz", counts=np.zeros((12, 3, 3), int)),
        r"counts \(12, 3, 3\), expected \(12, 4, 4\)\. `sfumato eval` writes it anew",
    ),
    "no colors": (rewrite("gallery.npz", colors=None), r"gallery\.npz: expected an array 'colors' \(classes, 3\)"),
    "no map": (rewrite("gallery.npz", **{"test-labels-1": None}), r"gallery\.npz: holds no array 'test-labels-1'"),
    "sizes": (
        rewrite("gallery.npz", **{"test-entropy-0": np.zeros((2, 3), np.float32)}),
        r"'test-image-0' and its maps are of shapes \(3, 36, 60\), \(36, 60\), \(36, 60\), \(2, 3\); expected one size",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named(tmp_path: Path, case: str) -> None:
    folder = fake_masks.write_run(tmp_path / "run")
    spoil, message = BROKEN[case]
    spoil(folder)
    with pytest.raises(DataError, match=message):
        write_report(folder)

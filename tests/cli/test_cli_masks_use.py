"""What follows from a run on masks: `sfumato eval` and `predict` on new images of any kind and size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.inference import window_starts
from sfumato.models import Segmenter
from sfumato.run import for_pairs, segmenting
from tests.cli.conftest import Call
from tests.run.masks_on_disk import save, scene, values


def metrics_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text()))


# Measuring again


def test_eval_gives_the_numbers_again(mask_run: Path, call: Call) -> None:
    kept = metrics_of(mask_run)
    found = json.loads(call("eval", mask_run, "--json").stdout)
    assert found["test"] == pytest.approx(kept["test"], abs=1e-6)
    best = json.loads(call("eval", mask_run, "--json", "--select", "best").stdout)
    assert best["test"] == pytest.approx(kept["best"]["test"], abs=1e-6)
    text = call("eval", mask_run).stdout
    assert "mIoU %" in text
    assert "IoU %   recall %" in text


def test_eval_on_other_images(mask_run: Path, tmp_path: Path, call: Call) -> None:
    other = tmp_path / "other"
    for number in range(50, 53):
        image, mask = scene(number, (40, 48))
        save(other / "images" / f"{number}.png", image)
        save(other / "drawn" / f"{number}.png", mask.point(lambda value: 255 * value))  # black and white
    found = json.loads(call("eval", mask_run, other / "images", "--masks", other / "drawn", "--json").stdout)
    assert found["images"]["test"] == 3
    assert found["test"]["miou"] > 0.8


def changed(run: Path, folder: Path, **of_card: object) -> Path:
    """A copy of a run with another card."""
    shutil.copytree(run, folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | of_card))
    return folder


def test_eval_reads_other_masks_as_the_run_read_its_own(mask_run: Path, tmp_path: Path, call: Call) -> None:
    """Its void, and the colors of its class table."""
    other, folder = tmp_path / "other", changed(mask_run, tmp_path / "run")
    for number in range(50, 53):
        image, mask = scene(number)
        save(other / "images" / f"{number}.png", image)
        save(other / "masks" / f"{number}.png", mask.point(lambda value: value + 1))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("void: 255", "void: 0"))
    assert json.loads(call("eval", folder, other, "--json").stdout)["test"]["miou"] > 0.8
    table = tmp_path / "classes.csv"
    table.write_text("class 0,0,0,0\nclass 1,10,200,30\n")
    for path in (other / "masks").iterdir():
        square = np.asarray(Image.open(path)) == 2
        Image.fromarray(square[..., None] * np.array([10, 200, 30], dtype=np.uint8)).save(path)
    (folder / "config.yaml").write_text(config.replace("  classes: null", f"  classes: {table}"))
    assert json.loads(call("eval", folder, other, "--json").stdout)["test"]["miou"] > 0.8


def test_confidence_is_after_the_temperature(mask_run: Path, mask_source: Path, tmp_path: Path, call: Call) -> None:
    found = {}
    for temperature in (1.0, 4.0):
        run = changed(mask_run, tmp_path / f"run {temperature}", temperature=temperature)
        out = tmp_path / f"out {temperature}"
        assert call("predict", run, mask_source / "images" / "000.png", "-o", out, "--maps").exit_code == 0
        found[temperature] = np.asarray(Image.open(out / "confidence" / "000.png")).astype(float).clip(1, 254) / 255
    odds = {temperature: np.log(p / (1 - p)) for temperature, p in found.items()}
    sure = found[1.0] < 0.95  # beyond, eight bits are too few
    assert np.abs(odds[4.0] - odds[1.0] / 4)[sure].max() < 0.05


def test_predicted_masks_are_masks_to_measure_with(
    mask_run: Path, mask_source: Path, tmp_path: Path, call: Call
) -> None:
    out = tmp_path / "masks"
    assert call("predict", mask_run, mask_source / "images", "-o", out).exit_code == 0
    found = json.loads(call("eval", mask_run, mask_source / "images", "--masks", out, "--json").stdout)
    assert (found["test"]["miou"], found["images"]["test"]) == (1, 22)


# Predicting


def test_predict_writes_masks_overlays_and_maps(mask_run: Path, tmp_path: Path, call: Call) -> None:
    """On images of any kind and size, in folders: what is found is where it was drawn."""
    new, out = tmp_path / "new", tmp_path / "out"
    truth = {}
    for number, size in ((90, (32, 32)), (91, (45, 37))):
        image, truth[number] = scene(number, size)
        save(new / "deeper" / f"{number}.png", image)
    save(new / "a photo.jpg", scene(92)[0])
    done = call("predict", mask_run, new, "-o", out, "--overlay", "--maps")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"3 images -> {out}\n"
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    names = ["a photo.png", "deeper/90.png", "deeper/91.png"]
    folders = ("", "confidence/", "entropy/", "overlay/")
    assert written == sorted(["classes.csv", *(folder + name for folder in folders for name in names)])
    assert (out / "classes.csv").read_text() == "name,r,g,b\nclass 0,0,0,0\nclass 1,128,0,0\n"
    for number, drawn in truth.items():
        with Image.open(out / "deeper" / f"{number}.png") as mask:
            assert (mask.mode, mask.size) == ("P", drawn.size)
            assert mask.getpalette()[3:6] == [128, 0, 0]  # type: ignore[index]
            assert (np.asarray(mask) == np.asarray(drawn)).mean() > 0.95
    shares = {
        kind: np.asarray(Image.open(out / kind / "deeper" / "90.png")).astype(float) / 255
        for kind in ("confidence", "entropy")
    }
    assert shares["confidence"].min() >= 0.5  # of two classes
    assert np.corrcoef(shares["confidence"].ravel(), shares["entropy"].ravel())[0, 1] < -0.9
    image, overlay = (
        np.asarray(Image.open(path)).astype(int) for path in (new / "deeper/90.png", out / "overlay/deeper/90.png")
    )
    square = np.asarray(Image.open(out / "deeper" / "90.png")) == 1
    assert np.abs(overlay[square] - (image[square] + [128, 0, 0]) / 2).max() <= 1


def test_one_image_and_the_best_network(mask_run: Path, mask_source: Path, tmp_path: Path, call: Call) -> None:
    image, out = mask_source / "images" / "003.png", tmp_path / "out"
    done = call("predict", mask_run, image, "-o", out, "--select", "best")
    assert done.stdout == f"1 image -> {out}\n"
    assert values(out / "003.png") == {0, 1}


def test_a_large_image_goes_in_windows(
    mask_run: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No larger piece than a few windows reaches the network, and where they meet nothing shows."""
    image, drawn = scene(95, (230, 150))
    save(tmp_path / "new" / "large.png", image)
    assert call("predict", mask_run, tmp_path / "new", "-o", tmp_path / "whole", "--maps").exit_code == 0
    monkeypatch.setattr(segmenting, "WHOLE", 64 * 64)
    monkeypatch.setattr(segmenting, "LEAST_WINDOW", 64)
    seen: list[tuple[int, ...]] = []
    forward = segmenting._Calibrated.forward

    def watched(self: Any, x: Any) -> Any:
        seen.append((str(x.dtype), *x.shape[-2:]))
        return forward(self, x)

    monkeypatch.setattr(segmenting._Calibrated, "forward", watched)
    assert call("predict", mask_run, tmp_path / "new", "-o", tmp_path / "parts", "--maps").exit_code == 0
    assert set(seen) == {("torch.uint8", 64, 64)}
    assert len(seen) >= len(window_starts(150, 64, 42))
    whole, parts = (np.asarray(Image.open(tmp_path / name / "large.png")) for name in ("whole", "parts"))
    assert parts.shape == (150, 230)
    assert (whole == parts).mean() > 0.98
    assert (parts == np.asarray(drawn)).mean() > 0.9


@pytest.mark.parametrize("limit", [for_pairs.WHOLE, 32 * 32])
def test_images_are_seen_at_the_size_of_training(
    limit: int, mask_run: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images four times as large, read at the size of training, are like those of training."""
    folder = changed(mask_run, tmp_path / "run", resize=32)
    drawn = {}
    for number in (90, 91):
        image, mask = scene(number)
        drawn[number] = mask.resize((128, 128), Image.Resampling.NEAREST)
        save(tmp_path / "new" / f"{number}.png", image.resize((128, 128), Image.Resampling.NEAREST))
    monkeypatch.setattr(segmenting, "WHOLE", limit)
    seen: set[tuple[int, ...]] = set()
    forward = Segmenter.forward

    def watched(self: Segmenter, x: Any) -> Any:
        seen.add(tuple(x.shape[-2:]))
        return forward(self, x)

    monkeypatch.setattr(Segmenter, "forward", watched)
    assert call("predict", folder, tmp_path / "new", "-o", tmp_path / "out", "--maps").exit_code == 0
    assert seen == {(32, 32)}
    for number, mask in drawn.items():
        with Image.open(tmp_path / "out" / f"{number}.png") as found:
            assert found.size == (128, 128)
            assert (np.asarray(found) == np.asarray(mask)).mean() > 0.93

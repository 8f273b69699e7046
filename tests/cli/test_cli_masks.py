"""`sfumato train` on images with masks, in every form, to a verdict."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import LABELS_ONLY, MASK_SETTINGS, SHORT, Call
from tests.run.masks_on_disk import SIZE, with_masks


def metrics_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text()))


# Training


def test_images_and_masks_to_a_verdict(mask_run: Path, mask_source: Path) -> None:
    metrics = metrics_of(mask_run)
    assert metrics["criterion"] == "miou"
    assert metrics["test"]["miou"] > 0.8
    assert metrics["images"] == {"labeled": 8, "unlabeled": 16, "val": 3, "test": 3}
    verdict = json.loads((mask_run / "verdict.json").read_text())
    assert (verdict["metric"], verdict["split"]) == ("miou", "test")
    assert "on the same 3 held-out images" in verdict["sentence"]
    card = json.loads((mask_run / "card.json").read_text())
    assert (card["task"], card["crop"], card["resize"], card["inference"]) == ("segmentation", [32, 32], None, "full")
    assert card["model"]["name"] == "small_seg"


def test_a_dry_run_prints_settings_that_run(mask_source: Path, tmp_path: Path, call: Call) -> None:
    done = call("train", mask_source / "images", "--masks", mask_source / "masks", "labels=4", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("# 22 images of 2 classes: 4 labeled, 16 unlabeled, 3 val, 3 test\n")
    for line in ("recipe: quick_seg", "  task: segmentation", "  name: small_seg", "  inference: full"):
        assert f"\n{line}\n" in done.stdout
    path = tmp_path / "settings.yaml"
    path.write_text(done.stdout)
    assert call("train", path, "--dry-run").stdout == done.stdout


def test_seeds_and_one_folder_each(mask_source: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "run"
    done = call("train", mask_source, *SHORT, "-q", "method=freematch", "labels=4", "--seeds", "0:2", "-o", folder)
    assert done.exit_code in (0, 4), done.stderr  # so few steps may well collapse
    assert " ± " in done.stdout
    first, second = (json.loads((folder / f"seed-{seed}" / "splits.json").read_text()) for seed in (0, 1))
    assert first["test"] == second["test"]
    assert first["labeled"] != second["labeled"]
    assert json.loads((folder / "verdict.json").read_text())["seeds"] == 2


CASES = {
    "sizes": {"sizes": ((32, 32), (48, 32), (40, 56))},
    "grey": {"grey": True},
}


@pytest.mark.parametrize("case", CASES)
def test_images_of_several_sizes_and_grey_ones(case: str, tmp_path: Path, call: Call) -> None:
    source = with_masks(tmp_path / "data", labeled=10, unlabeled=2, **CASES[case])  # type: ignore[arg-type]
    run = tmp_path / "run"
    done = call("train", source, *LABELS_ONLY, "-o", run)
    assert done.exit_code == 0, done.stderr
    assert json.loads((run / "card.json").read_text())["channels"] == (1 if case == "grey" else 3)
    assert call("predict", run, source / "images", "-o", tmp_path / "masks").exit_code == 0
    for image in sorted((source / "images").iterdir()):
        with Image.open(image) as picture, Image.open(tmp_path / "masks" / image.name) as mask:
            assert mask.size == picture.size


def wide(root: Path) -> Path:
    """Masks of 16 bits."""
    for path in (with_masks(root, labeled=10, unlabeled=2) / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16)).save(path)
    return root


def table(root: Path) -> Path:
    """A CSV beside the folder's own names, with a blank mask and splits; no newline at the end."""
    with_masks(root, labeled=10, unlabeled=2)
    rows = ["image,mask,split"]
    for number in range(12):
        split = {0: "val", 1: "val", 2: "test", 3: "test"}.get(number, "")
        rows.append(f"images/{number:03d}.png,{f'masks/{number:03d}.png' if number < 10 else ''},{split}")
    (root / "pairs.csv").write_text("\n".join(rows))
    return root / "pairs.csv"


def voc(root: Path) -> Path:
    with_masks(root / "made", labeled=10, unlabeled=2)
    (root / "made" / "images").rename(root / "JPEGImages")
    (root / "made" / "masks").rename(root / "SegmentationClass")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(f"{number:03d}" for number in range(7)))
    (lists / "val.txt").write_text("007\n008\n009\n")
    (root / "classes.txt").write_text("ground\nsquare\n")
    return root


@pytest.mark.parametrize(
    "make, counts",
    [
        (wide, {"labeled": 6, "unlabeled": 8, "val": 2, "test": 2}),
        (table, {"labeled": 6, "unlabeled": 8, "val": 2, "test": 2}),
        (voc, {"labeled": 6, "unlabeled": 8, "val": 3, "test": 1}),
    ],
)
def test_other_forms_of_pairs(make: Any, counts: dict[str, int], tmp_path: Path, call: Call) -> None:
    source = make(tmp_path / "data")
    assert call("data", "check", source).exit_code == 0
    done = call("train", source, *LABELS_ONLY, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    assert metrics_of(tmp_path / "run")["images"] == counts


def test_without_a_test_or_a_validation_split(mask_source: Path, tmp_path: Path, call: Call) -> None:
    short = [*SHORT, "-q", "method=uncertainty_weighted"]
    done = call("train", mask_source, *short, "test=0", "-o", tmp_path / "val")
    assert done.exit_code in (0, 4)
    assert json.loads((tmp_path / "val" / "verdict.json").read_text())["split"] == "val"
    assert "These were the validation images: there is no test split." in done.stdout
    done = call("train", mask_source, *short, "val=0", "-o", tmp_path / "test")
    assert done.exit_code in (0, 4)
    assert metrics_of(tmp_path / "test")["temperature"] == 1
    done = call("train", mask_source, *short, "val=0", "test=0", "-o", tmp_path / "none")
    assert done.exit_code in (0, 4)
    assert "no held-out image has a mask" in json.loads((tmp_path / "none" / "verdict.json").read_text())["sentence"]
    assert call("eval", tmp_path / "none").exit_code == 0
    assert call("predict", tmp_path / "none", mask_source / "images", "-o", tmp_path / "masks").exit_code == 0


def test_no_unlabeled_images(tmp_path: Path, call: Call) -> None:
    source = with_masks(tmp_path / "data", labeled=8, unlabeled=0)
    done = call("train", source, *SHORT, "method=fixmatch", "-o", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    assert "training supervised_strong on the labels alone instead of fixmatch" in done.stdout
    assert done.stdout.splitlines()[-1] == "Cannot tell whether unlabelled images help: there are none."


@pytest.mark.parametrize(
    "model",
    [
        ("model=fpn", "encoder=test_resnet", "resize=64"),
        ("model=deeplabv3plus", "encoder=test_efficientnet", "resize=64"),
        ("model=small_seg", "model.options.norm=group", "inference=sliding", "crop=16"),
    ],
)
def test_models_and_inference(model: tuple[str, ...], mask_source: Path, tmp_path: Path, call: Call) -> None:
    """Whichever it is, the network read back gives the figures of its end, and masks at the size of each image."""
    run = tmp_path / "run"
    done = call("train", mask_source, *LABELS_ONLY, *model, "-o", run)
    assert done.exit_code == 0, done.stderr
    found = json.loads(call("eval", run, "--json").stdout)
    assert found["test"] == pytest.approx(metrics_of(run)["test"], abs=1e-6, nan_ok=True)
    assert call("predict", run, mask_source / "images" / "000.png", "-o", tmp_path / "masks").exit_code == 0
    with Image.open(tmp_path / "masks" / "000.png") as mask:
        assert mask.size == SIZE


def test_camvid(shared: Path, tmp_path: Path, call: Call) -> None:
    """At 60 x 45, with few of its images in the lists, so that it takes seconds."""
    camvid = shared / "data" / "camvid"
    source = tmp_path / "camvid"
    for part, count in (("train", 24), ("val", 3), ("test", 3)):
        stems = (camvid / f"{part}.txt").read_text().split()
        chosen = stems[:: len(stems) // count][:count]
        for stem in chosen:
            for kind, suffix in (("images", "jpg"), ("masks", "png")):
                (source / kind).mkdir(parents=True, exist_ok=True)
                (source / kind / f"{stem}.{suffix}").symlink_to(camvid / kind / f"{stem}.{suffix}")
        (source / f"{part}.txt").write_text("\n".join(chosen))
    checked = call("data", "check", source)
    assert "pedestrian" in checked.stdout
    done = call("train", source, *LABELS_ONLY, "labels=8", "resize=60", "views=small", "-o", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    assert metrics_of(tmp_path / "run")["images"] == {"labeled": 8, "unlabeled": 24, "val": 3, "test": 3}
    first = sorted((source / "images").iterdir())[0]
    assert call("predict", tmp_path / "run", first, "-o", tmp_path / "masks", "--overlay").exit_code == 0
    with Image.open(tmp_path / "masks" / f"{first.stem}.png") as mask:
        assert mask.size == (480, 360)


# Stopping and going on


SLOW = """
import time
from sfumato import train
from sfumato.cli import app
rate = train.rate
train.rate = lambda *given: (time.sleep(0.1), rate(*given))[1]
app()
"""


def test_interrupted_and_continued_it_is_the_same(mask_run: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "stopped"
    shutil.copytree(mask_run, folder)
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    slow = [sys.executable, "-c", SLOW, "train", "--resume", folder, "save_every=3", "--no-report"]
    process = subprocess.Popen(
        slow, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    until = time.monotonic() + 120
    while not any((folder / "checkpoints").glob("step-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1].endswith(f"of 24; saved. Continue with: sfumato train --resume {folder}")
    assert call("train", "--resume", folder, "-q", "--no-report").exit_code == 0
    assert (folder / "weights.safetensors").read_bytes() == (mask_run / "weights.safetensors").read_bytes()


@pytest.mark.slow
def test_two_ranks_write_one_run(mask_source: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sfumato"]
    words = ["train", mask_source, *MASK_SETTINGS, "-q", "--no-report", "-o", tmp_path / "run"]
    done = subprocess.run(
        [*launcher, *words], capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out images") == 1
    assert metrics_of(tmp_path / "run")["test"]["miou"] > 0.8

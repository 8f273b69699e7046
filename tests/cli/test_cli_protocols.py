"""`sfumato train` and `data check` by a protocol, and of masks whose numbers are translated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.config import load
from tests.cli.conftest import Call, Refused
from tests.data.pairs.protocols_on_disk import fake, make_tiny
from tests.run.masks_on_disk import save, scene, with_masks

# the net of a protocol is large, and its encoder too coarse for the images here
TINY_NET = ("model=small_seg", "encoder=none", "model.options={}", "pretrained=false", "crop=16")
FAST = ("batch_size=2", "eval_every=2", "-q")


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_tiny(monkeypatch)
    fake(tmp_path / "VOC2012", "voc")
    return tmp_path / "VOC2012"


def test_a_protocol_from_its_lists_to_the_report(voc: Path, tmp_path: Path, call: Call) -> None:
    lists, folder = voc / "splits" / "3", tmp_path / "run"
    arguments = ("protocol=voc", f"lists={lists}", "epochs=2", *TINY_NET, *FAST)
    done = call("train", voc, *arguments, "method=unimatch", "-o", folder)
    assert done.exit_code in (0, 4), (done.stdout, done.stderr)  # so few steps may well collapse
    found = json.loads(call("data", "check", voc, "--lists", lists, "--protocol", "voc", "--json").stdout)["lists"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["protocol"], metrics["lists"]) == ("voc", found)
    assert metrics["steps"] == 2 * 2  # 4 unlabelled images by twos, twice
    assert metrics["images"] == {"labeled": 3, "unlabeled": 4, "val": 2, "test": 0}
    config = load(folder / "config.yaml")
    assert (config.recipe, config.train.steps, config.train.epochs) == ("voc", 4, None)
    assert (config.train.schedule, config.train.lr) == ("poly", 0.01)
    assert json.loads((folder / "splits.json").read_text())["lists"] == found
    assert json.loads((folder / "card.json").read_text())["lists"] == found
    header = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["method"])
    assert header.split()[-1] == "list"
    rows = [line for line in done.stdout.splitlines() if line.split()[-1:] == [found["labeled"][:12]]]
    assert [row.split()[0] for row in rows] == ["supervised_strong", "unimatch"]
    page = (folder / "report.html").read_text()
    assert f"SHA-256 {found['labeled']}" in page
    again = call("train", "--resume", folder)
    assert "finished before" in again.stdout


def test_a_dry_run_says_which_protocol_and_how_many_steps(voc: Path, call: Call) -> None:
    arguments = (f"lists={voc / 'splits' / '3'}", *TINY_NET, "batch_size=2", "--dry-run")
    done = call("train", voc, "recipe=voc", *arguments)
    assert done.exit_code == 0, done.stderr
    assert "\n# PASCAL VOC, classic: 3 of 7 images labelled, list labeled.txt with hash " in done.stdout
    assert "\n  steps: 160\n  epochs: null\n" in done.stdout


def test_other_lists_are_refused(voc: Path, call: Call, refused: Refused) -> None:
    lists = voc / "splits" / "3"
    lines = (lists / "labeled.txt").read_text().splitlines()
    (lists / "labeled.txt").write_text("\n".join(lines[:2]))
    message = "labeled.txt: 2 labelled images, expected one of 3 (classic); 5 (blended or U2PL's)."
    refused(call("train", voc, f"lists={lists}", "protocol=voc", "--dry-run"), 3, message)
    done = call("data", "check", voc, "--lists", lists, "--protocol", "voc")
    refused(done, 3, message)
    assert "Ready to train." not in done.stdout
    done = call("train", voc, f"lists={lists}", "protocol=none", "recipe=voc", *TINY_NET, "--dry-run")
    assert done.exit_code == 0, done.stderr


def test_a_check_says_which_protocol_it_is(voc: Path, tmp_path: Path, call: Call, refused: Refused) -> None:
    done = call("data", "check", voc, "--lists", voc / "splits" / "3", "--protocol", "voc")
    assert done.exit_code == 0, done.stderr
    assert "note: PASCAL VOC, classic: 3 of 7 images labelled, list labeled.txt with hash " in done.stdout
    assert "lacks a final newline, so that `wc -l` says one less" in done.stdout
    refused(call("data", "check", voc, "--protocol", "vok"), 2, "data.protocol='vok': expected", "Did you mean 'voc'?")
    fake(tmp_path / "ade", "ade20k")  # 0 is void there, which its protocol knows
    done = call("data", "check", tmp_path / "ade", "--lists", tmp_path / "ade" / "splits" / "3", "--protocol", "ade20k")
    assert done.exit_code == 0, done.stderr


# Numbers of masks, translated


def numbered(folder: Path) -> None:
    """The masks of a folder with 9 for the ground, 7 for the square and a corner of 3."""
    for path in folder.iterdir():
        values = np.where(np.asarray(Image.open(path)) == 1, 7, 9).astype(np.uint8)
        values[-1, -1] = 3
        Image.fromarray(values).save(path)


def test_masks_of_other_numbers(tmp_path: Path, call: Call, refused: Refused) -> None:
    source, folder = with_masks(tmp_path / "data"), tmp_path / "run"
    numbered(source / "masks")
    refused(call("data", "check", source), 3, "The masks hold the class numbers 3, 7, 9")
    mapping = "{9: 0, 7: 1, 3: 255}"
    done = call("data", "check", source, "--mapping", mapping)
    assert done.exit_code == 0, done.stderr
    assert "void 0.1 % of the pixels" in done.stdout
    refused(call("data", "check", source, "--mapping", "{9: 0, 7: 2}"), 3, "mapping: the classes 0, 2 leave a gap.")
    settings = ("steps=24", "batch_size=4", "eval_every=12", "lr=0.01", "ema=0.5", "method=supervised_strong")
    done = call("train", source, f"mapping={mapping}", *settings, "-q", "--no-report", "-o", folder)
    assert done.exit_code == 0, done.stderr
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["classes"] == ["class 0", "class 1"]
    assert metrics["test"]["miou"] > 0.8
    assert call("train", "--resume", folder).exit_code == 0
    for number in range(50, 53):
        image, mask = scene(number)
        save(tmp_path / "other" / "images" / f"{number}.png", image)
        save(tmp_path / "other" / "masks" / f"{number}.png", mask)
    numbered(tmp_path / "other" / "masks")
    found = json.loads(call("eval", folder, tmp_path / "other", "--json").stdout)
    assert found["test"]["miou"] > 0.8

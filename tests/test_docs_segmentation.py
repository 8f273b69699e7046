"""docs/segmentation.md, run as it stands but for the number of steps, on generated images and masks."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sfumato.cli import app
from tests.run.masks_on_disk import save, scene, with_masks

PAGE = Path(__file__).resolve().parents[1] / "docs" / "segmentation.md"
SIZE = (96, 72)
FAST = ["steps=4", "batch_size=2", "eval_every=4", "--no-report", "-q"]


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"<!-- {name} -->\n```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[list[str]]:
    """Every line that is run on the page, without its comment."""
    lines = [line for block in blocks("worked-example", "bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def shortened(words: list[str]) -> list[str]:
    if words[1] != "train" or "--dry-run" in words or "--resume" in words:
        return words[1:]
    return [word for word in words[1:] if not word.startswith("steps=")] + FAST


def everything_named(root: Path) -> None:
    """The folders and files of the page."""
    scans = with_masks(root / "scans", labeled=12, unlabeled=5, sizes=(SIZE,))
    (scans / "classes.txt").write_text("ground\nhouse\n")
    for number in range(30, 33):
        save(root / "new" / "deeper" / f"{number}.jpg", scene(number, (130, 90))[0])
        image, mask = scene(number, SIZE)
        save(root / "checked" / "images" / f"{number}.png", image)
        save(root / "checked" / "masks" / f"{number}.png", mask)
    for number in range(10):
        image, mask = scene(number)
        save(root / "photos" / f"{number}.jpg", image)
        save(root / "VOC2012" / "JPEGImages" / f"{number}.jpg", image)
        save(root / "VOC2012" / "SegmentationClass" / f"{number}.png", mask)
        if number < 7:
            save(root / "drawn" / f"{number}.png", mask)
    (root / "VOC2012" / "classes.txt").write_text("ground\nhouse\n")
    rows = [f"photos/{number}.jpg,{f'drawn/{number}.png' if number < 7 else ''}" for number in range(10)]
    (root / "pairs.csv").write_text("\n".join(["image,mask", *rows]))
    lists = root / "splits" / "92"
    lists.mkdir(parents=True)
    pairs = [f"JPEGImages/{number}.jpg SegmentationClass/{number}.png" for number in range(10)]
    for name, part in (("labeled", pairs[:3]), ("unlabeled", pairs[3:8]), ("val", pairs[8:])):
        (lists / f"{name}.txt").write_text("\n".join(part))


def test_every_command_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything_named(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = commands()
    assert len(run) >= 16
    assert {words[1] for words in run} == {"data", "train", "report", "predict", "eval"}
    for words in run:
        assert words[0] == "sfumato"
        done = CliRunner().invoke(app, shortened(words))
        collapsed = done.exit_code == 4 and words[1] == "train"  # so few steps may well end so
        assert done.exit_code == 0 or collapsed, (words, done.stdout, done.stderr)
    assert json.loads(Path("runs/few/metrics.json").read_text())["images"]["labeled"] == 6
    assert Path("runs/houses/report.html").stat().st_size > 10_000
    for folder in ("predicted", "shown", "shown/overlay", "shown/confidence", "shown/entropy"):
        with Image.open(f"{folder}/deeper/30.png") as picture:
            assert picture.size == (130, 90)
    assert set(np.unique(np.asarray(Image.open("predicted/deeper/30.png")))) <= {0, 1}
    assert Path("predicted/classes.csv").read_text().splitlines()[2] == "house,128,0,0"


def test_the_commands_that_the_page_names_in_passing() -> None:
    """Those of the tables and sentences: their verbs, options and keys are there."""
    text = PAGE.read_text(encoding="utf-8")
    named = [shlex.split(found) for found in re.findall(r"`(sfumato [^`]+)`", text)]
    assert len(named) >= 6
    for words in named:
        done = CliRunner().invoke(app, [*words[1:2], "--help"])
        assert done.exit_code == 0, words
        options = {word for word in words if word.startswith("--")}
        assert all(option in done.stdout for option in options), words


def example() -> str:
    (block,) = blocks("python-api", "python")
    return str(block)


def test_ten_lines_of_python(capsys: pytest.CaptureFixture[str]) -> None:
    code = example()
    assert "steps=300" in code
    names: dict[str, object] = {}
    exec(code.replace("steps=300", "steps=24"), names)
    assert 0.2 < float(capsys.readouterr().out) < 1  # ground everywhere gives 0.14


def test_the_example_is_ten_lines_beside_its_imports() -> None:
    lines = [line for line in example().splitlines() if line and not line.startswith("from ")]
    assert len(lines) <= 10

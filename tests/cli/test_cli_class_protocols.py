"""Protocols, long tails and label noise of classification by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.config import load
from tests.cli.conftest import Call, Refused
from tests.data.pictures import write_folders
from tests.data.test_class_protocols import tiny

TINY_NET = ("model=small", "model.options={}", "steps=4", "batch_size=4", "unlabeled_ratio=1", "eval_every=4")


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake of two classes, where the protocol is looked for."""
    tiny(monkeypatch, "cifar10", 2, 40, 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SFUMATO_DATA", raising=False)
    for part, each in (("train", 20), ("test", 4)):
        write_folders(tmp_path / "data/cifar10" / part, {"cat": each, "dog": each}, first=0 if part == "train" else 500)
    return tmp_path / "data/cifar10"


def test_a_protocol_from_its_place_to_the_report(cifar: Path, call: Call, tmp_path: Path) -> None:
    arguments = ("protocol=cifar10", "method=fixmatch", "labels=4", "noise=0.5", "budget=quick", *TINY_NET)
    done = call("train", *arguments, "-q", "-o", tmp_path / "run")
    assert done.exit_code in (0, 4), (done.stdout, done.stderr)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["protocol"], metrics["wrong_labels"]) == ("cifar10", 2)
    assert metrics["images"] == {"labeled": 4, "unlabeled": 40, "val": 0, "test": 8}
    assert metrics["class_counts"] == {"labeled": [2, 2], "unlabeled": [20, 20], "val": [0, 0], "test": [4, 4]}
    config = load(tmp_path / "run" / "config.yaml")
    assert (config.data.source, config.recipe, config.budget) == (str(cifar), "cifar10", "quick")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "CIFAR-10: 40 training and 8 test images of 2 classes, as published." in page
    assert "Label noise: 2 of 4 training labels are wrong (symmetric noise of 50" in page
    assert "wrong labels" in page[page.index('id="how"') :]
    again = call("train", "--resume", tmp_path / "run")
    assert "finished before" in again.stdout


def test_a_check_shows_what_settings_make_of_it(cifar: Path, call: Call) -> None:
    settings = ("gamma_labeled=4", "head_labeled=8", "gamma_unlabeled=reversed", "head_unlabeled=12")
    done = call("data", "check", "--protocol", "cifar10", *settings)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    start = lines.index("With these settings")
    assert lines[start + 1].split() == ["class", "labeled", "unlabeled", "val", "test"]
    assert [line.split() for line in lines[start + 3 : start + 5]] == [
        ["cat", "8", "3", "0", "4"],
        ["dog", "2", "12", "0", "4"],
    ]
    assert "note: Long tail of the unlabelled images, gamma -4: 3 of 'cat' to 12 of 'dog', 15 in all." in lines
    assert "note: CIFAR-10: 40 training and 8 test images of 2 classes, as published." in lines
    alone = "warning: There are no unlabelled images"
    assert alone not in done.stdout  # these settings leave some
    assert alone in call("data", "check", cifar).stdout
    assert alone in call("data", "check", cifar, "noise=0.2").stdout
    assert alone not in call("data", "check", cifar, "labels=10").stdout
    found = json.loads(call("data", "check", cifar, "--protocol", "cifar10", *settings, "--json").stdout)
    assert found["drawn"]["labeled"] == {"cat": 8, "dog": 2}
    assert "With these settings" not in call("data", "check", cifar).stdout


def test_a_dry_run_tells_of_the_tail(cifar: Path, call: Call) -> None:
    done = call(
        "train", "protocol=cifar10", "budget=long_tail", "gamma_labeled=4", "head_labeled=8", *TINY_NET, "--dry-run"
    )
    assert done.exit_code == 0, done.stderr
    assert "# 48 images of 2 classes: 10 labeled, 30 unlabeled, 0 val, 8 test" in done.stdout
    assert "# Long tail of the labelled images, gamma 4: 8 of 'cat' to 2 of 'dog', 10 in all." in done.stdout


def test_what_is_refused(cifar: Path, call: Call, refused: Refused, tmp_path: Path) -> None:
    short = call("train", "protocol=cifar10", "gamma_labeled=4", "head_labeled=30", *TINY_NET, "--dry-run")
    refused(
        short, 3, "class 'cat' has 20 images, and the labelled long tail (head_labeled=30, gamma_labeled=4) needs 30."
    )
    refused(call("data", "check", "gamma_labeled=4"), 2, "No data was given.")
    refused(call("data", "check", cifar, "noise=7"), 2, "noise=7: expected a share of the labels")
    refused(call("train", "protocol=svhn", "--dry-run"), 3, "SVHN was looked for in data/svhn, and is not there.")
    (cifar / "train" / "cat" / "0.png").unlink()
    refused(call("data", "check", "--protocol", "cifar10"), 3, "39 training images, expected 40 of CIFAR-10.")
    done = call("train", cifar, "protocol=none", "recipe=cifar10", "labels=4", *TINY_NET, "--dry-run")
    assert done.exit_code == 0, done.stderr


def test_settings_go_with_classes_alone(mask_source: Path, call: Call, refused: Refused) -> None:
    refused(
        call("data", "check", mask_source, "noise=0.2"), 2, "noise=0.2: settings are looked at for images with a class"
    )

"""Runs whose files were damaged, and images that cannot be read among others that can: what to do is always said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sfumato.cli import app
from sfumato.run import files
from tests.run.pictures_on_disk import class_folders, save

FEW = ["steps=20", "batch_size=8", "unlabeled_ratio=2", "eval_every=20", "save_every=10", "log_every=10"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(done: Result, code: int, *parts: str) -> None:
    assert done.exit_code == code, (done.exit_code, done.stdout, done.stderr)
    for part in parts:
        assert part in done.stderr, (part, done.stderr)
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data") / "bars", each=12, unlabeled=12)


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert call("train", source, *FEW, "method=fixmatch", "--no-report", "-q", "-o", folder).exit_code == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_other_data_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other = class_folders(tmp_path / "other", each=8, unlabeled=3)
    refused(call("train", "--resume", run, other), 3, "splits.json: made for other data than", "start a new run")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_lost_or_broken_card_is_written_anew(run: Path, source: Path) -> None:
    whole = json.loads((run / files.CARD).read_text())
    for text, message in (("{}", "it has no classes, image_size"), ("x", "not readable as JSON")):
        (run / files.CARD).write_text(text)
        refused(call("predict", run, source), 3, message, f"Delete it, and `sfumato train --resume {run}` writes it")
    (run / files.CARD).unlink()
    assert call("train", "--resume", run, "-q", "--no-report").exit_code == 0
    assert json.loads((run / files.CARD).read_text()) == whole


def test_broken_metrics_of_a_run(run: Path) -> None:
    (run / files.METRICS).write_text("{")
    refused(call("train", "--resume", run), 3, "metrics.json: not readable as JSON", "Delete it and resume the run")
    refused(call("report", run), 3, "metrics.json: not readable as JSON", "Once it is deleted, `sfumato train --resume")


def test_broken_predictions_are_made_anew_by_eval(run: Path) -> None:
    path = run / "predictions" / "test.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    refused(call("train", "--resume", run, "-q"), 3, "test.npz: not readable", f"`sfumato eval {run}` writes it anew.")
    assert call("eval", run).exit_code == 0
    assert call("train", "--resume", run, "-q", "--no-report").exit_code == 0


def test_broken_splits_and_settings(run: Path) -> None:
    (run / files.METRICS).unlink()
    (run / files.SPLITS).write_text('{"a"')
    refused(call("train", "--resume", run), 3, "splits.json: not a splits file", "Restore the file, or start a new run")
    (run / files.CONFIG).write_text("train: [")
    refused(call("train", "--resume", run), 2, "config.yaml, line ", "not readable as YAML")


def test_a_batch_that_does_not_divide_leaves_no_folder(source: Path, tmp_path: Path) -> None:
    done = call("train", source, "batch_size=5", "accumulate=2", "-o", tmp_path / "x")
    refused(done, 2, "batch_size=5: the global batch must be a multiple of ranks x accumulate = 2. Take 4.")
    assert not (tmp_path / "x").exists()


def test_a_seed_folder_in_use_is_not_written_to(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "seed-0").mkdir(parents=True)
    (folder / files.CONFIG).write_text(call("config", source, *FEW, "method=supervised", "seeds=0:1").stdout)
    with files.alone(folder / "seed-0"):
        refused(call("train", "--resume", folder), 3, "seed-0 is in use by another process.")


def test_labels_only_training_shows_no_unlabelled_loss(source: Path, tmp_path: Path) -> None:
    done = call("train", source, *FEW, "method=supervised", "--no-report", "-o", tmp_path / "x")
    assert "loss" in done.stderr
    assert "unlabelled" not in done.stderr


def test_predict_with_broken_images_among_good_ones(run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for label in range(3):
        save(new / f"{label}.png", label, 7000 + label)
    (new / "empty.png").touch()
    (new / "no.jpg").write_text("no image")
    out = tmp_path / "out.csv"
    done = call("predict", run, new, "-o", out)
    refused(done, 3, "2 images cannot be read: 'empty.png' (empty, 0 bytes), 'no.jpg' (not an image", "--skip-broken")
    assert not out.exists()
    done = call("predict", run, new, "-o", out, "--skip-broken")
    assert (done.exit_code, done.stdout) == (0, f"3 images -> {out}\n")
    assert done.stderr == (
        "left out: 'empty.png' (empty, 0 bytes)\nleft out: 'no.jpg' (not an image of a known format)\n"
    )
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == ["file", "0.png", "1.png", "2.png"]
    out.write_text("mine\n")
    again = "exists already, and nothing is overwritten. Give another file with -o, or --force"
    refused(call("predict", run, new, "-o", out, "--skip-broken"), 3, f"{out} {again}")
    assert out.read_text() == "mine\n"
    assert call("predict", run, new, "-o", out, "--skip-broken", "--force").exit_code == 0
    assert out.read_text().startswith("file,label,")
    refused(call("predict", run, new / "no.jpg", "--skip-broken"), 3, "1 image cannot be read: 'no.jpg'")


def test_predict_into_a_folder(run: Path, source: Path) -> None:
    refused(call("predict", run, source, "-o", run), 3, f"{run} is a folder. Give the name of a file.")

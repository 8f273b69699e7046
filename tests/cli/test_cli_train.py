"""`sfumato train` and what follows from a run: eval, predict, report; and everything that can be wrong with them."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from sfumato.cli import app
from sfumato.run import files
from tests.run.pictures_on_disk import CLASSES, class_folders, save, with_csv

FEW = ["steps=40", "batch_size=8", "unlabeled_ratio=2", "eval_every=20", "save_every=3", "log_every=10"]
COMMAND = Path(sys.executable).with_name("sfumato")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train(source: object, *arguments: object, method: str = "fixmatch") -> Result:
    return call("train", source, *FEW, f"method={method}", "-q", *arguments)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data") / "bars")


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made by the installed command."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    arguments = ["train", source, "labels_per_class=3", *FEW, "method=fixmatch", "-o", folder]
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, env=one_thread())
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == f"Report: {folder}/report.html"
    assert lines[-2].startswith(
        "Cannot tell whether the unlabelled images help, at least 30 held-out labels are needed"
    )
    assert any(line.split()[:1] == ["fixmatch"] for line in lines)
    assert "validation accuracy" in done.stderr  # plain lines, not a bar
    return folder


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


# What works


def test_json_is_all_that_is_on_stdout(source: Path, tmp_path: Path) -> None:
    done = call("train", source, *FEW, "method=fixmatch", "--json", "--no-report", "-o", tmp_path / "run")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["verdict"]["method"] == found["method"] == "fixmatch"
    assert found["runs"]["supervised_strong"][0]["steps"] == 40
    assert "fixmatch, seed 0: 40 steps on" in done.stderr


def test_csv_with_blanks_and_seeds(tmp_path: Path) -> None:
    folder, table = with_csv(tmp_path / "photos")
    done = train(folder, "--labels", table, "--seeds", "0:2", "-o", tmp_path / "run", "--no-report")
    assert done.exit_code == 0, done.stderr
    assert " ± " in done.stdout
    metrics = json.loads((tmp_path / "run" / "seed-1" / "metrics.json").read_text())
    assert metrics["classes"] == sorted(CLASSES)
    assert sum(metrics["images"][part] for part in ("labeled", "val", "test")) == 90


def test_a_dry_run_prints_settings_that_run(source: Path, tmp_path: Path) -> None:
    done = train(source, "--dry-run", "-o", tmp_path / "run")
    assert done.exit_code == 0
    assert done.stdout.startswith("# 130 images of 3 classes: 54 labeled, 94 unlabeled, 18 val, 18 test\n")
    assert not (tmp_path / "run").exists()
    path = tmp_path / "settings.yaml"
    path.write_text(done.stdout)
    again = call("train", path, "--dry-run")
    assert again.stdout == done.stdout


def test_a_finished_run_resumes_to_the_same(run: Path) -> None:
    before = (run / "metrics.json").read_bytes()
    done = call("train", "--resume", run)
    assert done.exit_code == 0
    assert "fixmatch, seed 0: finished before, accuracy" in done.stdout
    assert (run / "metrics.json").read_bytes() == before


def test_eval_gives_the_numbers_again(run: Path) -> None:
    kept = json.loads((run / "metrics.json").read_text())
    (run / "predictions" / "test.npz").unlink()
    found = json.loads(call("eval", run, "--json").stdout)
    assert found["test"] == pytest.approx(kept["test"], abs=1e-6)
    assert found["temperature"] == pytest.approx(kept["temperature"], abs=1e-5)
    assert (run / "predictions" / "test.npz").exists()
    best = json.loads(call("eval", run, "--json", "--select", "best").stdout)
    assert best["test"] == pytest.approx(kept["best"]["test"], abs=1e-6)
    text = call("eval", run).stdout
    assert "accuracy %" in text
    assert "middle" in text


def test_eval_on_other_images(run: Path, source: Path, tmp_path: Path) -> None:
    found = json.loads(call("eval", run, source, "--json").stdout)
    assert found["images"]["test"] == 90
    assert found["test"]["acc"] > 0.5
    save(tmp_path / "data" / "upper" / "0.png", 0, 0)
    save(tmp_path / "data" / "left" / "0.png", 0, 0)
    done = call("eval", run, tmp_path / "data")
    assert done.exit_code == 3
    assert "class 'upper' is none of the run's classes: left, middle, right." in done.stderr


def test_predict_writes_a_table(run: Path, tmp_path: Path) -> None:
    """On new images in any form, in folders, with a class that can be seen."""
    for label in range(3):
        save(tmp_path / "new" / "deeper" / f"{label}.png", label, 5000 + label)
    picture = Image.open(tmp_path / "new" / "deeper" / "2.png").convert("RGBA").resize((40, 40))
    picture.save(tmp_path / "new" / "large, with comma.png")
    out = tmp_path / "pred.csv"
    done = call("predict", run, tmp_path / "new", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"4 images -> {out}\n"
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "probability", "top3"]
    assert [row["file"] for row in rows] == ["deeper/0.png", "deeper/1.png", "deeper/2.png", "large, with comma.png"]
    for row in rows:
        ranked = [part.rsplit(":", 1) for part in row["top3"].split("; ")]
        assert ranked[0] == [row["label"], row["probability"]]
        assert sum(float(share) for _, share in ranked) == pytest.approx(1, abs=2e-4)
        shares = [float(share) for _, share in ranked]
        assert shares == sorted(shares, reverse=True)
    one = call("predict", run, tmp_path / "new" / "deeper" / "1.png", "--select", "best")
    assert one.stdout.startswith("file,label,probability,top3\n1.png,")


def test_predictions_agree_with_those_of_the_run(run: Path, source: Path) -> None:
    """The network read back, with its size, channels and normalisation, is the one that was evaluated."""
    import numpy as np

    with np.load(run / "predictions" / "test.npz", allow_pickle=False) as held:
        wanted = dict(zip(held["names"], held["logits"].argmax(axis=1), strict=True))
    rows = csv.DictReader(call("predict", run, source).stdout.splitlines())
    classes = sorted(CLASSES)
    found = {row["file"]: classes.index(row["label"]) for row in rows if row["file"] in wanted}
    assert found == wanted


def test_report_is_written_anew(run: Path, tmp_path: Path) -> None:
    done = call("report", run, "-o", tmp_path / "r.html")
    assert done.exit_code == 0
    assert done.stdout.strip() == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == (run / "report.html").read_bytes()

    (tmp_path / "r.html").write_text("my notes")
    refused(call("report", run, "-o", tmp_path / "r.html"), 3, "r.html exists already", "or --force to write it anew")
    assert (tmp_path / "r.html").read_text() == "my notes"
    assert call("report", run, "-o", tmp_path / "r.html", "--force").exit_code == 0
    assert (tmp_path / "r.html").read_bytes() == (run / "report.html").read_bytes()


def test_sigterm_saves_and_says_how_to_go_on(run: Path, source: Path, tmp_path: Path) -> None:
    """Stopped in the middle and continued: the weights are those of the run that was not."""
    folder = tmp_path / "stopped"
    shutil.copytree(run, folder)
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    slow = [sys.executable, "-c", SLOW, "train", "--resume", folder]
    process = subprocess.Popen(slow, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=one_thread())
    wait_for(lambda: any((folder / "checkpoints").glob("step-*")), process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("Interrupted after step ")
    assert said.splitlines()[-1].endswith(f"of 40; saved. Continue with: sfumato train --resume {folder}")
    assert "Traceback" not in said
    assert call("train", "--resume", folder, "-q").exit_code == 0
    assert (folder / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()


SLOW = """
import time
from sfumato import train
from sfumato.cli import app
rate = train.rate
train.rate = lambda *given: (time.sleep(0.1), rate(*given))[1]
app()
"""


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


# What is wrong: one message, the exit code, no traceback


def refused(done: Result, code: int, *parts: str) -> None:
    assert done.exit_code == code, (done.exit_code, done.stdout, done.stderr)
    for part in parts:
        assert part in done.stderr, (part, done.stderr)
    assert "Traceback" not in done.stderr


def test_unknown_names(source: Path, tmp_path: Path) -> None:
    done = call("train", source, "method=fixmach", "stepz=3", "--recipe", "quick", "-o", tmp_path / "x")
    refused(done, 2, "2 mistakes in the settings:", "Did you mean 'fixmatch'?", "Did you mean 'steps'?")
    refused(call("train", source, "--recipe", "quik"), 2, "recipe 'quik' is unknown. Did you mean 'quick'?")
    refused(call("methods", "show", "flexmach"), 2, "Did you mean 'flexmatch'? `sfumato methods` lists them.")
    refused(call("trian"), 2, "trian")


def test_arguments_in_the_wrong_place(source: Path, run: Path, tmp_path: Path) -> None:
    refused(call("train"), 2, "No data was given. Say where the images are: sfumato train photos/ --labels labels.csv")
    refused(call("train", "steps=3", source), 2, f"'{source}': expected key=value here, such as steps=1000.")
    refused(call("train", tmp_path / "no.yaml"), 2, "no.yaml: no such file of settings.")
    refused(call("train", "--resume", run, "-o", tmp_path), 2, "--resume goes on in the same folder", "leave out -o")
    refused(call("train", run / "config.yaml", "--resume", run), 2, "--resume takes the settings of the run")
    refused(call("eval", run, "--labels", "x.csv"), 2, "--labels goes with DATA")


def test_no_such_data(tmp_path: Path) -> None:
    refused(train("mnist5"), 3, "mnist5: no such file or folder, and not a built-in set. Did you mean 'mnist5k'?")


@pytest.mark.parametrize(
    "text, message",
    [
        ("name,label\n000.png,left\n", "file"),
        ("file,label\nnothing.png,left\n000.png,middle\n", "nothing.png"),
        ("file,label\n000.png,left\n000.png,middle\n", "000.png"),
    ],
)
def test_csv_problems_reach_the_user(tmp_path: Path, text: str, message: str) -> None:
    save(tmp_path / "photos" / "000.png", 0, 0)
    table = tmp_path / "labels.csv"
    table.write_text(text)
    for done in (
        train(tmp_path / "photos", "--labels", table),
        call("data", "check", tmp_path / "photos", "--labels", table),
    ):
        refused(done, 3, str(table), message)


def test_too_few_labels(source: Path, tmp_path: Path) -> None:
    refused(train(source, "labels=2", "-o", tmp_path / "x"), 3, "labels=2 cannot cover 3 classes. Ask for at least 3")


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "data", each=6, unlabeled=2)
    (source / "left" / "000.png").write_bytes(b"")
    refused(train(source, "-o", tmp_path / "x"), 3, "1 image cannot be read: 'left/000.png'", "skip_broken")
    assert train(source, "skip_broken=true", "-o", tmp_path / "x", "--no-report").exit_code == 0


def test_a_folder_that_exists_is_never_overwritten(source: Path, run: Path) -> None:
    done = train(source, "-o", run)
    message = (
        f"{run} exists already, and nothing is overwritten. Continue it with: sfumato train --resume {run}, or give"
    )
    refused(done, 3, message)


def test_a_run_of_other_settings_is_not_continued(run: Path) -> None:
    done = call("train", "--resume", run, "lr=0.5", "method=freematch")
    refused(
        done, 3, "was started with other settings", "train.lr is 0.5 now and was 0.1", "method.name is 'freematch' now"
    )


def test_a_checkpoint_of_another_configuration(run: Path, tmp_path: Path) -> None:
    """Even where config.yaml was edited by hand."""
    folder = tmp_path / "edited"
    shutil.copytree(run, folder)
    (folder / "metrics.json").unlink()
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("lr: 0.1", "lr: 0.2"))
    done = call("train", "--resume", folder, "-q")
    refused(done, 3, "belongs to another configuration: train.lr is 0.2 now and was 0.1.", "start a new run")


def test_a_truncated_checkpoint_falls_back_to_the_one_before(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(run, folder)
    (folder / "metrics.json").unlink()
    cut = folder / "checkpoints" / "step-00000040" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:1000])
    done = call("train", "--resume", folder, "-q")
    assert done.exit_code == 0, done.stderr
    assert "Passed over checkpoint" in done.stderr
    assert "model.safetensors has 1000 bytes, expected" in done.stderr
    assert (folder / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()


def test_data_that_changed_since_is_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "data", each=6, unlabeled=4)
    assert train(source, "-o", tmp_path / "run", "--no-report").exit_code == 0
    (tmp_path / "run" / "metrics.json").unlink()
    (source / "unlabeled" / "000.png").unlink()
    done = call("train", "--resume", tmp_path / "run")
    refused(done, 3, "splits.json: made for other data than", "1 gone ('unlabeled/000.png')")


def test_a_loss_that_is_not_finite(source: Path, tmp_path: Path) -> None:
    done = train(source, "lr=1e30", "-o", tmp_path / "x")
    refused(
        done, 4, "The loss was not finite at step", "Its labelled batch begins with", "Lower the learning rate (lr)"
    )


def test_no_unlabeled_images(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "data", each=12, unlabeled=0)
    done = call("train", source, *FEW, "method=freematch", "-o", tmp_path / "x", "--no-report")
    assert done.exit_code == 0
    assert "training supervised_strong on the labels alone instead of freematch" in done.stdout
    assert done.stdout.splitlines()[-1] == "Cannot tell whether unlabelled images help: there are none."


def test_a_collapse_at_the_end_is_exit_code_4(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.run import part

    conclude = part.conclude

    def collapsed(result: Any, *given: Any, **named: Any) -> dict[str, Any]:
        if "fixmatch" in str(given[1].method):
            result.collapse = {"step": 12, "reason": "The pseudo-labels crowd into 'left'."}
        return conclude(result, *given, **named)

    monkeypatch.setattr(part, "conclude", collapsed)
    done = train(source, "-o", tmp_path / "run")
    refused(done, 4, "The pseudo-labels were collapsed at the end. step 12: The pseudo-labels crowd into 'left'.")
    assert "fixmatch (collapsed)" in done.stdout
    assert (tmp_path / "run" / "report.html").exists()


def test_a_full_disk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_arrays", full)
    done = train(source, "-o", tmp_path / "x")
    refused(done, 3, "val.npz: the disk is full. Free some space and go on with")


def test_interruption_and_surprise(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.run import part

    def raising(error: BaseException) -> Any:
        def fail(*given: Any, **options: Any) -> None:
            raise error

        return fail

    monkeypatch.setattr(part, "train", raising(KeyboardInterrupt()))
    done = train(source, "-o", tmp_path / "x")
    refused(done, 130, f"Interrupted. Continue with: sfumato train --resume {tmp_path / 'x'}")
    monkeypatch.setattr(part, "train", raising(ZeroDivisionError("division by zero")))
    done = train(source, "-o", tmp_path / "y")
    refused(done, 1, "Unexpected ZeroDivisionError: division by zero", "`sfumato --debug VERB ...` shows where.")
    debugged = call("--debug", "train", source, *FEW, "-q", "-o", tmp_path / "z")
    assert isinstance(debugged.exception, ZeroDivisionError)


def test_folders_that_are_no_runs(tmp_path: Path, run: Path) -> None:
    refused(call("predict", tmp_path / "no", tmp_path), 3, "no such folder. Give the folder of a run")
    refused(call("eval", tmp_path), 3, "card.json is missing. It is no folder of a run.")
    refused(call("report", tmp_path), 3, "not a run folder: metrics.json is missing")
    refused(
        call("predict", run, tmp_path / "no"), 3, "no: no such file or folder. Give a folder of images, or one image."
    )
    refused(call("predict", run, tmp_path), 3, f"{tmp_path}: no image in it or below it.")


# What takes long


@pytest.mark.slow
def test_cifar_parquet_with_a_wide_resnet(few_of_cifar10: Path, tmp_path: Path) -> None:
    given = (
        "labels=250",
        "model=wrn_28_2",
        "steps=20",
        "batch_size=8",
        "unlabeled_ratio=2",
        "val=500",
        "method=fixmatch",
    )
    done = call("train", few_of_cifar10, *given, "-q", "-o", tmp_path / "run")
    assert done.exit_code in (0, 4), done.stderr  # after 20 steps pseudo-labels may crowd
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["images"]["labeled"] == 250
    assert len(metrics["classes"]) == 10
    assert json.loads((tmp_path / "run" / "card.json").read_text())["preset"] == "natural32"
    assert (tmp_path / "run" / "verdict.json").exists()
    assert (tmp_path / "run" / "report.html").stat().st_size > 50_000


@pytest.mark.slow
def test_a_transformer_of_timm_by_name_and_prediction_with_it(source: Path, tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    given = (f"model={name}", "model.options.patch_size=8", "model.options.depth=2", "image_size=32", "channels=3")
    done = call(
        "train", source, *given, *FEW[1:], "steps=6", "optimizer=adamw", "lr=0.001", "-q", "-o", tmp_path / "run"
    )
    assert done.exit_code in (0, 4), done.stderr
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["model"] == {"name": name, "dropout": 0.0, "options": {"patch_size": 8, "depth": 2}}
    assert (card["image_size"], card["channels"]) == (32, 3)
    rows = list(csv.DictReader(call("predict", tmp_path / "run", source / "unlabeled").stdout.splitlines()))
    assert len(rows) == 40
    assert {row["label"] for row in rows} <= set(CLASSES)


@pytest.mark.slow
def test_two_ranks_write_one_run_and_speak_once(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    torchrun = [Path(sys.executable).with_name("torchrun"), "--nproc-per-node", "2", "-m", "sfumato"]
    given = ["train", source, *FEW, "method=freematch", "-o", folder]
    done = subprocess.run([*torchrun, *given], capture_output=True, text=True, check=False, env=one_thread())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"Writing to {folder}") == 1
    assert done.stdout.count("Report: ") == 1
    assert json.loads((folder / "environment.json").read_text())["ranks"] == 2
    one = call("train", folder / "config.yaml", "-q", "-o", tmp_path / "one", "--no-report")
    assert one.exit_code == 0
    first, second = (json.loads((path / "metrics.json").read_text()) for path in (folder, tmp_path / "one"))
    assert first["test"]["nll"] == pytest.approx(second["test"]["nll"], abs=0.3)

"""The main job, on images of 12 pixels and for a few steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from sfumato.config import Config, load
from sfumato.errors import DataError, UsageError
from sfumato.methods import METHODS, describe
from sfumato.run import Summary, experiment, rehearsal, reopened
from sfumato.run import part as part_module
from sfumato.train import Interrupted
from tests.run.pictures_on_disk import class_folders

FEW = (
    "steps=12",
    "batch_size=8",
    "unlabeled_ratio=2",
    "labels_per_class=3",
    "eval_every=6",
    "save_every=3",
    "log_every=3",
)
FILES = {
    "baseline", "card.json", "checkpoints", "config.yaml", "environment.json", "metrics.json", "metrics.jsonl",
    "predictions", "report.html", "splits.json", "suspects.csv", "verdict.json", "weights-best.safetensors",
    "weights.safetensors",
}  # fmt: skip


def settings(*overrides: str) -> Config:
    """FEW, and then `overrides`, which win."""
    texts = {text.partition("=")[0]: text for text in (*FEW, *overrides)}
    return load(overrides=list(texts.values()))


def run(folder: Path, source: Path, *overrides: str, **options: Any) -> Summary:
    config = settings(f"data.source={source}", *overrides)
    return experiment(config, out=folder, say=lambda line: None, quiet=True, **options)


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(folder / "weights.safetensors"))


def same(first: Path, second: Path) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data") / "bars")


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return run(tmp_path_factory.mktemp("runs") / "first", source, "method=fixmatch")


def test_the_folder_holds_everything(finished: Summary) -> None:
    assert {entry.name for entry in finished.folder.iterdir()} == FILES
    assert {entry.name for entry in (finished.folder / "baseline").iterdir()} == FILES - {
        "baseline", "report.html", "verdict.json",
    }  # fmt: skip
    assert {entry.name for entry in (finished.folder / "predictions").iterdir()} == {"val.npz", "test.npz"}


def test_metrics_and_card(finished: Summary) -> None:
    metrics, card = read(finished.folder / "metrics.json"), read(finished.folder / "card.json")
    assert (metrics["method"], metrics["seed"], metrics["steps"]) == ("fixmatch", 0, 12)
    assert metrics["classes"] == card["classes"] == ["left", "middle", "right"]
    assert metrics["images"] == {"labeled": 9, "unlabeled": 94, "val": 18, "test": 18}
    assert {"acc", "ece", "nll", "recall/left"} <= metrics["test"].keys() & metrics["val"].keys()
    assert metrics["test_calibrated"]["acc"] == metrics["test"]["acc"]
    assert metrics["best"]["step"] in (6, 12)
    assert metrics["best"]["test"].keys() == metrics["test"].keys()
    assert metrics["student"].keys() == {"val", "test"}
    assert metrics["student"]["test"].keys() == metrics["test"].keys()
    assert metrics["student"]["test"]["nll"] != metrics["test"]["nll"]  # of the weights, not of their average
    assert (card["image_size"], card["channels"], card["preset"]) == (12, 1, "digits")
    assert card["model"] == {"name": "small", "dropout": 0.0, "options": {}}
    assert card["temperature"] == metrics["temperature"] > 0
    assert card["splits"] == read(finished.folder / "splits.json")["fingerprint"]


def test_predictions_are_those_that_the_metrics_tell_of(finished: Summary) -> None:
    with np.load(finished.folder / "predictions" / "test.npz", allow_pickle=False) as held:
        right = held["logits"].argmax(axis=1) == held["labels"]
        assert held["logits"].dtype == np.float32
        assert held["names"][0].endswith(".png")
    assert right.mean() == pytest.approx(read(finished.folder / "metrics.json")["test"]["acc"])


def test_baseline_and_method_share_splits_and_budget(finished: Summary) -> None:
    baseline = finished.folder / "baseline"
    assert (baseline / "splits.json").read_bytes() == (finished.folder / "splits.json").read_bytes()
    mine, theirs = load(finished.folder / "config.yaml"), load(baseline / "config.yaml")
    assert theirs.method.name == "supervised_strong"
    assert mine.train == theirs.train
    assert mine.seed == theirs.seed


def test_the_verdict_pairs_the_test_images(finished: Summary) -> None:
    verdict = read(finished.folder / "verdict.json")
    assert finished.verdict is not None
    assert verdict["answer"] == finished.verdict["answer"] == "cannot tell"
    assert (verdict["n"], verdict["split"], verdict["baseline"]) == (18, "test", "supervised_strong")
    assert "at least 30 held-out labels are needed and there are 18" in verdict["sentence"]
    accuracy = [
        read(folder / "metrics.json")["test"]["acc"] for folder in (finished.folder, finished.folder / "baseline")
    ]
    assert verdict["difference"] == pytest.approx(accuracy[0] - accuracy[1])


def test_the_resolved_settings_are_runnable_and_give_the_same_run(finished: Summary, tmp_path: Path) -> None:
    config = load(finished.folder / "config.yaml")
    assert (config.model.name, config.views.preset, config.data.image_size) == ("small", "digits", 12)
    experiment(config, out=tmp_path / "again", say=lambda line: None, quiet=True, report=False)
    assert same(tmp_path / "again", finished.folder)
    assert same(tmp_path / "again" / "baseline", finished.folder / "baseline")
    assert not (tmp_path / "again" / "report.html").exists()


def test_a_stopped_run_ends_as_if_it_had_not_stopped(finished: Summary, tmp_path: Path) -> None:
    """The method has come to step 6 and the baseline has ended: only what is missing is trained."""
    folder = tmp_path / "stopped"
    shutil.copytree(finished.folder, folder)
    for name in ("metrics.json", "verdict.json", "weights.safetensors", "report.html"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints" / "step-00000012")
    before = (folder / "baseline" / "metrics.json").stat().st_mtime_ns
    heard: list[str] = []
    summary = experiment(reopened(folder), resume=folder, say=heard.append, quiet=True)
    assert any(line.startswith("supervised_strong, seed 0: finished before, accuracy") for line in heard)
    assert (folder / "baseline" / "metrics.json").stat().st_mtime_ns == before
    assert same(folder, finished.folder)
    assert summary.verdict == finished.verdict
    kept = [key for key in read(folder / "metrics.json") if "seconds" not in key]
    assert all(read(folder / "metrics.json")[key] == read(finished.folder / "metrics.json")[key] for key in kept)


def test_an_interruption_says_how_to_go_on_with_the_whole_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: Any, folder: Path, **options: Any) -> None:
        raise Interrupted(f"Interrupted after step 3 of 12; saved. Continue with: sfumato train --resume {folder}")

    monkeypatch.setattr(part_module, "train", stop)
    with pytest.raises(Interrupted) as caught:
        run(tmp_path / "x", source)
    assert caught.value.code == 130
    told = f"Interrupted after step 3 of 12; saved. Continue with: sfumato train --resume {tmp_path / 'x'}"
    assert str(caught.value) == told  # not .../x/baseline


def test_only_settings_that_change_nothing_may_change_on_a_resume(finished: Summary) -> None:
    assert reopened(finished.folder, ["keep=5"]).train.keep == 5
    with pytest.raises(DataError) as caught:
        reopened(finished.folder, ["steps=40", "threshold=0.5"])
    assert str(caught.value) == (
        f"{finished.folder} was started with other settings: method.threshold is 0.5 now and was 0.95; "
        "train.steps is 40 now and was 12. Resume without them, or start a new run in another folder."
    )
    with pytest.raises(DataError) as caught:  # not the options that come with the name
        reopened(finished.folder, ["addon=abc"])
    assert "settings: addon.name is 'abc' now and was None. Resume" in str(caught.value)
    with pytest.raises(DataError, match="was started without --seeds and can only go on so"):
        reopened(finished.folder, ["seeds=0:2"])
    with pytest.raises(DataError, match=r"cannot be continued, since it holds no config\.yaml"):
        reopened(finished.folder / "predictions")


def test_several_seeds(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "seeds"
    summary = run(folder, source, "method=fixmatch", "seeds=3:5", "steps=6")
    assert [path.name for path in sorted(folder.glob("seed-*"))] == ["seed-3", "seed-4"]
    assert (folder / "report.html").exists()
    verdict = read(folder / "verdict.json")
    assert (verdict["seeds"], verdict["n"]) == (2, 18)
    first, second = (read(folder / name / "splits.json") for name in ("seed-3", "seed-4"))
    assert first["test"] == second["test"]
    assert first["labeled"] != second["labeled"]
    assert [metrics["seed"] for metrics in summary.runs["fixmatch"]] == [3, 4]
    shutil.rmtree(folder / "seed-4")
    heard: list[str] = []
    again = experiment(reopened(folder), resume=folder, say=heard.append, quiet=True, report=False)
    assert sum("finished before" in line for line in heard) == 2
    assert again.verdict == summary.verdict


def test_labels_only_methods_have_no_baseline_and_no_verdict(source: Path, tmp_path: Path) -> None:
    summary = run(tmp_path / "plain", source, "method=supervised", "steps=4", report=False)
    assert summary.verdict is None
    assert not (tmp_path / "plain" / "baseline").exists()
    assert not (tmp_path / "plain" / "verdict.json").exists()


def test_the_baseline_can_be_skipped(source: Path, tmp_path: Path) -> None:
    summary = run(tmp_path / "alone", source, "baseline=false", "steps=4", report=False)
    assert summary.verdict is None
    assert list(summary.runs) == ["uncertainty_weighted"]


def test_without_unlabeled_images_it_falls_back_and_says_so(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "data", each=12, unlabeled=0)
    heard: list[str] = []
    config = settings(f"data.source={source}", "steps=4", "method=freematch", "labels_per_class=none")
    summary = experiment(config, out=tmp_path / "run", say=heard.append, quiet=True)
    assert heard[0] == "note: There are no unlabelled images: training falls back to supervised, on the labels alone."
    told = "There are no unlabelled images: training supervised_strong on the labels alone instead of freematch."
    assert told in heard
    assert list(summary.runs) == ["supervised_strong"]
    assert summary.verdict is not None
    assert summary.verdict["sentence"] == "Cannot tell whether unlabelled images help: there are none."
    assert read(tmp_path / "run" / "verdict.json")["answer"] == "cannot tell"
    assert not (tmp_path / "run" / "baseline").exists()


def test_without_a_test_split_the_verdict_is_on_validation_images_and_says_so(source: Path, tmp_path: Path) -> None:
    summary = run(tmp_path / "run", source, "test=0", "val=30", "steps=4")
    assert summary.verdict is not None
    assert (summary.verdict["n"], summary.verdict["split"]) == (30, "val")
    assert summary.verdict["sentence"].endswith("These were the validation images: there is no test split.")
    assert read(tmp_path / "run" / "metrics.json")["test"] == {}


def test_without_any_held_out_label_nothing_is_measured(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "data", each=1, unlabeled=12)
    config = settings(f"data.source={source}", "steps=4", "labels_per_class=none")
    summary = experiment(config, out=tmp_path / "run", say=lambda line: None, quiet=True)
    assert summary.verdict is not None
    assert "no held-out image has a label" in summary.verdict["sentence"]
    metrics = read(tmp_path / "run" / "metrics.json")
    assert (metrics["test"], metrics["val"], metrics["best"], metrics["temperature"]) == ({}, {}, None, 1.0)


def test_mistakes_come_up_before_a_folder_is_made(source: Path, tmp_path: Path) -> None:
    for overrides, kind, text in (
        (["model=wrn_28_2", "model.options.nrom_momentum=0.9"], UsageError, "Did you mean 'norm_momentum'?"),
        (["labels_per_class=300"], DataError, "but 300 are asked for"),
        ([f"data.source={source}x"], DataError, "no such file or folder"),
    ):
        config = settings(f"data.source={source}", *overrides)
        with pytest.raises(kind, match=text.replace("?", r"\?")):
            experiment(config, out=tmp_path / "never", say=lambda line: None)
        assert not (tmp_path / "never").exists()
    with pytest.raises(UsageError, match=r"No data was given\. Say where the images are: sfumato train photos/"):
        experiment(settings(), out=tmp_path / "never", say=lambda line: None)


TAUGHT = [name for name, entry in METHODS.items() if not entry.dense_only and describe(name).views.teacher == "ema"]


@pytest.mark.parametrize("asked", [*TAUGHT, "simmatch method.encoder=average", "mean_teacher addon=abc"])
def test_a_method_whose_teacher_is_an_average_is_refused_where_there_is_none(source: Path, asked: str) -> None:
    overrides = (f"data.source={source}", *f"method={asked}".split())
    with pytest.raises(UsageError, match=r"an average of the weights, and there is none\. Set ema above 0"):
        rehearsal(settings(*overrides, "ema=0"))
    rehearsal(settings(*overrides, "ema=0.9"))


def test_a_rehearsal_tells_all_and_trains_nothing(source: Path, tmp_path: Path) -> None:
    text = rehearsal(settings(f"data.source={source}", "method=fixmatch"))
    assert text.startswith("# 130 images of 3 classes: 9 labeled, 94 unlabeled, 18 val, 18 test\n")
    path = tmp_path / "dry.yaml"
    path.write_text(text)
    assert load(path).model.name == "small"


def test_memory_that_runs_out_is_told_with_what_to_try(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(part_module, "train", fail)
    with pytest.raises(UsageError, match="Train in smaller pieces with the same gradient, accumulate=2"):
        run(tmp_path / "x", source)

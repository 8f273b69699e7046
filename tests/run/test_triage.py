"""Wrong labels from the command to the list of suspects: drawn, trained on, recorded, found."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.batches import Part
from sfumato.config import load
from sfumato.data import Splits
from sfumato.image_data import ImageData
from sfumato.run import experiment, prepare, triage
from sfumato.run.experiment import Summary
from sfumato.types import ViewSpec

SETTINGS = [
    "data=digits", "labels=300", "noise=0.2", "method=supervised", "steps=60", "eval_every=15", "batch_size=32",
    "save_every=30",
]  # fmt: skip


def quietly(folder: Path, *more: str) -> Summary:
    given = {text.partition("=")[0]: text for text in (*SETTINGS, *more)}
    return experiment(load(overrides=list(given.values())), out=folder, say=lambda _: None, quiet=True, report=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quietly(tmp_path_factory.mktemp("runs") / "noisy").folder


def metrics(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text()))


def test_the_wrong_labels_are_listed_with_what_they_may_be(folder: Path) -> None:
    with (folder / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == triage.COLUMNS
    found, wrong = metrics(folder)["suspects"], json.loads((folder / "splits.json").read_text())["wrong_labels"]
    assert len(wrong) == metrics(folder)["wrong_labels"] == 60
    assert (found["listed"], found["labels"], found["evaluations"]) == (len(rows), 300, 4)
    assert 0.6 < found["agreement"] < 0.9  # of the labels 80 % are right
    right = [row for row in rows if row["file"] in wrong]
    assert found["precision"] == len(right) / len(rows) > 0.7
    assert found["recall"] == len(right) / 60 > 0.6
    assert all(row["label"] == str(wrong[row["file"]]) for row in right)  # as it was given in training
    assert sum(row["suggested"] == row["file"].split("/")[0] for row in right) > 0.8 * len(right)
    margins = [float(row["margin"]) for row in rows]
    assert margins == sorted(margins)
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))


def test_counts_of_each_class_are_kept(folder: Path) -> None:
    counts = metrics(folder)["class_counts"]
    assert counts["labeled"] == [30] * 10  # by the right labels
    assert sum(counts["unlabeled"]) == metrics(folder)["images"]["unlabeled"]
    assert sum(counts["test"]) == metrics(folder)["images"]["test"]


def data_of(folder: Path) -> ImageData:
    config = prepare.settled(load(folder / "config.yaml"), prepare.open_table(load(folder / "config.yaml")))
    table = prepare.open_table(config)
    splits = Splits.load(folder / "splits.json", table)
    data = prepare.make_data(config, table, splits, prepare.make_model(config, table))
    assert isinstance(data, ImageData)
    return data


def test_training_sees_the_wrong_labels_and_telemetry_test_and_validation_the_right_ones(folder: Path) -> None:
    data = data_of(folder)
    splits, right = data.splits, data.table.labels
    rows = splits.labeled
    read = data.read(Part(rows, rows * 0, 0, labeled=True))
    y = data.labeled(Part(rows, rows * 0, 0, labeled=True), read, ViewSpec()).y
    assert int((y.numpy() != right[rows]).sum()) == 60
    assert data.label_counts().sum() == 300
    assert torch.equal(data.label_counts(), torch.bincount(y, minlength=10))
    for part in ("val", "test"):
        held = getattr(splits, part)
        assert (data.labels[held] == right[held]).all()
    unlabeled = splits.unlabeled
    truth = data.read(Part(unlabeled, unlabeled * 0, 0, labeled=False))[1].numpy()
    assert ((truth == right[unlabeled]) | (truth == -1)).all()


def test_a_resumed_run_ends_with_the_same_list(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato import train as loop

    asked: list[int] = []

    class StopHalfway(loop.StopRequest):  # type: ignore[name-defined, misc]
        @property
        def asked(self) -> bool:
            asked.append(1)
            return len(asked) == 30

        @asked.setter
        def asked(self, _: bool) -> None:
            pass

    monkeypatch.setattr(loop, "StopRequest", StopHalfway)
    with pytest.raises(loop.Interrupted):
        quietly(tmp_path / "run")
    monkeypatch.undo()
    experiment(load(tmp_path / "run" / "config.yaml"), resume=tmp_path / "run", say=lambda _: None, quiet=True)
    assert (tmp_path / "run" / "suspects.csv").read_bytes() == (folder / "suspects.csv").read_bytes()


def test_noise_in_validation_changes_what_is_measured_there_alone(folder: Path, tmp_path: Path) -> None:
    plain, noisy = metrics(folder), metrics(quietly(tmp_path / "val", "noise_val=true").folder)
    assert noisy["test"] == plain["test"]
    assert noisy["val"]["acc"] < plain["val"]["acc"] - 0.1
    assert noisy["suspects"] == plain["suspects"]


def test_too_many_labels_are_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.image_data.LARGEST", 299)
    found = quietly(tmp_path / "run", "steps=2")
    assert metrics(found.folder)["suspects"] is None
    assert not (found.folder / "suspects.csv").exists()

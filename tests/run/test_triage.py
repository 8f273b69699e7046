"""Wrong labels from the command to the list of suspects: drawn, trained on, recorded, found."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.batches import Part
from sfumato.config import load
from sfumato.data import Splits
from sfumato.image_data import ImageData
from sfumato.run import experiment, prepare, rehearsal, triage
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


def test_the_suspects_are_counted_by_label_and_suggested_class(folder: Path) -> None:
    with (folder / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = metrics(folder)["suspects"]
    counts = Counter((row["label"], row["suggested"]) for row in rows)
    assert {(one["label"], one["suggested"]): one["count"] for one in found["pairs"]} == counts
    assert found["kinds"] == len(counts) > 5
    assert [one["count"] for one in found["pairs"]] == sorted(counts.values(), reverse=True)
    data = data_of(folder)
    given = Counter(data.classes[label] for label in data.labels[data.splits.labeled])
    assert all(one["of"] == given[one["label"]] for one in found["pairs"])


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
    """The run says so before it trains, and so does the report."""
    monkeypatch.setattr("sfumato.label_history.LARGEST", 299)
    told: list[str] = []
    overrides = [*SETTINGS[:4], "steps=2"]
    found = experiment(load(overrides=overrides), out=tmp_path / "run", say=told.append, quiet=True)
    line = "No list of labels to doubt (suspects.csv): it is for up to 299 labels, and there are 300."
    assert told.index(f"note: {line}") < told.index(f"Writing to {found.folder}")
    assert metrics(found.folder)["suspects"] == {"labels": 300, "limit": 299}
    assert not (found.folder / "suspects.csv").exists()
    assert found.report is not None
    assert "which is done for up to 299 labels, and there are 300." in found.report.read_text()
    assert f"# {line}" in rehearsal(load(overrides=overrides)).splitlines()

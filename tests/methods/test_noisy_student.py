"""Noisy Student: a student's loss by hand, its options, and rounds of labels that are distributions."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from sfumato.batches import Part
from sfumato.config import load
from sfumato.data import Splits
from sfumato.errors import DataError, UsageError
from sfumato.forward import Nets
from sfumato.image_data import Distributions
from sfumato.methods import Facts, build
from sfumato.models import load_weights
from sfumato.run import Summary, experiment, label_files, prepare, reopened
from sfumato.teacher import Ema
from sfumato.types import Progress, Pseudo, ViewSpec
from tests.methods.problems import CLASSIFICATION, Echo, logits_batch
from tests.run.pictures_on_disk import class_folders
from tests.train import tiny

C = 5
SMALL = (
    "steps=4", "batch_size=6", "unlabeled_ratio=2", "labels_per_class=3", "val=6", "test=6", "eval_every=4",
    "save_every=2", "log_every=2", "baseline=false", "method=noisy_student", "method.rounds=3",
)  # fmt: skip


@pytest.mark.parametrize("mean", ["union", "each"])
def test_the_loss_is_the_cross_entropy_with_the_teachers_probabilities(mean: str) -> None:
    method = build("noisy_student", Facts(C, 64), {"mean": mean, "labeled_strong": False}).double()
    batch = logits_batch(CLASSIFICATION, method.views, labeled=3, unlabeled=4, void=0.0)
    assert batch.unlabeled is not None
    p = torch.softmax(torch.randn(4, C, generator=torch.Generator().manual_seed(3)).double(), dim=1)
    stored = Pseudo(p, torch.ones(4), torch.tensor([1.0, 1, 0, 1]))
    batch = replace(batch, unlabeled=replace(batch.unlabeled, stored=stored, valid=torch.ones(4)))
    net = Echo().double()
    losses = method.loss(Nets(net, Ema(net)), batch, Progress(1, 9))
    each = [-(p[i] * torch.log_softmax(batch.unlabeled.strong[0][i].double().flatten(), 0)).sum() for i in (0, 1, 3)]
    labels = [-torch.log_softmax(batch.labeled.x[i].double().flatten(), 0)[batch.labeled.y[i]] for i in range(3)]
    share = 3 / 6 if mean == "union" else 1.0
    assert losses.unsupervised.item() == pytest.approx(share * float(sum(each)) / 3)
    assert losses.supervised.item() == pytest.approx(share * float(sum(labels)) / 3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rounds": 1}, "noisy_student.rounds=1: expected 2 or more, a teacher and a student."),
        ({"threshold": 1.0}, "noisy_student.threshold=1.0: expected a confidence from 0 to below 1, such as 0.3."),
        ({"per_class": 0}, "noisy_student.per_class=0: expected a number of images, or none for all."),
    ],
)
def test_options_out_of_range(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        build("noisy_student", Facts(C), options)
    assert str(caught.value) == text


@pytest.mark.parametrize("name", ["noisy_student", "self_training"])
def test_for_one_class_per_image_only(name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} is for one class per image only.*For masks, method=st"):
        build(name, Facts(C, dense=True))


def test_distributions_are_read_by_row_and_given_as_the_target() -> None:
    given = tiny.data()
    rows = np.setdiff1d(given.splits.unlabeled, given.splits.labeled)[:3]
    stored, place = np.full(len(given.table), -1), np.full(len(given.table), -1)
    stored[rows], place[rows] = [1, 0, 2], [2, 0, 1]
    p = np.random.default_rng(0).random((3, given.num_classes), dtype=np.float32)
    filled = replace(given, stored=stored, distributions=Distributions(p, place))
    part = Part(rows, np.arange(3), 0, False)
    found, _ = filled.unlabeled(part, filled.read(part), ViewSpec(stored=True))
    assert found.stored is not None
    assert torch.equal(found.stored.target, torch.from_numpy(p[[2, 0, 1]]))
    assert found.stored.valid.tolist() == [1, 1, 1]


# Whole runs


def run(folder: Path, source: Path, *overrides: str, heard: list[str] | None = None) -> Summary:
    texts = {text.partition("=")[0]: text for text in (f"data.source={source}", *SMALL, *overrides)}
    told = [] if heard is None else heard
    return experiment(load(overrides=list(texts.values())), out=folder, say=told.append, quiet=True, report=False)


def go_on(folder: Path) -> Summary:
    return experiment(reopened(folder), resume=folder, say=lambda _: None, quiet=True, report=False)


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), each=9, unlabeled=20)


@pytest.fixture(scope="module")
def students(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder, heard = tmp_path_factory.mktemp("runs") / "run", []
    run(folder, source, "method.per_class=7", "method.threshold=0", heard=heard)
    return folder, heard


def test_each_student_is_trained_on_the_labels_of_the_network_before(students: tuple[Path, list[str]]) -> None:
    folder, heard = students
    assert "noisy_student, seed 0: 3 rounds of 4 steps, 12 in all" in heard
    config = reopened(folder)
    table = prepare.open_table(config)
    splits = Splits.load(folder / "splits.json", table)
    rows = np.setdiff1d(splits.unlabeled, splits.labeled)
    for number in ("1", "2"):
        place = folder / "rounds" / number
        net = prepare.make_model(config, table)
        load_weights(net, place / "weights.safetensors")
        data = prepare.make_data(config, table, splits, net)
        wanted = torch.softmax(data.predict(net, rows, torch.device("cpu"))[0], dim=1)  # type: ignore[attr-defined]
        kept = np.load(place / "distributions.npy")
        torch.testing.assert_close(torch.from_numpy(kept), wanted)
        with (place / "labels.csv").open(newline="") as file:
            told = list(csv.DictReader(file))
        assert [row["file"] for row in told] == [table.names[row] for row in rows]
        assert [row["label"] for row in told] == [table.classes[c] for c in kept.argmax(axis=1)]
        predicted = len(set(kept.argmax(axis=1).tolist()))
        after = read(folder / "metrics.json")["rounds"][1] if number == "1" else read(folder / "metrics.json")
        assert after["images"]["unlabeled"] == 7 * predicted
    assert [one["method"] for one in read(folder / "metrics.json")["rounds"]] == ["supervised_strong", "noisy_student"]


def test_a_continued_run_labels_nothing_again(students: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(students[0], folder)
    for name in ("metrics.json", "weights.safetensors", "card.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfumato.run.rounds.probabilities", lambda *_: pytest.fail("labeled again"))
        go_on(folder)
    one, other = (safetensors.torch.load_file(place / "weights.safetensors") for place in (students[0], folder))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_soft_labels_and_hard_ones_make_other_students(
    students: tuple[Path, list[str]], source: Path, tmp_path: Path
) -> None:
    run(tmp_path / "hard", source, "method.per_class=7", "method.threshold=0", "method.target=hard")
    one, other = (
        safetensors.torch.load_file(folder / "rounds" / "2" / "weights.safetensors")
        for folder in (students[0], tmp_path / "hard")
    )
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_labels_that_nobody_is_sure_of_are_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"network of round 1 is not sure enough of any image.*lower method\.threshold"
    ):
        run(tmp_path / "run", source, "method.threshold=0.99999")


def test_a_broken_file_of_distributions_is_named(students: tuple[Path, list[str]], tmp_path: Path) -> None:
    np.save(tmp_path / label_files.DISTRIBUTIONS, np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(DataError, match=r"probabilities \(2, 3\), expected \(4, 3\)\. Delete it and labels\.csv"):
        label_files.read_distributions(tmp_path, np.arange(4), 3)
    (tmp_path / label_files.DISTRIBUTIONS).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"distributions\.npy: not readable .* Delete it and labels\.csv"):
        label_files.read_distributions(tmp_path, np.arange(4), 3)

"""CReST and classic self-training as whole runs: what joins the labeled set, and that stopping changes nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
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
from sfumato.functional.selection import progressive_power, surest_of_each_class
from sfumato.image_data import ImageData
from sfumato.models import load_weights
from sfumato.rules import ProgressiveAlignment
from sfumato.run import Summary, experiment, files, generations, prepare, rehearsal, reopened
from sfumato.train import Interrupted
from sfumato.types import ViewSpec
from tests.run.pictures_on_disk import class_folders

SMALL = (
    "steps=4", "batch_size=6", "unlabeled_ratio=2", "gamma_labeled=3", "head_labeled=6", "val=6", "test=6",
    "eval_every=4", "save_every=2", "log_every=2", "baseline=false", "class_order=[middle,right,left]",
)  # fmt: skip
CREST = ("method=fixmatch", "addon=crest", "addon.generations=3")
CLASSIC = ("method=self_training", "method.k_best=8", "method.rounds=3", "method.base=supervised")
OF_TIME = ("seconds", "cpu_seconds", "rounds")


def config_of(source: Path, *overrides: str):
    texts = {text.partition("=")[0]: text for text in (f"data.source={source}", *SMALL, *overrides)}
    return load(overrides=list(texts.values()))


def run(folder: Path, source: Path, *overrides: str, heard: list[str] | None = None) -> Summary:
    told = [] if heard is None else heard
    return experiment(config_of(source, *overrides), out=folder, say=told.append, quiet=True, report=False)


def go_on(folder: Path, heard: list[str] | None = None) -> Summary:
    told = [] if heard is None else heard
    return experiment(reopened(folder), resume=folder, say=told.append, quiet=True, report=False)


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def places(folder: Path) -> list[Path]:
    return [*sorted((folder / "rounds").iterdir()), folder]


def weights(place: Path) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(place / "weights.safetensors"))


def assert_same(one: Path, other: Path) -> None:
    assert [place.name for place in places(one)[:-1]] == [place.name for place in places(other)[:-1]]
    for a, b in zip(places(one), places(other), strict=True):
        left, right = weights(a), weights(b)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
        assert files.metrics_of(a) is not None
        figures = [{k: v for k, v in read(place / "metrics.json").items() if k not in OF_TIME} for place in (a, b)]
        assert figures[0] == figures[1]
        assert a == one or (a / "joined.csv").read_bytes() == (b / "joined.csv").read_bytes()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), each=14, unlabeled=20)


@pytest.fixture(scope="module")
def crest(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder, heard = tmp_path_factory.mktemp("runs") / "crest", []
    run(folder, source, *CREST, heard=heard)
    return folder, heard


@pytest.fixture(scope="module")
def classic(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder, heard = tmp_path_factory.mktemp("runs") / "classic", []
    run(folder, source, *CLASSIC, heard=heard)
    return folder, heard


def opened(folder: Path, place: Path) -> tuple[ImageData, torch.nn.Module]:
    """The data of a run and the network of one of its generations."""
    config = reopened(folder)
    known = prepare.open_table(config)
    net = prepare.make_model(config, known)
    load_weights(net, place / "weights.safetensors")
    splits = Splits.load(folder / "splits.json", known)
    data = prepare.make_data(config, known, splits, net)
    assert isinstance(data, ImageData)
    return data, net


def test_three_generations_are_told_and_kept(crest: tuple[Path, list[str]]) -> None:
    folder, heard = crest
    assert "fixmatch+crest, seed 0: 3 generations of 4 steps, 12 in all" in heard
    assert any("generation 1 of 3: 4 steps on 11 labelled and " in line for line in heard)
    joined = [table(folder / "rounds" / number / "joined.csv") for number in ("1", "2")]
    assert any(f"generation 2 of 3: 4 steps on 11 labelled, {len(joined[0])} joined and " in line for line in heard)
    metrics = read(folder / "metrics.json")
    assert [one["method"] for one in metrics["rounds"]] == ["fixmatch+crest"] * 2
    joining = [one.get("joined", {}).get("images", 0) for one in (*metrics["rounds"], metrics)]
    assert joining == [0, len(joined[0]), len(joined[1])]
    assert {one["images"]["labeled"] for one in (*metrics["rounds"], metrics)} == {11}
    assert sum(metrics["class_counts"]["joined"]) == len(joined[1])
    assert sum(metrics["class_counts"]["labeled"]) == 11
    assert metrics["rounds"][0]["seconds"] < metrics["rounds"][1]["seconds"] < metrics["seconds"]


def test_the_averaged_network_labels_images_as_they_are(crest: tuple[Path, list[str]]) -> None:
    """Of each class the surest share by its rank; nothing that another generation has picked is left over."""
    folder, _ = crest
    assert read(folder / "metrics.json")["class_counts"]["labeled"] == [2, 6, 3]  # no class has the rank of its number
    for number in ("1", "2"):
        place = folder / "rounds" / number
        data, net = opened(folder, place)
        rows = np.setdiff1d(data.splits.unlabeled, data.splits.labeled)
        prepared = data.augment.evaluation(data.table.images.load(rows))
        with torch.no_grad():
            p = torch.softmax(net.eval()(prepared).logits, dim=1)
        rates = torch.tensor([1.0, 2 / 6, 3 / 6], dtype=torch.float64) ** (1 / 3)
        found = surest_of_each_class(p, rates)
        told = table(place / "joined.csv")
        assert [row["file"] for row in told] == [data.names[row] for row in rows[found.numpy()]]
        assert [row["label"] for row in told] == [data.classes[c] for c in p.argmax(dim=1)[found].tolist()]
        for row, confidence in zip(told, p.max(dim=1).values[found].tolist(), strict=True):
            assert float(row["confidence"]) == pytest.approx(confidence, abs=1e-5)


def test_what_has_joined_is_trained_on_and_known_to_nothing_else(crest: tuple[Path, list[str]]) -> None:
    """Its label is that of the network in training; telemetry, suspects and validation have the truth or nothing."""
    data, _ = opened(crest[0], crest[0])
    labeled = data.splits.labeled
    row = next(row for row in np.setdiff1d(data.splits.unlabeled, labeled) if data.table.labels[row] >= 0)
    truth = int(data.table.labels[row])
    wrong, other = (truth + 1) % 3, int(labeled[0])
    joined = np.full(len(data.table), -1)
    joined[row] = wrong
    more = replace(data, joined=joined, splits=replace(data.splits, labeled=np.union1d(labeled, [row])))
    rows = np.array([other, row])
    place = Part(rows, np.arange(2), 0, True)
    seen = more.labeled(place, more.read(place), ViewSpec())
    assert seen.y.tolist() == [data.labels[other], wrong]
    assert more.splits.labeled[seen.index].tolist() == [other, row]
    place = Part(rows, np.arange(2), 0, False)
    _, known = more.unlabeled(place, more.read(place), ViewSpec())
    assert known.tolist() == [-1, truth]
    assert more.labels[row] == truth
    assert more.label_counts().sum() == len(labeled) + 1
    assert more.label_counts()[wrong] == data.label_counts()[wrong] + 1
    assert len(more.watched_labels()) == len(labeled)
    assert more.told()["joined"] == {"images": 1, "right": 0.0}
    assert more.told()["class_counts"]["labeled"] == data.told()["class_counts"]["labeled"]


def test_every_generation_begins_from_scratch(crest: tuple[Path, list[str]], source: Path, tmp_path: Path) -> None:
    """The first is the run of the method alone; no later one holds the best step or the weights of another."""
    run(tmp_path / "alone", source, "method=fixmatch")
    first, alone = (weights(place) for place in (crest[0] / "rounds" / "1", tmp_path / "alone"))
    assert all(torch.equal(first[key], alone[key]) for key in alone)
    for place in places(crest[0]):
        metrics, lines = read(place / "metrics.json"), (place / "metrics.jsonl").read_text().splitlines()
        values = [json.loads(line)["val/acc"] for line in lines if "val/acc" in line]
        assert metrics["best"]["val"]["acc"] == pytest.approx(max(values))


def at_step(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Stops as SIGTERM would, at the so many-th step of all generations."""

    def arm(patch: pytest.MonkeyPatch) -> None:
        done = iter(range(1, 100))
        patch.setattr(
            "sfumato.train.Reporter.step",
            lambda *_: signal.raise_signal(signal.SIGTERM) if next(done) == number else None,
        )

    return arm


def at_pick(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Stops before the file of what joins is written for the so many-th time."""

    def arm(patch: pytest.MonkeyPatch) -> None:
        keep, made = generations.write_joined, iter(range(1, 100))

        def write(*given: Any) -> None:
            if next(made) == number:
                raise KeyboardInterrupt
            keep(*given)

        patch.setattr(generations, "write_joined", write)

    return arm


def test_stopped_and_continued_is_the_run_that_was_not_stopped(
    crest: tuple[Path, list[str]], source: Path, tmp_path: Path
) -> None:
    assert_stopped_is_the_same(crest[0], source, tmp_path / "run", [at_step(3), at_pick(1), at_step(1)], CREST)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [*map(at_step, (4, 9, 12)), *map(at_pick, (1, 2))])
def test_crest_stopped_anywhere(crest: tuple[Path, list[str]], source: Path, tmp_path: Path, stop: Any) -> None:
    assert_stopped_is_the_same(crest[0], source, tmp_path / "run", [stop], CREST)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [*map(at_step, (4, 7)), at_pick(2)])
def test_self_training_stopped_anywhere(
    classic: tuple[Path, list[str]], source: Path, tmp_path: Path, stop: Any
) -> None:
    assert_stopped_is_the_same(classic[0], source, tmp_path / "run", [stop], CLASSIC)


def assert_stopped_is_the_same(whole: Path, source: Path, folder: Path, stops: list[Any], overrides: Any) -> None:
    for stop in stops:
        with pytest.MonkeyPatch.context() as patch:
            stop(patch)
            with pytest.raises(Interrupted, match="Continue with: sfumato train --resume"):
                go_on(folder) if folder.exists() else run(folder, source, *overrides)
    go_on(folder)
    assert_same(whole, folder)


@pytest.mark.slow
def test_two_ranks_agree_on_who_joins(source: Path, tmp_path: Path) -> None:
    for name, words in (
        ("crest", (*CREST[:2], "addon.generations=2")),
        ("classic", (*CLASSIC[:2], *CLASSIC[3:], "method.rounds=2")),
    ):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        given = [f"data.source={source}", *SMALL, *words, "--quiet", "--no-report", "--out", str(tmp_path / name)]
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "sfumato", "train", *given],
            check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        # Pseudo-labels of four steps may be called collapsed, which is no failure of the run.
        assert (tmp_path / name / "metrics.json").exists(), done.stderr[-4000:]
        told = table(tmp_path / name / "rounds" / "1" / "joined.csv")
        assert read(tmp_path / name / "metrics.json")["joined"]["images"] == len(told) > 0
        data, net = opened(tmp_path / name, tmp_path / name / "rounds" / "1")
        rows = np.array([data.names.index(row["file"]) for row in told])
        p = torch.softmax(data.predict(net, rows, torch.device("cpu"))[0], dim=1)
        assert [row["label"] for row in told] == [data.classes[c] for c in p.argmax(dim=1).tolist()]


def unfinished(whole: Path, folder: Path) -> Path:
    """A copy of the run whose last generation is still to come."""
    shutil.copytree(whole, folder)
    for name in ("metrics.json", "weights.safetensors", "card.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints")
    return folder


def test_nothing_is_labeled_twice_and_what_cannot_join_is_named(crest: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder = unfinished(crest[0], tmp_path / "run")
    path = folder / "rounds" / "2" / "joined.csv"
    kept = path.read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generations, "probabilities", lambda *_: pytest.fail("labeled again"))
        go_on(folder)
    assert_same(crest[0], folder)
    shutil.rmtree(folder)
    unfinished(crest[0], folder)
    first = table(path)[0]
    for change, text in (
        (
            (first["file"], "nowhere.png"),
            r"'nowhere\.png' is no image that may join\. Restore it, or delete .*rounds/2",
        ),
        ((f",{first['label']},", ",lift,"), r"has the label 'lift', which is no class\. Restore it"),
    ):
        path.write_text(kept.replace(*change))
        with pytest.raises(DataError, match=text):
            go_on(folder)


def test_in_crest_plus_the_power_sinks_and_the_average_begins_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    keep = generations.run_part

    def watched(*given: Any, lesson: Any, **more: Any) -> Any:
        def begin(method: Any) -> None:
            lesson.begin(method)
            (rule,) = (one for one in method.modules() if isinstance(one, ProgressiveAlignment))
            seen.append((rule.power, rule.prior.tolist(), bool(torch.equal(rule.model.value, torch.full((3,), 1 / 3)))))

        return keep(*given, lesson=replace(lesson, begin=begin), **more)

    monkeypatch.setattr(generations, "run_part", watched)
    run(tmp_path / "run", source, "method=softmatch", "addon=crest_plus", "addon.generations=3", "addon.t_min=0.2")
    assert [power for power, _, _ in seen] == pytest.approx([progressive_power(g, 3, 0.2) for g in (1, 2, 3)])
    assert [power for power, _, _ in seen] == pytest.approx([1, 0.6, 0.2])
    assert all(fresh for *_, fresh in seen)
    given = pytest.approx([2 / 11, 6 / 11, 3 / 11])  # whatever has joined them
    assert all(shares == given for _, shares, _ in seen)


def test_without_validation(source: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", source, *CREST, "val=0", "steps=2", "addon.rates=rank", "addon.alpha=1")
    assert read(tmp_path / "run" / "metrics.json")["best"] is None


def test_self_training_lets_the_surest_join_for_good(classic: tuple[Path, list[str]]) -> None:
    folder, heard = classic
    assert "self_training, seed 0: at most 3 rounds of 4 steps, 12 in all" in heard
    assert any(
        line.startswith("self_training, seed 0, round 2 of 3: 4 steps on 11 labelled, 8 joined") for line in heard
    )
    assert any(
        line.startswith("self_training, seed 0, round 3 of 3: 4 steps on 11 labelled, 16 joined") for line in heard
    )
    first, second = (table(folder / "rounds" / number / "joined.csv") for number in ("1", "2"))
    assert len(first) == len(second) == 8
    assert not {row["file"] for row in first} & {row["file"] for row in second}
    data, net = opened(folder, folder / "rounds" / "2")
    taken = {row["file"] for row in first}
    rows = np.setdiff1d(data.splits.unlabeled, data.splits.labeled)
    left = np.array([row for row in rows if data.names[row] not in taken])
    p = torch.softmax(data.predict(net, left, torch.device("cpu"))[0], dim=1)
    order = sorted(range(len(left)), key=lambda i: -float(p[i].max()))[:8]
    assert {row["file"] for row in second} == {data.names[left[i]] for i in order}


def test_self_training_ends_when_nothing_joins_any_more(source: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    folder = tmp_path / "run"
    run(folder, source, "method=self_training", "method.threshold=0.99999", "method.base=supervised", heard=heard)
    assert "self_training: no image is sure enough to join after round 1, which is the last one" in heard
    first = folder / "rounds" / "1"
    assert (folder / "weights.safetensors").read_bytes() == (first / "weights.safetensors").read_bytes()
    assert read(folder / "metrics.json") == read(first / "metrics.json")
    assert "rounds" not in read(folder / "metrics.json")
    go_on(folder, heard)
    assert heard[-1].startswith("self_training, seed 0: finished before")


def test_self_training_ends_when_nothing_is_left(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, source, "method=self_training", "method.threshold=0", "method.base=supervised")
    assert [place.name for place in (folder / "rounds").iterdir()] == ["1"]
    splits = read(folder / "splits.json")
    left = set(splits["unlabeled"]) - set(splits["labeled"])
    assert read(folder / "metrics.json")["joined"]["images"] == len(left)


def test_what_cannot_be_is_told_before_a_folder_is_made(source: Path, tmp_path: Path) -> None:
    for overrides, text in (
        (["method=fixmatch", "addon=crest", "addon.generations=0"], "crest.generations=0: expected 2 or more"),
        (["method=fixmatch", "addon=crest", "addon.alpha=0"], "crest.alpha=0.0: expected a number above 0, such as 3"),
        (["method=fixmatch", "addon=crest_plus", "addon.t_min=2"], "crest_plus.t_min=2.0: expected a power from 0"),
        (["method=st", "addon=crest"], "addon=crest trains the method in generations, and this method has rounds"),
        (["method=supervised", "addon=crest"], "addon=crest is for methods that see unlabeled images"),
        (["method=self_training", "method.threshold=0.5", "method.k_best=3"], "threshold=0.5 and k_best=3 are both g"),
        (["method=self_training", "method.k_best=0"], "self_training.k_best=0: expected a number of images"),
        (["method=self_training", "method.threshold=1"], "self_training.threshold=1.0: expected a confidence"),
        (["method=self_training", "method.rounds=1"], "self_training.rounds=1: expected 2 or more"),
        (
            ["method=self_training", "method.labeler=best", "val=0"],
            "self_training.labeler=best: there is no validation",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            run(tmp_path / "never", source, *overrides)
        assert text in str(caught.value)
        assert not (tmp_path / "never").exists()


def test_a_rehearsal_says_how_many_steps_there_are_in_all(source: Path) -> None:
    assert "# 3 generations of 4 steps, 12 in all\n" in rehearsal(config_of(source, *CREST))

"""SEVAL as whole runs: whose labels it learns from, and that stopping its two trainings anywhere changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from sfumato import checkpoint
from sfumato.config import load
from sfumato.errors import DataError, UsageError
from sfumato.run import prepare, rehearsal, reopened
from sfumato.run.held_labels import evaluations, halves, held_labels
from sfumato.train import Interrupted
from tests.run.masks_on_disk import with_masks
from tests.run.pictures_on_disk import class_folders
from tests.run.test_rounds import METRICS_OF_TIME, at_step, go_on, read, run

PLAIN = ("steps=6", "batch_size=4", "labels=15", "val=0.2", "eval_every=2", "save_every=1", "log_every=2")
SEVAL = ("method=fixmatch", "addon=seval", "method.threshold=0.3")
ESTIMATE, ONLINE = (*PLAIN, *SEVAL, "addon.val=split_estimate"), (*PLAIN, *SEVAL, "addon.val=split_online")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data"), each=16, unlabeled=12)


@pytest.fixture(scope="module")
def estimated(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run in two trainings that was not stopped, and what it said."""
    folder, heard = tmp_path_factory.mktemp("runs") / "seval", []
    run(folder, pictures, *ESTIMATE, heard=heard)
    return folder, heard


def method_state(folder: Path) -> dict[str, torch.Tensor]:
    """Of the method, in the last checkpoint."""
    path = checkpoint.latest(folder / "checkpoints").path
    assert path is not None
    return {key: value for group in checkpoint.load(path).tensors.values() for key, value in group.items()}


def record(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "curriculum.npz") as found:
        return dict(found)


def assert_same(one: Path, other: Path) -> None:
    for place in ("rounds/1", "."):
        first, second = (safetensors.torch.load_file(folder / place / "weights.safetensors") for folder in (one, other))
        assert all(torch.equal(first[key], second[key]) for key in first)
        left, right = (
            {key: value for key, value in read(folder / place / "metrics.json").items() if key not in METRICS_OF_TIME}
            for folder in (one, other)
        )
        assert left == right
    for key, value in record(one).items():
        assert np.array_equal(value, record(other)[key])


def test_two_trainings_the_second_on_all_labels(estimated: tuple[Path, list[str]]) -> None:
    folder, heard = estimated
    for told in (
        "fixmatch+seval, seed 0: 2 trainings of 6 steps, 12 in all; in the first half of the labels is held out: 9 to "
        "train on, 6 to learn from",
        "fixmatch+seval, seed 0, round 1 of 2: 6 steps on 9 labelled and 40 unlabelled images",
        "fixmatch+seval, seed 0, round 2 of 2: 6 steps on 15 labelled and 40 unlabelled images",
    ):
        assert any(line.startswith(told) for line in heard), heard
    first, last = read(folder / "rounds" / "1" / "metrics.json"), read(folder / "metrics.json")
    assert first["images"] | {"labeled": 15} == last["images"]
    assert [one["images"]["labeled"] for one in last["rounds"]] == [9]
    assert last["seconds"] > first["seconds"]
    assert last["method"] == "fixmatch+seval"


def test_the_record_holds_every_evaluation_and_is_what_the_second_training_follows(
    estimated: tuple[Path, list[str]],
) -> None:
    folder, _ = estimated
    found = record(folder)
    assert found["steps"].tolist() == [2, 4, 6]
    assert found["offsets"].shape == found["thresholds"].shape == (3, 3)
    assert np.abs(found["offsets"]).max(axis=1).all()
    learned, followed = method_state(folder / "rounds" / "1"), method_state(folder)
    (history,) = (value for key, value in learned.items() if key.endswith("history"))
    (schedule,) = (value for key, value in followed.items() if key.endswith("schedule"))
    assert np.array_equal(history[:, 0].numpy(), found["offsets"])
    assert torch.equal(schedule[1:], history)
    assert not any(key.endswith("history") for key in followed)
    (row,) = (value for key, value in followed.items() if key.endswith("row"))
    assert int(row) == 3


def test_the_record_decides_the_second_training(estimated: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Thresholds above 1 let no pseudo-label pass."""
    folder = tmp_path / "run"
    shutil.copytree(estimated[0], folder)
    for name in ("metrics.json", "weights.safetensors", "card.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints")
    found = record(folder)
    np.savez(folder / "curriculum.npz", **found | {"thresholds": 0 * found["thresholds"] + 2})
    go_on(folder)
    first, second = (safetensors.torch.load_file(place / "weights.safetensors") for place in (estimated[0], folder))
    assert any(not torch.equal(first[key], second[key]) for key in first)
    lines = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if "pl/coverage" in line]
    assert '"pl/coverage": 0.0' in lines[-1]


def test_stopped_and_continued_is_the_run_that_was_not_stopped(
    estimated: tuple[Path, list[str]], pictures: Path, tmp_path: Path
) -> None:
    """In the first training, between an evaluation and the next, after it, and in the second."""
    folder = tmp_path / "run"
    for stop in (at_step(3), at_step(3), at_step(1)):
        with pytest.MonkeyPatch.context() as patch:
            stop(patch)
            with pytest.raises(Interrupted) as caught:
                go_on(folder) if folder.exists() else run(folder, pictures, *ESTIMATE)
        assert str(caught.value).endswith(f"Continue with: sfumato train --resume {folder}")
    go_on(folder)
    assert_same(estimated[0], folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 13))
def test_stopped_anywhere(estimated: tuple[Path, list[str]], pictures: Path, tmp_path: Path, number: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_step(number)(patch)
        with pytest.raises(Interrupted):
            run(tmp_path / "run", pictures, *ESTIMATE)
    go_on(tmp_path / "run")
    assert_same(estimated[0], tmp_path / "run")


def test_without_validation_the_second_training_ends_on_the_last_row_too(pictures: Path, tmp_path: Path) -> None:
    """What is kept has the offsets of the last evaluation in its bias."""
    run(tmp_path / "run", pictures, *ESTIMATE, "val=0")
    (row,) = (value for key, value in method_state(tmp_path / "run").items() if key.endswith("row"))
    assert int(row) == 3


def test_a_finished_run_is_left_alone(estimated: tuple[Path, list[str]]) -> None:
    before = {path: path.stat().st_mtime_ns for path in estimated[0].rglob("*.*")}
    heard: list[str] = []
    go_on(estimated[0], heard)
    assert any(line.startswith("fixmatch+seval, seed 0: finished before") for line in heard)
    changed = [path.name for path in before if path.stat().st_mtime_ns != before[path]]
    assert set(changed) <= {"config.yaml"}


def test_a_broken_record_is_named(estimated: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(estimated[0], folder)
    (folder / "metrics.json").unlink()
    good = record(folder)
    (folder / "curriculum.npz").write_bytes(b"nothing")
    with pytest.raises(
        DataError, match=r"curriculum\.npz: what the first training has learned cannot be read .*Delete"
    ):
        go_on(folder)
    np.savez(folder / "curriculum.npz", **good | {"steps": np.array([1, 2, 3])})
    with pytest.raises(DataError, match=r"recorded after steps \[1, 2, 3\]\.\.\., expected \[2, 4, 6\]"):
        go_on(folder)


def test_half_of_the_labels_teach_in_place_of_the_validation_split(pictures: Path, tmp_path: Path) -> None:
    """Validation, where there is any, is measured on and not learned from."""
    heard: list[str] = []
    run(tmp_path / "with", pictures, *ONLINE, heard=heard)
    run(tmp_path / "without", pictures, *ONLINE, "val=0", "labels=15")
    metrics = read(tmp_path / "with" / "metrics.json")
    assert metrics["images"]["labeled"] == 9
    assert metrics["images"]["val"] > 0
    assert metrics["val"]
    assert any("half of the labels is held out: 9 to train on, 6 to learn from" in line for line in heard)
    for name in ("with", "without"):
        (count,) = (
            value for key, value in method_state(tmp_path / name).items() if key.endswith("offsets.evaluations")
        )
        assert int(count) == 3, "it learned at every evaluation"


def test_halves_are_of_each_class_and_the_same_each_time(pictures: Path) -> None:
    config = prepare.located(load(overrides=[f"data.source={pictures}", *ONLINE]))
    table = prepare.open_table(config)
    splits = prepare.draw(config, table)
    kept, held = halves(table, splits, 0)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), splits.labeled)
    assert np.bincount(table.labels[held]).tolist() == [2, 2, 2]
    assert np.bincount(table.labels[kept]).tolist() == [3, 3, 3]
    assert np.array_equal(halves(table, splits, 0)[1], held)
    assert not np.array_equal(halves(table, splits, 1)[1], held)


def test_classes_with_too_few_labels_are_told_and_do_not_stop_it(pictures: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    run(tmp_path / "run", pictures, *ESTIMATE, "labels=4", heard=heard)
    told = "\n".join(heard)
    assert "classes with fewer than 10 held-out labels share a threshold with others as frequent: 1 (" in told
    assert "classes without any held-out label have no offset, and the threshold of the rarest others: 2 (" in told
    assert np.isfinite(record(tmp_path / "run")["offsets"]).all()
    assert read(tmp_path / "run" / "metrics.json")["images"]["labeled"] == 4


def test_masks(tmp_path: Path) -> None:
    source = with_masks(tmp_path / "data", labeled=10, unlabeled=6, sizes=((20, 16),))
    plain = [text for text in ESTIMATE if not text.startswith(("labels", "method.threshold"))]
    run(tmp_path / "run", source, *plain, "labels=5", "val=0", "test=2", "batch_size=2", "data.task=segmentation")
    assert read(tmp_path / "run" / "rounds" / "1" / "metrics.json")["images"]["labeled"] == 3
    assert record(tmp_path / "run")["offsets"].any()


def test_what_cannot_be_is_told_before_a_folder_is_made(pictures: Path, tmp_path: Path) -> None:
    for overrides, text in (
        (["val=0"], r"fixmatch\+seval learns from the labels of the validation split \(addon.val=extra\), and there is "
                    r"none\. Let it hold out half of the training labels: addon\.val=split_estimate"),
        (["labels=3", "addon.val=split_online"], r"addon\.val=split_online: half of the labels is to be held out, and "
                                                 r"no class has 2 labels\. Label more, or learn from the validation"),
        (["addon.tau_groups=0"], r"tau_groups=0: expected a number of groups, 1 or more, or None"),
        (["addon.target_precision=2"], r"target_precision=2\.0: expected a precision above 0 and up to 1"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=text):
            run(tmp_path / "never", pictures, *PLAIN, *SEVAL, *overrides)
        assert not (tmp_path / "never").exists()


def test_a_rehearsal_says_what_is_done_with_the_labels(pictures: Path) -> None:
    text = rehearsal(load(overrides=[f"data.source={pictures}", *ESTIMATE]))
    assert "# 2 trainings of 6 steps, 12 in all; in the first half of the labels is held out: 9 to train on" in text
    assert "# classes with fewer than 10 held-out labels share a threshold with others as frequent: 3 ('left'," in text
    text = rehearsal(load(overrides=[f"data.source={pictures}", *PLAIN, *SEVAL]))
    assert "half of the labels" not in text
    assert "# classes with fewer than 10 held-out labels share a threshold" in text
    text = rehearsal(load(overrides=[f"data.source={pictures}", *PLAIN, "method=fixmatch"]))
    assert "held-out" not in text


def test_evaluations_are_those_of_the_loop(estimated: tuple[Path, list[str]]) -> None:
    config = reopened(estimated[0])
    assert evaluations(config) == [2, 4, 6]
    odd = config.model_copy(update={"train": replace(config.train, eval_every=4)})
    assert evaluations(odd) == [4, 6]
    assert held_labels(config.with_method("fixmatch"), prepare.open_table(config)) is None


@pytest.mark.slow
def test_two_ranks_write_one_record_and_follow_it(pictures: Path, tmp_path: Path) -> None:
    for ranks in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        words = (f"data.source={pictures}", "baseline=false", *ESTIMATE, "--quiet", "--out", str(tmp_path / str(ranks)))
        command = [sys.executable, *launcher, "-m", "sfumato", "train", *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-4000:]
    one, two = record(tmp_path / "1"), record(tmp_path / "2")
    assert np.array_equal(one["steps"], two["steps"])
    assert np.abs(one["offsets"] - two["offsets"]).max() < 0.2  # batch norm's statistics are each rank's own
    assert int(next(value for key, value in method_state(tmp_path / "2").items() if key.endswith("row"))) == 3


def test_what_is_told_of_the_best_network_is_of_its_weights(pictures: Path, tmp_path: Path) -> None:
    """The last network has learned offsets from the evaluation at which it was the best, without them."""
    folder = tmp_path / "run"
    run(folder, pictures, *PLAIN, *SEVAL, "eval_every=6")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (evaluated,), metrics = (one for one in records if "val/nll" in one), read(folder / "metrics.json")
    last, best = (safetensors.torch.load_file(folder / f"{name}.safetensors") for name in ("weights", "weights-best"))
    assert any(not torch.equal(last[key], best[key]) for key in last)
    assert metrics["best"]["step"] == 6
    assert metrics["best"]["val"]["nll"] == pytest.approx(evaluated["val/nll"], rel=1e-5)
    assert metrics["best"]["val"]["nll"] != pytest.approx(metrics["val"]["nll"], rel=1e-5)

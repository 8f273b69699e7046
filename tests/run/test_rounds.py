"""ST and ST++ as whole runs: what lies in the folder, and that stopping anywhere changes nothing."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from sfumato.config import load
from sfumato.data import Splits
from sfumato.errors import DataError, UsageError
from sfumato.functional.stability import most_stable
from sfumato.models import load_weights
from sfumato.run import Summary, experiment, mask_files, prepare, rehearsal, reopened
from sfumato.train import Interrupted
from tests.run.masks_on_disk import with_masks
from tests.run.pictures_on_disk import class_folders

MASKS = (
    "steps=6", "batch_size=2", "unlabeled_ratio=2", "labels=4", "val=4", "test=4", "eval_every=3", "save_every=2",
    "log_every=2", "data.task=segmentation",
)  # fmt: skip
LABELS = ("steps=6", "batch_size=4", "labels_per_class=3", "eval_every=6", "save_every=2", "log_every=2")
METRICS_OF_TIME = ("seconds", "cpu_seconds", "rounds")


def run(folder: Path, source: Path | str, *overrides: str, heard: list[str] | None = None) -> Summary:
    """`overrides` win over those before them."""
    texts = {text.partition("=")[0]: text for text in (f"data.source={source}", "baseline=false", *overrides)}
    told = [] if heard is None else heard
    return experiment(load(overrides=list(texts.values())), out=folder, say=told.append, quiet=True, report=False)


def go_on(folder: Path, heard: list[str] | None = None) -> Summary:
    told = [] if heard is None else heard
    return experiment(reopened(folder), resume=folder, say=told.append, quiet=True, report=False)


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(path: Path, column: str = "file") -> list[str]:
    return [row[column] for row in table(path)]


def assert_same(one: Path, other: Path) -> None:
    """Every network, label and figure."""
    for place in (".", *(path.name for path in (one / "rounds").iterdir())):
        a, b = (folder / ("rounds" if place != "." else "") / place for folder in (one, other))
        first, second = (safetensors.torch.load_file(folder / "weights.safetensors") for folder in (a, b))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
        left, right = (
            {key: value for key, value in read(folder / "metrics.json").items() if key not in METRICS_OF_TIME}
            for folder in (a, b)
        )
        assert left == right
    files = [
        {
            path.relative_to(folder): path.read_bytes()
            for pattern in ("*.csv", "labels/**/*.png", "copies/*")
            for path in (folder / "rounds").glob(f"*/{pattern}")
        }
        for folder in (one, other)
    ]
    assert files[0] == files[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_masks(tmp_path_factory.mktemp("photos"), labeled=12, unlabeled=9, sizes=((20, 16), (24, 18)))


@pytest.fixture(scope="module")
def halves(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of ST++ that was not stopped, and what it said."""
    folder, heard = tmp_path_factory.mktemp("runs") / "st_pp", []
    run(folder, photos, "method=st_pp", *MASKS, heard=heard)
    return folder, heard


def test_st_pp_trains_three_times_and_labels_in_between(halves: tuple[Path, list[str]]) -> None:
    folder, heard = halves
    assert any("st_pp, seed 0: 3 rounds of 6 steps, 18 in all" in line for line in heard)
    for told in (
        "st_pp, seed 0, round 1 of 3: 6 steps on 4 labelled images",
        "st_pp, seed 0, round 2 of 3: 6 steps on 4 labelled and 4 pseudo-labelled images",
        "st_pp, seed 0, round 3 of 3: 6 steps on 4 labelled and 9 pseudo-labelled images",
    ):
        assert told in heard
    assert sorted(path.name for path in (folder / "rounds").iterdir()) == ["1", "2"]
    metrics = read(folder / "metrics.json")
    assert [one["method"] for one in metrics["rounds"]] == ["supervised_strong", "st_pp"]
    assert [one["images"]["unlabeled"] for one in metrics["rounds"]] == [13, 4]
    assert metrics["images"] == {"labeled": 4, "unlabeled": 9, "val": 4, "test": 4}
    assert metrics["rounds"][0]["seconds"] < metrics["rounds"][1]["seconds"] < metrics["seconds"]
    assert {"pl/coverage", "pl/precision"} <= {
        key for line in (folder / "metrics.jsonl").read_text().splitlines() for key in json.loads(line)
    }


def test_the_labels_are_index_images_with_the_names_and_sizes_of_their_images(
    halves: tuple[Path, list[str]], photos: Path
) -> None:
    folder, _ = halves
    labeled = read(folder / "splits.json")["labeled"]
    first, second = (folder / "rounds" / number for number in ("1", "2"))
    assert not {*names(first / "labels.csv")} & {*names(second / "labels.csv")}
    every = [*table(first / "labels.csv"), *table(second / "labels.csv")]
    assert sorted(row["file"] for row in every) == sorted(set(read(folder / "splits.json")["unlabeled"]) - set(labeled))
    for place in (first, second):
        for row in table(place / "labels.csv"):
            assert row["mask"] == f"labels/{row['file']}"
            with Image.open(place / row["mask"]) as mask, Image.open(photos / row["file"]) as image:
                assert mask.mode == "P"
                assert mask.size == image.size
                assert set(np.unique(np.asarray(mask)).tolist()) <= {0, 1}
        assert (place / "labels" / "classes.csv").read_text().startswith("name,r,g,b\n")


def test_the_most_stable_half_is_labelled_first(halves: tuple[Path, list[str]]) -> None:
    place = halves[0] / "rounds" / "1"
    told = table(place / "reliability.csv")
    values = torch.tensor([float(row["stability"]) for row in told], dtype=torch.float64)
    assert ((values >= 0) & (values <= 1)).all()
    chosen = [told[number]["file"] for number in most_stable(values, 0.5).tolist()]
    assert chosen == names(place / "labels.csv") == [row["file"] for row in told if row["round"] == "1"]
    assert names(halves[0] / "rounds" / "2" / "labels.csv") == [row["file"] for row in told if row["round"] == "2"]
    copies = sorted(path.name for path in (place / "copies").iterdir())
    assert copies == [f"step-{step:08d}.safetensors" for step in (2, 4, 6)]
    last = safetensors.torch.load_file(place / "copies" / copies[-1])
    kept = safetensors.torch.load_file(place / "weights.safetensors")
    assert all(torch.equal(last[key], kept[key]) for key in kept)


Stop = Callable[[pytest.MonkeyPatch], None]


def at_step(number: int) -> Stop:
    """Stops as SIGTERM would, at the so many-th step of all rounds."""

    def arm(patch: pytest.MonkeyPatch) -> None:
        done = iter(range(1, 100))

        def step(self: object, _: int) -> None:
            if next(done) == number:
                import signal

                signal.raise_signal(signal.SIGTERM)

        patch.setattr("sfumato.train.Reporter.step", step)

    return arm


def at_label(number: int) -> Stop:
    """Stops before the so many-th mask is written."""

    def arm(patch: pytest.MonkeyPatch) -> None:
        made = iter(range(1, 100))

        def indexed(*given: Any) -> Image.Image:
            if next(made) == number:
                raise KeyboardInterrupt
            return keep(*given)

        keep = mask_files.indexed
        patch.setattr(mask_files, "indexed", indexed)

    return arm


def while_comparing(patch: pytest.MonkeyPatch) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    patch.setattr("sfumato.run.label_files.write_reliability", stop)


def stopped(folder: Path, photos: Path, stops: list[Stop], *overrides: str) -> Iterator[str]:
    """Stops a run at each of these places in turn, and then lets it end."""
    for stop in stops:
        with pytest.MonkeyPatch.context() as patch:
            stop(patch)
            with pytest.raises(Interrupted) as caught:
                go_on(folder) if folder.exists() else run(folder, photos, *overrides)
        yield str(caught.value)
    go_on(folder)


def test_stopped_and_continued_is_the_run_that_was_not_stopped(
    halves: tuple[Path, list[str]], photos: Path, tmp_path: Path
) -> None:
    """In the first round, after it, while the second network labels, and in the last round."""
    folder = tmp_path / "run"
    stops = [at_step(1), while_comparing, at_label(6), at_step(1)]
    for told in stopped(folder, photos, stops, "method=st_pp", *MASKS):
        assert told.endswith(f"Continue with: sfumato train --resume {folder}")
    assert_same(halves[0], folder)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [*map(at_step, (3, 6, 9, 12, 15, 18)), *map(at_label, (1, 3, 5, 9))])
def test_stopped_anywhere(halves: tuple[Path, list[str]], photos: Path, tmp_path: Path, stop: Stop) -> None:
    list(stopped(tmp_path / "run", photos, [stop], "method=st_pp", *MASKS))
    assert_same(halves[0], tmp_path / "run")


def test_a_finished_run_is_left_alone(halves: tuple[Path, list[str]]) -> None:
    folder, _ = halves
    before = {path: path.stat().st_mtime_ns for path in (folder / "rounds").rglob("*.*")}
    heard: list[str] = []
    go_on(folder, heard)
    assert any(line.startswith("st_pp, seed 0: finished before") for line in heard)
    assert {path: path.stat().st_mtime_ns for path in (folder / "rounds").rglob("*.*")} == before


def unfinished(halves: tuple[Path, list[str]], folder: Path) -> Path:
    """A copy of the run whose last round is still to come."""
    shutil.copytree(halves[0], folder)
    for name in ("metrics.json", "weights.safetensors", "card.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints")
    return folder


def test_labels_are_not_made_twice(halves: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder = unfinished(halves, tmp_path / "run")
    labels = sorted((folder / "rounds").glob("*/labels/images/*.png"))
    kept = {path: path.stat().st_mtime_ns for path in labels[1:]}
    labels[0].unlink()
    (labels[0].parents[2] / "labels.csv").unlink()
    go_on(folder)
    assert {path: path.stat().st_mtime_ns for path in labels[1:]} == kept
    assert_same(halves[0], folder)


def test_the_network_of_a_round_labels_with_what_it_has_learned(halves: tuple[Path, list[str]], tmp_path: Path) -> None:
    """The second network is given other weights, of which only the labels after the second round can tell."""
    folder = unfinished(halves, tmp_path / "run")
    place = folder / "rounds" / "2"
    weights = safetensors.torch.load_file(place / "weights.safetensors")
    draw = torch.Generator().manual_seed(0)
    weights["classifier.weight"] = torch.randn(weights["classifier.weight"].shape, generator=draw)
    safetensors.torch.save_file(weights, place / "weights.safetensors")
    shutil.rmtree(place / "labels")
    (place / "labels.csv").unlink()
    go_on(folder)
    config = reopened(folder)
    known = prepare.open_table(config)
    model = prepare.make_model(config, known)
    load_weights(model, place / "weights.safetensors")
    data = prepare.make_data(config, known, Splits.load(folder / "splits.json", known), model)
    rows = np.array([known.names.index(name) for name in names(place / "labels.csv")])
    found = data.predictions([model], rows, torch.device("cpu"), flip=True)
    said = [mask.numpy() for _, (masks,) in found for mask in masks]
    for mask, row in zip(said, table(place / "labels.csv"), strict=True):
        assert set(np.unique(mask)) == {0, 1}
        with Image.open(place / row["mask"]) as written:
            assert np.array_equal(np.asarray(written), mask)


def test_labels_that_cannot_be_used_are_named(halves: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder = unfinished(halves, tmp_path / "run")
    path = sorted((folder / "rounds" / "1" / "labels" / "images").glob("*.png"))[1]
    with Image.open(path) as mask:
        width, height = mask.size
    path.unlink()
    mend = "If it was changed, put it back; or delete it and labels.csv beside the folder of masks"
    with pytest.raises(DataError) as caught:
        go_on(folder)
    assert str(caught.value).startswith(f"{path}: no such file. {mend}")
    Image.new("L", (height, width)).save(path)
    with pytest.raises(DataError) as caught:
        go_on(folder)
    assert str(caught.value).startswith(
        f"{path}: {height}x{width} pixels; its image is read at {width}x{height}. {mend}"
    )
    place = folder / "rounds" / "1"
    shutil.rmtree(place / "copies")
    (place / "reliability.csv").unlink()
    with pytest.raises(DataError, match=r"copies: 0 copies of the first network; expected 3\. Delete .*rounds/1"):
        go_on(folder)
    (place / "reliability.csv").write_text("file,stability,round\n")
    with pytest.raises(DataError, match=r"reliability\.csv: expected round 1 or 2 for '.*'\. Delete reliability\.csv"):
        go_on(folder)


def test_st_labels_every_image_after_the_first_round(photos: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    options = ("method=st", "method.first=supervised", "method.labeler=best", "method.flip=false")
    run(tmp_path / "run", photos, *options, *MASKS, heard=heard)
    assert "st, seed 0: 2 rounds of 6 steps, 12 in all" in heard
    assert [path.name for path in (tmp_path / "run" / "rounds").iterdir()] == ["1"]
    place = tmp_path / "run" / "rounds" / "1"
    assert len(names(place / "labels.csv")) == 9
    assert not (place / "reliability.csv").exists()
    assert not (place / "copies").exists()
    assert read(place / "metrics.json")["method"] == "supervised"


@pytest.mark.slow
def test_on_the_generated_shapes(tmp_path: Path) -> None:
    run(tmp_path / "run", "shapes", "method=st_pp", "steps=3", "batch_size=2", "labels=6", "eval_every=3")
    assert len(names(tmp_path / "run" / "rounds" / "1" / "labels.csv")) == 197
    assert len(names(tmp_path / "run" / "rounds" / "2" / "labels.csv")) == 197
    assert (tmp_path / "run" / "rounds" / "1" / "labels" / "shapes").is_dir()


def test_images_with_one_label_each(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "data", each=12, unlabeled=14)
    folder = tmp_path / "run"
    run(folder, source, "method=st_pp", *LABELS)
    labels = [table(folder / "rounds" / number / "labels.csv") for number in ("1", "2")]
    assert sum(map(len, labels)) == len(read(folder / "splits.json")["unlabeled"]) - 9
    assert {row["label"] for part in labels for row in part} <= {"left", "middle", "right"}
    assert {float(row["stability"]) for row in table(folder / "rounds" / "1" / "reliability.csv")} <= {0.0, 0.5, 1.0}
    again = unfinished((folder, []), tmp_path / "again")
    go_on(again)
    assert_same(folder, again)
    shutil.rmtree(again)
    again = unfinished((folder, []), again)
    path = again / "rounds" / "2" / "labels.csv"
    path.write_text(path.read_text().replace("left", "lift").replace("middle", "lift").replace("right", "lift"))
    with pytest.raises(
        DataError, match=r"rounds/2/labels\.csv: the label 'lift', which is no class, for '.*'\. Delete"
    ):
        go_on(again)


def test_what_cannot_be_is_told_before_a_folder_is_made(photos: Path, tmp_path: Path) -> None:
    for overrides, text in (
        (["method=st", "method.labeler=best", "val=0"], "st.labeler=best: there is no validation split to choose by"),
        (["method=st_pp", "steps=2"], "steps=2: st_pp compares 3 copies of a network on the way. Take at least 3"),
    ):
        with pytest.raises(UsageError, match=text):
            run(tmp_path / "never", photos, *MASKS, *overrides)
        assert not (tmp_path / "never").exists()
    told = "unlabeled_start=0.3: nothing would use it: st_pp has the labels of all its images from the first step"
    with pytest.raises(UsageError, match=told):
        load(overrides=["data.task=segmentation", "method=st_pp", "unlabeled_start=0.3"])


def test_epochs_that_are_too_few_steps_are_told_before_a_folder_is_made(photos: Path, tmp_path: Path) -> None:
    plain = [one for one in MASKS if not one.startswith("steps")]
    with pytest.raises(UsageError, match=r"steps=1: st_pp compares 3 copies .* Take at least 3 steps, or more epochs"):
        run(tmp_path / "never", photos, *plain, "method=st_pp", "epochs=1", "batch_size=8", "unlabeled_ratio=4")
    assert not (tmp_path / "never").exists()


def test_without_other_images_it_falls_back_to_the_labels(tmp_path: Path) -> None:
    source = with_masks(tmp_path / "data", labeled=12, unlabeled=0, sizes=((20, 16),))
    heard: list[str] = []
    run(tmp_path / "run", source, "method=st_pp", *MASKS, "labels=none", heard=heard)
    told = "There are no unlabelled images: training supervised_strong on the labels alone instead of st_pp."
    assert told in heard
    assert not (tmp_path / "run" / "rounds").exists()


def test_a_rehearsal_says_how_many_steps_there_are_in_all(photos: Path) -> None:
    text = rehearsal(load(overrides=[f"data.source={photos}", "method=st_pp", *MASKS]))
    assert "# 3 rounds of 6 steps, 18 in all\n" in text

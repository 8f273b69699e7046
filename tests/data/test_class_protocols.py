"""The published data sets of classification: where they are looked for, what is checked, in what form they come."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torchvision

from sfumato.data import check, draw_splits, load_table
from sfumato.data.protocols import CLASS_PROTOCOLS, find
from sfumato.data.sources import read, saved_dataset, torchvision_files
from sfumato.errors import DataError, UsageError
from tests.data.pictures import encoded, picture, write, write_folders


def tiny(monkeypatch: pytest.MonkeyPatch, name: Any, classes: int, train: int, test: int) -> None:
    facts = replace(CLASS_PROTOCOLS[name], classes=classes, train=(train,), test=(test,))
    monkeypatch.setitem(CLASS_PROTOCOLS, name, facts)  # type: ignore[arg-type]


def counts(listing: Any) -> dict[str, int]:
    names, numbers = np.unique(listing.split, return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


# Where they are


def test_it_is_looked_for_in_two_places_and_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFUMATO_DATA", str(tmp_path / "sets"))
    with pytest.raises(DataError) as caught:
        find("cifar10")
    for part in (
        f"protocol=cifar10: CIFAR-10 was looked for in {tmp_path}/sets/cifar10 and data/cifar10, and is not there.",
        "Expected: train.parquet and test.parquet, train/CLASS/ and test/CLASS/ with the images, or cifar-10-batches",
        f"Get it with download=true (torchvision's own files, into {tmp_path}/sets/cifar10).",
        "Or say where it is: data=PATH, or SFUMATO_DATA=FOLDER",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"It cannot be downloaded by itself; get it from image-net.org"):
        find("imagenet10")
    write_folders(tmp_path / "data" / "cifar10", {"train/a": 1})
    (tmp_path / "sets" / "cifar10").mkdir(parents=True)  # empty, as a download leaves it that found no server
    assert find("cifar10") == find("cifar10", download=True) == Path("data/cifar10")
    write_folders(tmp_path / "sets" / "cifar10", {"train/a": 1})
    assert find("cifar10") == tmp_path / "sets" / "cifar10"
    with pytest.raises(UsageError, match="Did you mean 'cifar10'"):
        find("cifar1o")


def test_it_is_downloaded_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SFUMATO_DATA", raising=False)
    asked: list[tuple[str, Path, Any]] = []

    def svhn(root: Path, split: str, download: bool) -> None:
        assert download
        asked.append(("SVHN", root, split))
        (root / f"{split}_32x32.mat").touch()
        if split == "extra" and not (tmp_path / "line").exists():
            raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "SVHN", svhn)
    with pytest.raises(DataError, match=r"SVHN could not be downloaded into data/svhn \(OSError: no route to host\)"):
        find("svhn", download=True)
    (tmp_path / "line").touch()
    asked.clear()
    assert find("svhn", download=True) == Path("data/svhn")
    assert [split for _, _, split in asked] == ["train", "test", "extra"]
    asked.clear()
    assert find("svhn") == Path("data/svhn")  # there by now
    assert not asked
    with pytest.raises(
        UsageError, match=r"download=true: Semi-Aves cannot be fetched by itself. Get it from github.com"
    ):
        find("semi_aves", download=True)


# What is checked


def test_other_numbers_are_errors_and_the_right_ones_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    with pytest.raises(DataError) as caught:
        load_table(tmp_path, protocol="cifar10")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path}: 2 classes, expected 10 of CIFAR-10. Expected: train.parquet and")
    assert lines[1].startswith(f"{tmp_path}: 6 training images, expected 50,000 of CIFAR-10.")
    assert lines[2].startswith(f"{tmp_path}: 2 test images, expected 10,000 of CIFAR-10.")
    assert all(line.endswith("protocol=none recipe=cifar10 keeps its settings.") for line in lines)
    assert [problem.message for problem in check(tmp_path, protocol="cifar10").problems[:3]] == lines
    tiny(monkeypatch, "cifar10", 2, 6, 2)
    told = "CIFAR-10: 6 training and 2 test images of 2 classes, as published."
    table = load_table(tmp_path, protocol="cifar10")
    assert told in table.notes
    assert told in draw_splits(table, labels=2, val=0).notes
    assert check(tmp_path, protocol="cifar10").ok


def test_imagenet_is_tested_on_its_validation_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 1})
    tiny(monkeypatch, "imagenet10", 2, 6, 2)
    assert counts(read(tmp_path, protocol="imagenet10")) == {"train": 6, "test": 2}
    assert counts(read(tmp_path)) == {"train": 6, "val": 2}


def test_the_last_fifth_of_each_class_of_eurosat_is_for_testing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folders(tmp_path / "eurosat" / "2750", {"Forest": 11, "River": 5})
    tiny(monkeypatch, "eurosat", 2, 12, 4)
    listing = read(tmp_path, protocol="eurosat")
    tested = [name for name, split in zip(listing.names, listing.split, strict=True) if split == "test"]
    assert tested == ["Forest/7.png", "Forest/8.png", "Forest/9.png", "River/4.png"]  # sorted as text: 0, 1, 10, 2 ...


# What they come in


@pytest.mark.slow
def test_cifar10_as_parquet(shared: Path) -> None:
    table = load_table(shared / "data" / "cifar10", protocol="cifar10")
    splits = draw_splits(table, labels=40, val=0)
    assert [len(getattr(splits, part)) for part in ("labeled", "unlabeled", "val", "test")] == [40, 50000, 0, 10000]
    assert table.classes[0] == "airplane"
    assert table.images.image_size == 32


def faked(monkeypatch: pytest.MonkeyPatch, name: str, **parts: Any) -> None:
    """torchvision's class `name`, its parts given by the split."""

    def make(root: Path, train: bool | None = None, split: str | None = None) -> Any:
        return parts[split or ("train" if train else "test")]

    monkeypatch.setattr(torchvision.datasets, name, make)


def pixels(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_the_files_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar" / "cifar-10-batches-py").mkdir(parents=True)
    train = SimpleNamespace(data=pixels(6, 32, 32, 3), targets=[0, 1, 2, 0, 1, 2], classes=["a", "b", "c"])
    test = SimpleNamespace(data=pixels(3, 32, 32, 3), targets=[2, 1, 0])
    faked(monkeypatch, "CIFAR10", train=train, test=test)
    listing = read(tmp_path / "cifar")
    assert (listing.layout, listing.classes) == ("files of torchvision (cifar-10-batches-py)", ["a", "b", "c"])
    assert listing.labels.tolist() == [0, 1, 2, 0, 1, 2, 2, 1, 0]
    assert counts(listing) == {"train": 6, "test": 3}
    assert (np.asarray(listing.items)[:6] == train.data).all()

    (tmp_path / "svhn").mkdir()
    for part in ("train", "test", "extra"):
        (tmp_path / "svhn" / f"{part}_32x32.mat").touch()
    parts = {
        part: SimpleNamespace(data=pixels(count, 3, 32, 32), labels=np.arange(count) % 10)
        for part, count in (("train", 12), ("test", 10), ("extra", 20))
    }
    faked(monkeypatch, "SVHN", **parts)
    listing = read(tmp_path / "svhn")
    assert counts(listing) == {"train": 12, "test": 10, "": 20}  # the extra images are for training, labels and all
    assert (listing.labels >= 0).all()
    assert (np.asarray(listing.items)[12] == parts["test"].data[0].transpose(1, 2, 0)).all()

    (tmp_path / "stl" / "stl10_binary").mkdir(parents=True)
    faked(
        monkeypatch,
        "STL10",
        train=SimpleNamespace(data=pixels(4, 3, 96, 96), labels=np.array([0, 1, 0, 1], np.uint8), classes=["x", "y"]),
        test=SimpleNamespace(data=pixels(2, 3, 96, 96), labels=np.array([0, 1], np.uint8)),
        unlabeled=SimpleNamespace(data=pixels(5, 3, 96, 96), labels=np.full(5, -1)),
    )
    tiny(monkeypatch, "stl10", 2, 9, 2)
    table = load_table(tmp_path / "stl", protocol="stl10", image_size=96)
    splits = draw_splits(table, labels=2, val=0)
    assert [len(getattr(splits, part)) for part in ("labeled", "unlabeled", "test")] == [2, 9, 2]


def test_damaged_files_of_torchvision(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()  # torchvision finds that its files are missing
    with pytest.raises(DataError, match=r"holds cifar-10-batches-py, but torchvision cannot read it: .*Get the files"):
        read(tmp_path)


def arrow(folder: Path, labels: list[int], names: list[str], column: str = "label") -> Path:
    """As `Dataset.save_to_disk` writes a part."""
    features = {"image": {"_type": "Image"}, column: {"names": names, "_type": "ClassLabel"}}
    table = pa.table(
        {"image": [{"bytes": encoded(picture(k)), "path": None} for k in range(len(labels))], column: labels}
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_data_set_saved_by_hugging_face_datasets(tmp_path: Path) -> None:
    for part, labels in (("train", [0, 1, 0]), ("test", [1]), ("unlabeled", [0, 1])):
        arrow(tmp_path / "all" / part, labels, ["cat", "dog"])
    (tmp_path / "all" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test", "unlabeled"]}))
    listing = read(tmp_path / "all")
    assert (listing.classes, listing.labels.tolist()) == (["cat", "dog"], [0, 1, 0, 1, -1, -1])
    assert listing.split.tolist() == ["train"] * 3 + ["test"] + [""] * 2
    assert listing.names[0] == "train/0"
    table = load_table(arrow(tmp_path / "one", [1, 0], ["cat", "dog"], "fine_label"))
    assert table.images.load([0]).shape[1] == 3
    (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"ARROW")
    with pytest.raises(DataError, match="not a complete data set"):
        read(tmp_path / "one")
    (tmp_path / "all" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "holdout"]}))
    with pytest.raises(DataError, match=r"the splits are train, holdout. Expected some of train, val"):
        read(tmp_path / "all")
    assert not saved_dataset.recognizes(tmp_path)
    assert not torchvision_files.recognizes(tmp_path)


def lists(root: Path, files: dict[str, list[tuple[str, int]]]) -> None:
    seed = 0
    for name, lines in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"{path} {label}\n" for path, label in lines))
        for path, _ in lines:
            write(root / path, picture(seed := seed + 1))


def test_the_lists_of_semi_aves_keep_the_classes_of_the_unlabeled_to_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "semi_aves/l_train_val.txt": [("trainval/a b.png", 0), ("trainval/1.png", 1)],
        "semi_aves/u_train_in.txt": [("u/2.png", 1), ("u/3.png", 0), ("u/4.png", 1)],
        "semi_aves/test.txt": [("test/5.png", 0), ("test/6.png", 1)],
    }
    lists(tmp_path, files)
    tiny(monkeypatch, "semi_aves", 2, 5, 2)
    listing = read(tmp_path, protocol="semi_aves")
    assert listing.labels.tolist() == [0, 1, -1, -1, -1, 0, 1]
    assert counts(listing) == {"": 5, "test": 2}
    assert listing.names[0] == "trainval/a b.png"
    splits = draw_splits(load_table(tmp_path, protocol="semi_aves"), val=0)
    assert len(splits.labeled) == 2
    (tmp_path / "semi_aves" / "test.txt").write_text("test/5.png\n")
    with pytest.raises(DataError, match="line 1 is not `image class`"):
        read(tmp_path)


def test_the_lists_of_webvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "info/train_filelist_google.txt": [("google/q1/1.png", 0), ("google/q1/2.png", 1)],
        "info/train_filelist_flickr.txt": [("flickr/q2/3.png", 1)],
        "info/val_filelist.txt": [("4.png", 0), ("5.png", 1)],
    }
    lists(tmp_path, files)
    (tmp_path / "val_images_256").mkdir()
    for name in ("4.png", "5.png"):
        (tmp_path / name).rename(tmp_path / "val_images_256" / name)
    tiny(monkeypatch, "webvision10", 2, 3, 2)
    listing = read(tmp_path, protocol="webvision10")
    assert counts(listing) == {"": 3, "test": 2}
    assert listing.names[-1] == "val_images_256/5.png"
    (tmp_path / "google" / "q1" / "1.png").unlink()
    with pytest.raises(DataError, match=r"train_filelist_google.txt: its first image is not there. Looked for .*1.png"):
        read(tmp_path)


def test_the_extra_images_of_svhn_as_parquet(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("extra", 3), ("test", 2)):
        image = [{"bytes": encoded(picture(k)), "path": None} for k in range(count)]
        table = pa.table({"image": image, "label": [k % 2 for k in range(count)]})
        pa.parquet.write_table(table, tmp_path / f"{part}-00000-of-00001.parquet")
    listing = read(tmp_path)
    assert counts(listing) == {"train": 4, "test": 2, "": 3}
    assert (listing.labels >= 0).all()

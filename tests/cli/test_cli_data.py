"""`sfumato data check` of images with masks."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner, Result

from sfumato.cli import app
from tests.run.masks_on_disk import SIZE, save, with_masks
from tests.run.pictures_on_disk import class_folders


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


def refused(done: Result, code: int, *parts: str) -> None:
    assert done.exit_code == code, (done.stdout, done.stderr)
    for part in parts:
        assert part in done.stderr, (part, done.stderr)
    assert "Ready to train." not in done.stdout


def test_classes_pixels_and_masks_are_counted(tmp_path: Path) -> None:
    source = with_masks(tmp_path, labeled=4, unlabeled=2)
    void = Image.open(source / "masks" / "000.png").copy()
    void.paste(255, (0, 0, SIZE[0], SIZE[1] // 2))
    void.save(source / "masks" / "000.png")
    done = check(source)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{source}: images and masks by stem"
    assert lines[1].split() == ["class", "pixels", "%", "masks", "showing", "it"]
    assert [line.split()[:2] for line in lines[3:5]] == [["class", "0"], ["class", "1"]]
    assert lines[5:] == [
        "train 6 (4 with a mask); void 12.5 % of the pixels of the masks",
        "6 images; sizes 32x32 (6); modes RGB (6)",
        "Ready to train.",
    ]
    found = json.loads(check(source, "--json").stdout)
    assert (found["images"], found["masks"], found["ok"]) == (6, 4, True)
    assert sum(found["shares"].values()) == 1
    assert check(source / "images", "--masks", source / "masks").stdout.splitlines()[1:] == lines[1:]


def test_names_of_classes_and_the_void_value(tmp_path: Path) -> None:
    source = with_masks(tmp_path / "data", labeled=4, unlabeled=2)
    table = tmp_path / "classes.txt"
    table.write_text("field\nhouse\n")
    assert [line.split()[0] for line in check(source, "--classes", table).stdout.splitlines()[3:5]] == [
        "field",
        "house",
    ]
    table.write_text("house\nbarn\n")
    refused(check(source, "--void", 0, "--classes", table), 3, "error: ", "class absent from the labeled masks: 'barn'")
    folders = class_folders(tmp_path / "classes", each=2, unlabeled=1)
    refused(
        check(folders, "--void", 0), 2, "--void: nothing would use it: the data has a class for each image, no masks."
    )


def test_every_problem_is_told(tmp_path: Path) -> None:
    source = with_masks(tmp_path, labeled=6, unlabeled=0)
    Image.open(source / "masks" / "001.png").resize((16, 16)).save(source / "masks" / "001.png")
    (source / "masks" / "002.png").write_bytes(b"")
    save(source / "masks" / "spare.png", Image.new("L", SIZE))
    (source / "images" / "004.png").write_bytes((source / "images" / "003.png").read_bytes())
    done = check(source)
    refused(
        done,
        3,
        "error: 1 image cannot be read: 'masks/002.png'",
        "error: masks/001.png: the mask is 16x16 pixels, its image images/001.png 32x32. Export the mask again",
    )
    assert "warning: " + f"{source}: 1 mask without an image: 'masks/spare.png'." in done.stdout
    assert "warning: 1 image there more than once: 'images/003.png = images/004.png'." in done.stdout
    assert "warning: There are no unlabelled images" in done.stdout
    found = json.loads(check(source, "--json").stdout)
    assert found["ok"] is False
    assert found["broken"].keys() == {"masks/002.png"}


def test_what_cannot_be_read_at_all(tmp_path: Path) -> None:
    source = with_masks(tmp_path / "data", labeled=4, unlabeled=2)
    refused(
        check(source, "--format", "voc"), 3, f"{source}: its folders are not those of the layout voc. Expected images/"
    )
    refused(check(source, "--format", "vok"), 2, "vok", "Did you mean 'voc'?")
    refused(
        check(source / "images", "--masks", source / "maks"), 3, "maks: no such folder of masks. Did you mean 'masks'?"
    )
    refused(check(tmp_path / "date", "--masks", source / "masks"), 3, "date: no such file or folder", "Did you mean")
    refused(check(source, "--masks", source / "masks" / "000.png"), 3, "000.png: a file. Expected the folder of the")
    refused(check("shape"), 3, "shape: no such file or folder, and not a built-in set. Did you mean 'shapes'?")
    refused(check(source, "--masks", source / "masks", "--lists", source), 2, "masks and lists were both given")
    assert "shapes: built-in set shapes" in check("shapes").stdout

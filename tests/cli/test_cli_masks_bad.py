"""What can be wrong with images, masks, lists and settings for them: one message, the exit code, nothing made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import LABELS_ONLY, Call, Refused
from tests.run.masks_on_disk import SIZE, save, scene, with_masks

Change = Callable[[Path], None]
LINE = "images/{0:03d}.png masks/{0:03d}.png"


def resized(name: str, size: tuple[int, int]) -> Change:
    def change(root: Path) -> None:
        path = root / "masks" / name
        Image.open(path).resize(size, Image.Resampling.NEAREST).save(path)

    return change


def with_value(root: Path) -> None:
    path = root / "masks" / "003.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[0, 0] = 7
    Image.fromarray(mask).save(path)


def with_value_and_table(root: Path) -> None:
    with_value(root)
    (root / "classes.txt").write_text("ground\nsquare\n")


def jpeg(root: Path) -> None:
    path = root / "masks" / "002.png"
    Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
    path.unlink()


def photograph(root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "masks" / "002.png")


def table_of_three(root: Path) -> None:
    (root / "classes.txt").write_text("ground\nsquare\ndisc\n")


def one_class(root: Path) -> None:
    for path in (root / "masks").iterdir():
        Image.new("L", SIZE).save(path)


def other_stems(root: Path) -> None:
    for path in list((root / "masks").iterdir()):
        path.rename(path.with_name(f"drawn-{path.name}"))


def no_masks(root: Path) -> None:
    shutil.rmtree(root / "masks")
    (root / "masks").mkdir()


def no_images(root: Path) -> None:
    shutil.rmtree(root / "images")
    (root / "images").mkdir()


def broken(root: Path) -> None:
    (root / "images" / "001.png").write_bytes(b"no image")


def validation_without_a_mask(root: Path) -> None:
    (root / "train.txt").write_text("000\n001\n002\n")
    (root / "val.txt").write_text("003\n009")


def table_with_such_a_row(root: Path) -> None:
    rows = [
        f"images/{n:03d}.png,{f'masks/{n:03d}.png' if n < 8 else ''},{'val' if n in (7, 9) else ''}" for n in range(10)
    ]
    (root / "pairs.csv").write_text("\n".join(["image,mask,split", *rows]))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            resized("001.png", (40, 40)),
            "masks/001.png: the mask is 40x40 pixels, its image images/001.png 32x32. Export",
        ),
        (
            resized("001.png", (20, 32)),
            "masks/001.png: the mask is 20x32 pixels, its image images/001.png 32x32. Export",
        ),
        (
            with_value,
            "The masks hold the class numbers 0, 1, 7 (7 in masks/003.png): expected 0, 1, 2, … without a gap, at most "
            "255 of them. Name the classes in a class table (classes=…),",
        ),
        (
            with_value_and_table,
            "masks/003.png: mask value 7 out of range: expected 0..1 (2 classes) or 255 (void). Correct the mask, add",
        ),
        (
            jpeg,
            "masks/002.jpg: the mask is a JPEG, whose lossy compression changes the class numbers. Export the mask "
            "again as PNG.",
        ),
        (
            photograph,
            "Expected one class number a pixel, or a class table with the colours of the classes (classes=FILE",
        ),
        (table_of_three, "1 class absent from the labeled masks: 'disc'. Mark at least one image of each"),
        (
            one_class,
            "only one class, 'class 0', in the masks. Expected two or more; the background is a class of its own.",
        ),
        (other_stems, "no mask has the stem of an image: the first mask is 'drawn-000', the first image '000'. Rename"),
        (no_masks, "masks: no mask in it. Expected one PNG for each labelled image."),
        (no_images, "images: no image in it or below it."),
        (broken, "1 image cannot be read: 'images/001.png' (not an image of a known format). Replace or delete it, or"),
        (
            validation_without_a_mask,
            "1 validation image without a mask: 'images/009.png'. Give each a mask, or take it",
        ),
        (table_with_such_a_row, "1 validation image without a mask: 'images/009.png'. Give each a mask, or take it"),
    ],
)
def test_data_that_cannot_be_used(change: Change, message: str, tmp_path: Path, call: Call, refused: Refused) -> None:
    """Told alike before training and by the look beforehand."""
    source = with_masks(tmp_path / "data", labeled=8, unlabeled=2)
    change(source)
    refused(call("train", source, *LABELS_ONLY, "-o", tmp_path / "run"), 3, message)
    assert not (tmp_path / "run").exists()
    done = call("data", "check", source)
    refused(done, 3, "error: ", message)
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    "lists, message",
    [
        (
            {"labeled.txt": "images/my dog.png masks/001.png\n"},
            "labeled.txt: line 1 has 3 words, 'images/my dog.png masks/001.png'. Expected `image mask`. Paths with "
            "spaces cannot stand in such a list: give a CSV with the columns image,mask,split instead.",
        ),
        (
            {"labeled.txt": LINE.format(1), "unlabeled.txt": "images/my.png"},
            "unlabeled.txt: line 1: no file 'images/my.png' in ",
        ),
        ({"labeled.txt": "images/009.png"}, "labeled.txt: line 1: 'images/009.png' has no mask. Expected `image mask`"),
        (
            {"labeled.txt": LINE.format(1), "val.txt": "images/009.png\n"},
            "1 validation image without a mask: 'images/009.png'. Give each a mask, or take it out of the validation",
        ),
        ({"labeled.txt": "\n"}, "labeled.txt: empty. Expected `image mask` a line."),
        ({"val.txt": LINE.format(1)}, "no labeled.txt in it. Expected labeled.txt, unlabeled.txt and val.txt."),
    ],
)
def test_mistakes_in_lists(lists: dict[str, str], message: str, tmp_path: Path, call: Call, refused: Refused) -> None:
    source, folder = with_masks(tmp_path / "data", labeled=8, unlabeled=2), tmp_path / "lists"
    folder.mkdir()
    for name, text in lists.items():
        (folder / name).write_text(text)
    refused(call("train", source, *LABELS_ONLY, f"lists={folder}", "-o", tmp_path / "run"), 3, message)
    refused(call("data", "check", source, "--lists", folder), 3, message)


def test_lists_need_no_final_newline_and_may_come_from_windows(tmp_path: Path, call: Call) -> None:
    source, folder = with_masks(tmp_path / "data", labeled=8, unlabeled=2), tmp_path / "lists"
    folder.mkdir()
    (folder / "labeled.txt").write_text("\n".join(LINE.format(number) for number in range(4)))
    (folder / "unlabeled.txt").write_bytes(b"images/008.png\r\nimages/009.png\r\n")
    (folder / "val.txt").write_text(f"{LINE.format(6)}\n{LINE.format(7)}")
    done = call("train", source, *LABELS_ONLY, f"lists={folder}", "test=0", "-o", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["images"]
    assert (found["labeled"], found["unlabeled"], found["val"]) == (4, 6, 2)
    checked = call("data", "check", source, "--lists", folder)
    assert checked.exit_code == 0
    assert "note: labeled.txt: 4 lines, hash " in checked.stdout


@pytest.mark.parametrize(
    "settings, code, message",
    [
        (
            ["model=fpn", "encoder=test_resnet"],
            2,
            "The coarsest map of the encoder has one pixel to 32 of the image, too few for crops of 32x32. Use crops "
            "of at least 64x64, an encoder of smaller stride (output_stride=16 or 8 where the encoder has it), or the "
            "model small_seg. The images are 32x32 at most; resize=LONG_SIDE enlarges them.",
        ),
        (
            ["model=fpn", "encoder=test_resnet", "resize=96", "crop=48"],
            2,
            "too few for crops of 48x48. Use crops of at least 64x64, an encoder of smaller stride (output_stride=16 "
            "or 8 where the encoder has it), or the model small_seg.\n",
        ),
        (
            ["crop=64"],
            2,
            "views.crop=[64, 64]: larger than every image (32x32 at most), so that all of them would be padded. Take "
            "crop=32 or less.",
        ),
        (["labels=50"], 3, "labels=50 asked for, but there are only 4 images with a mask to draw from"),
        (["val=8"], 3, "8 images with a mask are too few to set aside 2 for test and 8 for val and have one left"),
        (["encoder=test_resnet"], 2, "Model 'small_seg' has its own encoder, encoder=test_resnet is given."),
        (
            ["model=fpn", "encoder=test_resnt"],
            2,
            "Unknown encoder 'test_resnt' of model 'fpn'. Did you mean 'test_resnet",
        ),
        (["model.options.width=3"], 2, "Model 'small_seg' has no option 'width'. Known: norm."),
        (["pretrained=true"], 2, "Model 'small_seg' has no pretrained weights."),
        (["classes=none.txt"], 3, "none.txt: no such file of classes."),
        (
            ["batch_size=3", "accumulate=2"],
            2,
            "batch_size=3: the global batch must be a multiple of ranks x accumulate",
        ),
    ],
)
def test_settings_that_do_not_fit_the_data(
    settings: list[str], code: int, message: str, mask_source: Path, tmp_path: Path, call: Call, refused: Refused
) -> None:
    source = with_masks(tmp_path / "data", labeled=8, unlabeled=2)
    plain = [word for word in LABELS_ONLY if not any(word.split("=")[0] == given.split("=")[0] for given in settings)]
    refused(call("train", source, *plain, *settings, "-o", tmp_path / "run"), code, message)
    assert not (tmp_path / "run").exists()


def test_a_network_is_measured_on_its_own_classes(mask_run: Path, tmp_path: Path, call: Call, refused: Refused) -> None:
    refused(
        call("eval", mask_run, "shapes"),
        3,
        "shapes: its 6 classes are ground, disc, square, triangle, ring, cross; the 2 of the run are class 0, class 1. "
        "A network can only be measured on its own classes, in the same order.",
    )
    source = with_masks(tmp_path / "data", labeled=8, unlabeled=2)
    with_value(source)
    refused(
        call("eval", mask_run, source / "images", "--masks", source / "masks"),
        3,
        "003.png: mask value 7 out of range: expected 0..1 (2 classes) or 255 (void).",
        "Masks are read with the 2 classes of the run: class 0, class 1.",
    )
    no_masks(source)
    refused(call("eval", mask_run, source), 3, "masks: no mask in it.")
    refused(
        call("eval", mask_run, "--masks", source), 2, "--masks goes with DATA: sfumato eval RUN DATA --masks masks/."
    )


def test_predict_refuses_what_it_cannot_write(
    mask_run: Path, mask_source: Path, tmp_path: Path, call: Call, refused: Refused
) -> None:
    images, out = mask_source / "images", tmp_path / "out"
    refused(call("predict", mask_run, images), 2, "The run gives each image a mask: say where to put them, -o FOLDER.")
    refused(
        call("predict", mask_run, images, "-o", "found.csv"),
        2,
        "-o found.csv: the run gives each image a mask, so this",
    )
    refused(call("predict", mask_run, images, "-o", out, "--force"), 2, "--force: the run gives each image a mask")
    refused(
        call("predict", mask_run, images, "-o", mask_source), 3, f"{mask_source} exists already, and nothing is over"
    )
    refused(
        call("predict", mask_run, tmp_path / "no", "-o", out), 3, "no: no such file or folder. Give a folder of images"
    )
    save(tmp_path / "new" / "a.png", scene(0)[0])
    scene(1)[0].save(tmp_path / "new" / "a.jpg")
    refused(
        call("predict", mask_run, tmp_path / "new", "-o", out), 3, "several results would be called 'a.png'. Rename"
    )
    (tmp_path / "new" / "a.jpg").unlink()
    save(tmp_path / "new" / "overlay" / "a.png", scene(1)[0])
    done = call("predict", mask_run, tmp_path / "new", "-o", out, "--overlay")
    refused(done, 3, "several results would be called 'overlay/a.png'. Rename one of the images.")
    assert not out.exists()


def test_predict_names_images_that_cannot_be_read(mask_run: Path, tmp_path: Path, call: Call, refused: Refused) -> None:
    save(tmp_path / "new" / "a.png", scene(0)[0])
    (tmp_path / "new" / "b.png").write_bytes((tmp_path / "new" / "a.png").read_bytes()[:200])
    done = call("predict", mask_run, tmp_path / "new", "-o", tmp_path / "out")
    refused(done, 3, "1 image cannot be read: 'b.png' (truncated)", "`sfumato predict`: --skip-broken")
    done = call("predict", mask_run, tmp_path / "new", "-o", tmp_path / "again", "--skip-broken")
    assert done.exit_code == 0
    assert done.stdout == f"1 image -> {tmp_path / 'again'}\n"
    assert done.stderr == "left out: 'b.png' (truncated)\n"
    (tmp_path / "new" / "a.png").unlink()
    refused(
        call("predict", mask_run, tmp_path / "new", "-o", tmp_path / "none", "--skip-broken"), 3, "'b.png' (truncated)"
    )


def test_a_run_of_labels_writes_no_masks(mask_source: Path, tmp_path: Path, call: Call, refused: Refused) -> None:
    run = tmp_path / "run"
    done = call("train", "digits", "labels_per_class=4", "val=50", *LABELS_ONLY, "-o", run)
    assert done.exit_code == 0, done.stderr
    refused(
        call("predict", run, mask_source / "images", "--maps"), 2, f"--maps: the run {run} gives images one label each"
    )
    refused(
        call("eval", run, mask_source, "--masks", mask_source), 2, "--masks: the run gives images one label each, no"
    )

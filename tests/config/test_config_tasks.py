"""Settings of one task are refused where the data is for the other: by name, and before any image is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.config import dump, load
from sfumato.errors import UsageError

MASKS = "nothing would use it: the data has masks."
CLASSES = "nothing would use it: the data has a class for each image."


def told(*overrides: str, recipe: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load(overrides=overrides, recipe=recipe)
    return str(caught.value)


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "labels_per_class=3",
            f"data.labels_per_class=3: {MASKS} Use labels=NUMBER of masks, or fraction: a mask holds many classes.",
        ),
        ("image_size=64", f"data.image_size=64: {MASKS} Use resize=LONG_SIDE to read images smaller, crop=SIDE for"),
        ("model.dropout=0.2", f"model.dropout=0.2: {MASKS}"),
        ("model=small", "Unknown segmentation model 'small'. Did you mean 'small_seg'?"),
        ("model=resnet18", "A model of timm is an encoder: use deeplabv3plus with encoder=resnet18."),
        ("views=digits", "views.preset='digits': a preset for images with a class each, and the data has masks."),
        ("views=unimach", "views.preset='unimach': no such preset. Did you mean 'unimatch'?"),
        ("recipe=classic", "recipe classic is for images with a class each, and the data has masks. Take recipe=quick"),
        ("format=vocc", "data.format='vocc': expected 'voc', 'cityscapes', 'ade20k', 'folders' or 'coco'."),
        ("crop=0", "views.crop=0"),
        ("inference=slidin", "Did you mean 'sliding'?"),
        ("data.task=segmenting", "Did you mean 'segmentation'?"),
    ],
)
def test_what_masks_have_no_use_for(override: str, message: str) -> None:
    assert message in told("data=shapes", override)


@pytest.mark.parametrize(
    "override, message",
    [
        ("crop=64", f"views.crop=64: {CLASSES}"),
        ("classes=classes.txt", f"data.classes=classes.txt: {CLASSES}"),
        ("resize=[32, 32]", f"data.resize=[32, 32]: {CLASSES}"),
        ("void=0", f"data.void=0: {CLASSES}"),
        ("encoder=resnet18", f"model.encoder=resnet18: {CLASSES}"),
        ("inference=sliding", f"evaluate.inference=sliding: {CLASSES}"),
        (
            "model=fpn",
            "model 'fpn' is for images with masks, and the data has a class for each image. Expected small, w",
        ),
        (
            "views=unimatch",
            "views.preset='unimatch': a preset for images with masks, and the data has a class for each",
        ),
    ],
)
def test_what_classes_of_images_have_no_use_for(override: str, message: str) -> None:
    assert message in told("data=digits", override)


def test_a_task_that_is_named_wins() -> None:
    assert f"data.masks=drawn: {CLASSES}" in told("data=photos", "masks=drawn", "task=classification")
    assert f"data.image_size=9: {MASKS}" in told("data=photos", "image_size=9", "task=segmentation")
    assert "without data the task is classification, unless task= names another" in told("model=fpn")
    assert load(overrides=["task=segmentation", "model=fpn"]).model.name == "fpn"


def test_what_names_masks_makes_it_segmentation() -> None:
    for override in ("masks=drawn", "lists=splits/92", "format=voc"):
        config = load(overrides=["data=photos", override, "crop=64", "model=deeplabv3plus", "encoder=resnet18"])
        assert config.recipe == "quick_seg"


def test_a_written_file_holds_keys_of_both_tasks_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    for given in (["data=shapes", "crop=32", "views=small"], ["data=digits", "image_size=8", "views=digits"]):
        path.write_text(dump(load(overrides=given)))
        assert dump(load(path)) == path.read_text()

"""Protocols: the settings they bring along, what may be said beside them, epochs, and numbers of masks translated."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.config import Config, dump, flat, load, recipe_text
from sfumato.config.keys import Keys
from sfumato.config.text import parse
from sfumato.data.pairs import PROTOCOLS
from sfumato.errors import UsageError
from sfumato.methods import METHODS, describe
from sfumato.models import check_segmenter_name
from sfumato.models.timm_model import is_timm_name
from sfumato.train_config import TrainConfig


def told(*overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(overrides=overrides)
    return str(caught.value)


def test_a_protocol_brings_its_settings_and_a_recipe_its_protocol() -> None:
    by_name, by_recipe = load(overrides=["protocol=voc"]), load(overrides=["recipe=voc"])
    assert by_name == by_recipe
    assert (by_name.recipe, by_name.data.protocol, by_name.data.test) == ("voc", "voc", 0)
    assert load(recipe="voc") == by_name


def test_another_recipe_keeps_the_protocol_and_no_protocol_keeps_the_recipe() -> None:
    short = load(overrides=["protocol=voc", "recipe=quick_seg"])
    assert (short.recipe, short.data.protocol, short.train.epochs) == ("quick_seg", "voc", None)
    own = load(overrides=["protocol=none", "recipe=voc", "data=shapes"])
    assert (own.recipe, own.data.protocol, own.train.epochs) == ("voc", None, 80)
    assert load(overrides=["protocol=none", "data=shapes"]).recipe == "quick_seg"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "protocol=vok",
            "data.protocol='vok': expected 'ade20k', 'camvid', 'cityscapes', 'coco', 'voc', 'cifar10', ",
        ),
        ("mapping=3", "data.mapping=3: expected a valid dictionary"),
        ("mapping={a: 0}", "data.mapping="),
        ("epochs=0", "train.epochs=0: expected a whole number of at least 1, or none."),
    ],
)
def test_what_cannot_be(override: str, message: str) -> None:
    assert message in told("task=segmentation", override)


def test_the_other_task_has_no_use_for_them() -> None:
    for override, why in (
        ("protocol=voc", "data.protocol=voc: for images with masks, and the data has a class for each image."),
        ("mapping={7: 0}", "nothing would use it: the data has a class for each image."),
    ):
        assert why in told("data=digits", "task=classification", "recipe=quick", override)


def test_steps_and_epochs_the_later_wins(tmp_path: Path) -> None:
    def chosen(*overrides: str, file: str | None = None) -> tuple[int, int | None]:
        path = tmp_path / "settings.yaml"
        path.write_text(file or "")
        train = load(path if file else None, overrides).train
        return train.steps, train.epochs

    assert chosen("protocol=voc") == (500, 80)
    assert chosen("protocol=voc", "steps=100") == (100, None)
    assert chosen("protocol=voc", "epochs=2") == (500, 2)
    assert chosen(file="recipe: voc\ntrain:\n  steps: 100\n") == (100, None)
    assert chosen("epochs=3", file="recipe: voc\ntrain:\n  steps: 100\n") == (100, 3)
    assert chosen("steps=7", file=dump(load(overrides=["protocol=voc"]))) == (7, None)
    message = "command line: train.steps=100: nothing would use it: epochs=3 takes its place. Give one of the two."
    assert told("steps=100", "epochs=3") == message


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "steps"),
    [(92, 10490, 80 * 1312), (16, 8, 80), (16, 9, 160), (17, 0, 240)],  # without others, of the labelled ones
)
def test_an_epoch_is_all_batches_of_a_pass(labeled: int, unlabeled: int, steps: int) -> None:
    config = TrainConfig(epochs=80, batch_size=8, unlabeled_ratio=1).counted(labeled=labeled, unlabeled=unlabeled)
    assert (config.steps, config.epochs) == (steps, None)
    assert config.counted(labeled=1, unlabeled=1) == config
    assert TrainConfig(epochs=1, batch_size=4, unlabeled_ratio=3).counted(labeled=4, unlabeled=25).steps == 3


def protocols_with_every_method() -> list[tuple[str, str, Config]]:
    return [
        (protocol, method, load(overrides=[f"protocol={protocol}", f"method={method}"]))
        for protocol in PROTOCOLS
        for method, entry in METHODS.items()
        if not entry.classes_only
    ]


def test_every_method_can_train_by_every_protocol() -> None:
    """Who needs averaged weights has them: add `NAME: {train.ema: ...}` to the methods of recipes/PROTOCOL.yaml."""
    lacking = [
        (protocol, method)
        for protocol, method, config in protocols_with_every_method()
        if describe(method).views.teacher == "ema" and not config.train.ema
    ]
    assert not lacking


def test_protocols_name_methods_keys_and_nets_that_are_there() -> None:
    for protocol in PROTOCOLS:
        recipe = parse(recipe_text(protocol))
        for method, options in recipe.get("methods", {}).items():
            types = Keys.of(method).types
            assert method in METHODS
            assert all((key if "." in key else f"method.{key}") in types for key in options)
        check_segmenter_name(recipe["model"]["name"])
        assert is_timm_name(recipe["model"]["encoder"])
        assert recipe["data"]["protocol"] == protocol
        assert (recipe["data"].get("test") == 0) == (PROTOCOLS[protocol].test is None)


def test_what_a_paper_has_otherwise_goes_with_its_method_and_below_the_command_line() -> None:
    def ohem(*overrides: str) -> float | None:
        return load(overrides=["protocol=cityscapes", *overrides]).train.ohem

    assert (ohem("method=unimatch"), ohem("method=augseg")) == (1 / 6.4, 1 / 12.8)
    assert ohem("method=augseg", "ohem=0.5") == 0.5
    assert load(overrides=["protocol=cityscapes", "method=unimatch"]).method.options == {"threshold": 0.0}
    assert load(overrides=["protocol=voc", "method=augseg"]).views.preset == "augseg"


def test_a_mapping_by_the_command_line_and_by_a_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("data:\n  task: segmentation\n  mapping: {7: 0, 8: 1, 0: 255}\n")
    found = load(path)
    assert found.data.mapping == {7: 0, 8: 1, 0: 255}
    assert load(overrides=["task=segmentation", "mapping={7: 0, 8: 1, 0: 255}"]) == found
    path.write_text(dump(found))
    assert flat(load(path)) == flat(found)
    assert load(path, ["mapping={3: 0, 4: 1}"]).data.mapping == {3: 0, 4: 1}
    assert load(path, ["mapping=none"]).data.mapping is None

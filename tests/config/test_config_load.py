"""Where settings come from, and what is said about wrong ones."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from sfumato.config import dump, flat, identity, load, recipe_names, recipe_summary, recipe_text
from sfumato.data.pairs import PROTOCOLS
from sfumato.data.protocols import CLASS_PROTOCOLS
from sfumato.errors import UsageError
from sfumato.methods import METHODS
from sfumato.train_config import TrainConfig


def told(*overrides: str, path: Path | None = None, recipe: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load(path, overrides, recipe)
    return str(caught.value)


def settings(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_command_line_over_file_over_recipe_over_defaults(tmp_path: Path) -> None:
    path = settings(tmp_path, "recipe: classic\ntrain:\n  steps: 70\n  lr: 0.5\n")
    found = load(path, ["lr=0.25"])
    assert (found.train.lr, found.train.steps, found.train.batch_size, found.train.keep) == (0.25, 70, 64, 2)
    assert (found.recipe, found.model.name) == ("classic", "wrn_28_2")


def test_a_recipe_named_above_takes_the_place_of_the_one_below(tmp_path: Path) -> None:
    path = settings(tmp_path, "recipe: classic\n")
    assert load(path, ["recipe=quick"]).train.steps == 500
    assert load(path, ["recipe=frozen"], "quick").train.lr == 0.1
    assert load(path, recipe="none").recipe is None


def test_short_forms_of_keys() -> None:
    found = load(overrides=["method=freematch", "model=wrn_28_2", "views=photos", "data=photos", "threshold=0.9"][:4])
    assert (found.method.name, found.model.name, found.views.preset, found.data.source) == (
        "freematch", "wrn_28_2", "photos", "photos",
    )  # fmt: skip
    assert load(overrides=["method=fixmatch", "threshold=0.9"]).method.options == {"threshold": 0.9}
    assert load(overrides=["method=fixmatch", "method.threshold=0.9"]).method.options == {"threshold": 0.9}
    assert load(overrides=["model.options.norm=group"]).model.options == {"norm": "group"}


@pytest.mark.parametrize(
    "text, key, value",
    [
        ("seeds=1:4", "seeds", [1, 2, 3]),  # PyYAML alone reads 64
        ("seeds=7", "seeds", [7]),
        ("seeds=2,5", "seeds", [2, 5]),
        ("steps=1e3", "train.steps", 1000),
        ("lr=1e-3", "train.lr", 0.001),
        ("clip=none", "train.clip", None),
        ("clip=0.5", "train.clip", 0.5),
        ("ema_ramp=no", "train.ema_ramp", False),
        ("baseline=false", "baseline", False),
        ("name=2024", "name", "2024"),
        ("val=300", "data.val", 300),
        ("val=0.1", "data.val", 0.1),
        ("k=[0, 3]", "method.k", [0, 3]),
        ("source=a: b # c", "data.source", "a: b # c"),
    ],
)
def test_values_are_read_as_written(text: str, key: str, value: object) -> None:
    assert flat(load(overrides=[text]))[key] == value


def test_a_word_that_is_also_an_option_means_the_option() -> None:
    assert load(overrides=["method=softmatch", "align=none"]).method.options["align"] == "none"


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = settings(tmp_path, "train:\n  stpes: 3\nmodell: small\n")
    text = told("lr=fast", "val=7.5", "preset=phots", "model=smal", "labels=3", "fraction=0.5", "warmup=2", path=path)
    assert text.startswith("8 mistakes in the settings:\n- ")
    for part in (
        f"{path}: 'train.stpes' is no known key. Did you mean 'train.steps'?",
        f"{path}: 'modell' is no known key. Did you mean",
        "command line: train.lr='fast': expected a valid number",
        "command line: data.val=7.5: expected a number of images, or a share of at least 0 and below 1.",
        "views.preset='phots': no such preset. Did you mean 'photos'?",
        "Unknown model 'smal'. Did you mean 'small'?",
        "data.labels and data.fraction are both given",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["method=fixmach"], "method 'fixmach' is unknown. Did you mean 'fixmatch'? `sfumato methods` lists them."),
        (["stepz=3"], "command line: 'stepz' is no known key. Did you mean 'steps'?"),
        (["mehtod=fixmatch"], "command line: 'mehtod' is no known key. Did you mean 'method'?"),
        (["modle=small"], "command line: 'modle' is no known key. Did you mean 'model'?"),
        (["view=photos"], "command line: 'view' is no known key. Did you mean 'views'?"),
        (["trian.steps=3"], "command line: 'trian.steps' is no known key. Did you mean 'train.steps'?"),
        (["zzz=3"], "command line: 'zzz' is no known key. `sfumato config` prints all keys."),
        (
            ["method=fixmatch", "method.treshold=1"],
            "'method.treshold' is no known key. Did you mean 'method.threshold'?",
        ),
        (
            ["method=supervised", "n_sigma=3"],
            "command line: 'n_sigma' is an option of softmatch; the method is supervised.",
        ),
        (["momentum=0.5"], "command line: 'momentum' could be method.momentum or train.momentum: write which."),
        (["method=fixmatch", "threshold=high"], "fixmatch.threshold='high': input should be a valid number"),
        (["weight=bel"], "uncertainty_weighted.weight='bel': input should be 'bell', 'one',"),
        (["weight=bel"], "'normalised_bell' or 'one_sided_bell'. Did you mean 'bell'?"),
        (["optimizer=adam"], "command line: train.optimizer='adam': expected 'sgd' or 'adamw'. Did you mean 'adamw'?"),
        (["steps=0"], "train.steps=0: expected a whole number of at least 1."),
        (["ema=2"], "train.ema=2.0: expected 0 for no averaged weights, or a momentum below 1 such as 0.99."),
        (["lr=-1"], "train.lr=-1.0: expected a number of at least 0."),
        (["lr=.nan"], "train.lr=nan: expected a number of at least 0."),
        (["ohem=0"], "train.ohem=0.0: expected a share above 0 and at most 1 such as 0.08, or none."),
        (["ohem=100000"], "train.ohem=100000.0: expected a share above 0 and at most 1 such as 0.08, or none."),
        (["clip=0"], "train.clip=0.0: expected a number above 0, or none."),
        (["steps=1.5"], "command line: train.steps=1.5: expected a valid integer"),
        (["recipe=quik"], "recipe 'quik' is unknown. Did you mean 'quick'?"),
        (["seeds=3:3"], "command line: seeds='3:3': expected at least one seed, and none twice."),
        (["seeds=x"], "expected seeds as 0:3 (which is 0, 1, 2), 0,4,7 or 5"),
        (["steps"], "command line: 'steps': expected key=value, such as steps=1000."),
        (["steps=3", "steps=4"], "command line: 'steps' is given twice."),
        (
            ["optimizer=adamw", "train.momentum=0.5"],
            "command line: train.momentum=0.5: nothing would use it: only optimizer=sgd has a momentum.",
        ),
        (["schedule=poly", "final_lr=0.1"], "only schedule=cosine_half has a final_lr"),
        (["weights=w.pth", "pretrained=true"], "nothing would use it: weights=FILE takes its place."),
    ],
)
def test_each_mistake_has_its_sentence(overrides: list[str], message: str) -> None:
    assert message in told(*overrides)


def test_files_that_hold_no_settings(tmp_path: Path) -> None:
    path = settings(tmp_path, "train:\n  steps: [1\n")
    assert told(path=path).startswith(f"{path}, line ")
    assert "not readable as YAML" in told(path=path)
    path.write_text("- steps\n", encoding="utf-8")
    assert told(path=path) == f"{path}: expected settings as `key: value`, found list."
    missing = tmp_path / "setings.yaml"
    assert told(path=missing) == f"{missing}: no such file of settings. Did you mean 'settings.yaml'?"


def test_naming_another_method_leaves_the_options_of_the_first_behind(tmp_path: Path) -> None:
    path = settings(tmp_path, "method:\n  name: fixmatch\n  threshold: 0.8\n")
    assert load(path).method.options == {"threshold": 0.8}
    assert load(path, ["method=freematch"]).method.options == {"momentum": 0.99}  # of the recipe
    path.write_text("method:\n  threshold: 0.8\n", encoding="utf-8")
    assert "'method.threshold' is an option of" in told("method=supervised", path=path)


def test_what_the_command_line_says_replaces_what_would_contradict_it(tmp_path: Path) -> None:
    path = settings(tmp_path, "seeds: [0, 1]\ndata:\n  labels: 40\n")
    found = load(path, ["seed=5", "labels_per_class=2"])
    assert (found.seed, found.seeds, found.data.labels, found.data.labels_per_class) == (5, None, None, 2)
    assert not load(overrides=["recipe=finetune", "weights=w.pth"]).model.pretrained


def test_what_is_written_reads_back_for_every_method_and_recipe(tmp_path: Path) -> None:
    """Every method without a recipe, and every recipe with the methods that it has options for."""
    pairs = [(name, "none") for name in METHODS]
    for recipe in recipe_names():
        pairs += [(name, recipe) for name in {"fixmatch", *yaml.safe_load(recipe_text(recipe)).get("methods", {})}]
    for name, recipe in pairs:
        masks = METHODS[name].dense_only or recipe in (*PROTOCOLS, "quick_seg")
        task = "segmentation" if masks else "classification"
        config = load(overrides=[f"method={name}", f"task={task}", "seeds=0:2", "val=100"], recipe=recipe)
        again = load(settings(tmp_path, dump(config)))
        assert flat(again) == flat(config)
        assert identity(again) == identity(config)
    assert len(pairs) > 2 * len(METHODS)


def test_every_option_of_the_loop_is_a_key_and_belongs_to_the_identity_unless_it_changes_nothing() -> None:
    keys = {key.removeprefix("train.") for key in flat(load()) if key.startswith("train.")}
    assert keys == {field.name for field in fields(TrainConfig)}
    free = {"log_every", "save_every", "keep", "tensorboard", "on_collapse"}
    assert {key.removeprefix("train.") for key in identity(load()) if key.startswith("train.")} == keys - free
    assert "data.source" not in identity(load())


def test_recipes_open_with_the_command_that_runs_them() -> None:
    own = ["classic", "finetune", "frozen", "long_tail", "quick", "quick_seg", "usb"]
    assert recipe_names() == sorted([*own, *PROTOCOLS, *CLASS_PROTOCOLS])
    for name in recipe_names():
        first = recipe_text(name).splitlines()[0]
        if name in (*PROTOCOLS, *CLASS_PROTOCOLS):
            words = [word for word in first.removeprefix("# sfumato train ").split() if "=" in word]
            assert f"protocol={name}" in words
            assert load(overrides=words).recipe == name
        else:
            assert f"{first} ".startswith(f"# sfumato train DATA recipe={name} ")
        assert recipe_summary(name).endswith(".")


def test_quick_holds_the_short_budget_settings() -> None:
    found = load(overrides=["method=uncertainty_weighted_flat"])
    assert (found.train.steps, found.train.batch_size, found.train.unlabeled_ratio, found.train.ema) == (
        500,
        32,
        4,
        0.99,
    )
    assert found.method.options == {"k": [0, 1], "momentum": 0.99}


def test_masks_take_a_recipe_of_their_own() -> None:
    assert load(overrides=["data=shapes"]).recipe == "quick_seg"
    assert load(overrides=["masks=elsewhere/masks"]).recipe == "quick_seg"
    assert load(overrides=["data=shapes", "task=classification"]).recipe == "quick"
    assert load(overrides=["data=shapes"], recipe="quick").recipe == "quick"


def test_classic_is_the_protocol_of_the_papers() -> None:
    train = load(recipe="classic").train
    assert (train.steps, train.batch_size, train.unlabeled_ratio, train.lr) == (2**20, 64, 7, 0.03)
    assert (train.schedule, train.ema, train.weight_decay, train.warmup) == ("cosine_7_16", 0.999, 5e-4, 0)
    assert load(recipe="classic", overrides=["method=freematch"]).method.options == {}


def test_what_data_to_train_on_means_the_same_with_any_add_on():
    """`val` is an option of seval too."""
    config = load(overrides=["method=fixmatch", "addon=seval", "val=0.3", "addon.val=split_online"])
    assert config.data.val == 0.3
    assert config.addon.options["val"] == "split_online"


def test_an_add_on_brings_its_options_and_takes_no_word_of_the_run() -> None:
    config = load(overrides=["method=softmatch", "addon=seval", "target_precision=0.8", "val=100"])
    assert (config.label, config.data.val) == ("softmatch+seval", 100)
    assert (config.addon.name, config.addon.options) == (
        "seval",
        {"target_precision": 0.8, "decay": 0.5},
    )  # of the recipe
    assert flat(config)["addon.val"] == "extra"
    assert config.with_method("supervised").label == "supervised"


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["addon=sevla"], "add-on 'sevla' is unknown. Did you mean 'seval'?"),
        (["method=supervised", "addon=darp"], "addon=darp does not fit method=supervised: it changes the target of"),
        (["target_precision=0.8"], "'target_precision' is an option of the add-on seval: name it, addon=seval."),
        (
            ["addon=adsh", "method=fixmatch", "threshold=0.9"],
            "could be addon.threshold or method.threshold: write which",
        ),
        (["addon=seval", "addon.target_precision=x"], "seval.target_precision='x'"),
        (["addon.tau=1"], "'addon.tau' is an option of the add-on"),
    ],
)
def test_what_is_wrong_with_an_add_on_is_told(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(overrides=overrides)
    assert message in str(error.value)


def test_options_go_with_the_add_on_that_their_layer_names(tmp_path: Path) -> None:
    path = settings(tmp_path, "method: {name: fixmatch}\naddon: {name: seval, target_precision: 0.8}\n")
    assert load(path).addon.options == {"target_precision": 0.8, "decay": 0.5}
    other = load(path, ["addon=adsh"]).addon
    assert (other.name, other.options) == ("adsh", {"momentum": 0.99})  # of the recipe
    assert load(path, ["addon=none"]).addon.name is None

"""Protocols of classification: the settings that each budget brings, and what may be said beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.config import Config, dump, flat, load, recipe_names, recipe_text
from sfumato.config.keys import Keys
from sfumato.config.text import parse
from sfumato.data.protocols import CLASS_PROTOCOLS
from sfumato.errors import UsageError
from sfumato.methods import METHODS, describe
from sfumato.models import check_model_name
from sfumato.views import PRESETS

BUDGETS = {name: list(parse(recipe_text(name))["budgets"]) for name in CLASS_PROTOCOLS}


def told(*overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(overrides=overrides)
    return str(caught.value)


def of(*overrides: str) -> Config:
    return load(overrides=overrides)


def test_the_first_budget_is_the_published_one() -> None:
    found = of("protocol=cifar10", "method=fixmatch", "labels=40", "seed=0", "budget=paper")
    assert found == of("protocol=cifar10", "method=fixmatch", "labels=40", "seed=0")
    assert (found.recipe, found.budget, found.data.protocol, found.data.val) == ("cifar10", "paper", "cifar10", 0)
    assert (found.model.name, found.train.steps, found.train.unlabeled_ratio) == ("wrn_28_2", 2**20, 7)
    assert (found.train.lr, found.train.weight_decay, found.train.ema, found.train.warmup) == (0.03, 5e-4, 0.999, 0)
    assert load(recipe="cifar10", overrides=["method=fixmatch", "labels=40"]) == found


def test_no_protocol_holds_labels_out_unless_asked() -> None:
    for name, budgets in BUDGETS.items():
        for budget in budgets:
            assert of(f"protocol={name}", f"budget={budget}").data.val == 0, (name, budget)
    assert of("protocol=semi_aves", "val=500").data.val == 500


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("protocol=cifar100", ("wrn_28_8", 2**20, 64, 0.001)),
        ("protocol=cifar100 budget=usb", ("vit_small_patch16_224", 204800, 8, 5e-4)),
        ("protocol=stl10", ("wrn_37_2", 2**20, 64, 5e-4)),
        ("protocol=stl10 budget=usb", ("vit_base_patch16_224", 204800, 8, 5e-4)),
        ("protocol=imagenet10", ("resnet50", 2**20, 32, 3e-4)),
        ("protocol=cifar10 budget=long_tail", ("wrn_28_2", 2**18, 64, 5e-4)),
        ("protocol=cifar10 budget=quick", ("auto", 500, 32, 5e-4)),
        ("protocol=cifar10 budget=quick steps=7 model=small", ("small", 7, 32, 5e-4)),
        ("protocol=cifar10 recipe=quick", ("auto", 500, 32, 5e-4)),
    ],
)
def test_nets_and_lengths(overrides: str, expected: tuple[object, ...]) -> None:
    found = of(*overrides.split())
    assert (found.model.name, found.train.steps, found.train.batch_size, found.train.weight_decay) == expected


def test_the_rates_of_usb() -> None:
    rates = {"cifar100": (5e-4, 0.5), "stl10": (1e-4, 0.65), "eurosat": (5e-5, 1.0), "semi_aves": (1e-3, 0.65)}
    assert {name for name, budgets in BUDGETS.items() if "usb" in budgets} == set(rates)
    for name, (lr, decay) in rates.items():
        train = of(f"protocol={name}", "budget=usb").train
        assert (train.lr, train.layer_decay, train.optimizer, train.ema) == (lr, decay, "adamw", 0)
        assert round(train.warmup * train.steps) == 5120


def test_digits_are_not_mirrored() -> None:
    for budget in BUDGETS["svhn"]:
        assert PRESETS[of("protocol=svhn", f"budget={budget}").views.preset].flip == 0, budget
    assert PRESETS[of("protocol=stl10").views.preset].flip == 0.5


def test_long_tails_keep_labeled_and_unlabeled_apart_at_a_constant_rate() -> None:
    found = of(
        "protocol=cifar10", "budget=long_tail", "gamma_labeled=100", "head_labeled=500", "gamma_unlabeled=reversed"
    )
    assert (found.train.schedule, found.train.unlabeled_ratio, found.data.include_labeled) == ("constant", 2, False)
    assert found.data.long_tail.unlabeled == -100


def test_one_unlabeled_image_for_each_label_where_the_papers_have_it_so() -> None:
    assert of("protocol=cifar10", "method=mean_teacher").train.unlabeled_ratio == 1
    assert of("protocol=cifar10", "method=mean_teacher", "unlabeled_ratio=7").train.unlabeled_ratio == 7
    weights = [
        of("method=mixmatch", *words.split()).method.options["lambda_u"]
        for words in ("protocol=cifar10", "protocol=cifar100", "protocol=cifar100 budget=usb lambda_u=10")
    ]
    assert weights == [100, 150, 10]
    for words in ("protocol=cifar10", "protocol=cifar10 budget=long_tail", "protocol=cifar100 budget=usb"):
        assert of("method=mean_teacher", *words.split()).method.options["lambda_u"] == 50, words
    named = parse(recipe_text("classic"))["methods"]
    assert set(named) <= set(METHODS)


def test_the_warm_up_and_stages_of_dash_are_the_published_ones() -> None:
    for words in (
        "protocol=cifar10", "protocol=cifar10 budget=long_tail", "protocol=cifar100 budget=usb", "protocol=imagenet10",
    ):  # fmt: skip
        found = of(*words.split(), "method=dash")
        assert found.method.options["warmup"] * found.train.steps == 2048, words
        assert found.method.options["stage"] == 10 / 1024, words
    assert of("protocol=cifar10", "budget=quick", "method=dash").method.options == {}


def test_batch_norm_sees_all_views_together_as_published() -> None:
    """That every method can be trained so is a law of tests/methods: losses_are_finite_and_teach_the_student."""
    for name, budgets in BUDGETS.items():
        for budget in {"paper", "long_tail"} & set(budgets):
            assert of(f"protocol={name}", f"budget={budget}").train.layout == "concat", (name, budget)
    assert of("protocol=cifar10", "budget=quick").train.layout == "split"


def test_every_method_for_whole_images_resolves_with_every_budget() -> None:
    """Who needs averaged weights has them: add `NAME: {train.ema: ...}` to the methods of recipes/usb.yaml."""
    walked, lacking = 0, []
    for name, budgets in {"cifar100": BUDGETS["cifar100"], "imagenet10": BUDGETS["imagenet10"]}.items():
        for budget in budgets:
            for method in METHODS:
                if METHODS[method].dense_only:
                    continue
                found = of(f"protocol={name}", f"budget={budget}", f"method={method}")
                check_model_name(found.model.name) if found.model.name != "auto" else None
                walked += 1
                if describe(method).views.teacher == "ema" and not found.train.ema:
                    lacking.append((name, budget, method))
    assert not lacking
    assert walked >= 6 * 30


def test_recipes_name_methods_and_keys_that_are_there() -> None:
    for name in recipe_names():
        recipe = parse(recipe_text(name))
        for section in (recipe, *recipe.get("budgets", {}).values()):
            for method, options in section.get("methods", {}).items():
                types = Keys.of(method).types
                assert all((key if "." in key else f"method.{key}") in types for key in options), (name, method)
            for addon, options in section.get("addons", {}).items():
                types = Keys.of("fixmatch", addon).types
                assert all((key if "." in key else f"addon.{key}") in types for key in options), (name, addon)


def test_options_of_a_recipe_for_an_add_on_go_with_it_and_yield_to_ones_that_are_given() -> None:
    words = ("data=digits", "method=fixmatch")
    assert of(*words, "addon=saw").addon.options["momentum"] == 0.99
    assert of(*words, "addon=saw", "addon.momentum=0.5").addon.options["momentum"] == 0.5
    assert of(*words, "addon=saw", "recipe=none").addon.options == {}
    assert of("protocol=cifar10", "budget=quick", "addon=saw", "method=fixmatch").addon.options["momentum"] == 0.99
    assert "momentum" not in of(*words, "addon=label_smoothing").addon.options


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("protocol=cifar10 budget=usb", "budget=usb: recipe cifar10 has the budgets paper, long_tail, quick."),
        ("data=digits budget=paper", "budget=paper: recipe quick has no budgets; cifar10, cifar100, eurosat,"),
        ("protocol=cifar10 task=segmentation", "data.protocol=cifar10: for images with a class each, and the data has"),
        ("protocol=voc noise=0.2", "data.noise=0.2: nothing would use it: without data the task is segm"),
        ("protocol=voc gamma_labeled=10", "data.gamma_labeled=10: nothing would use it"),
        ("data=digits noise=1", "noise=1: expected a share of the labels, at least 0 and below 1"),
        ("data=digits noise=-0.1", "noise=-0.1: expected a share"),
        ("data=digits gamma_labeled=reversed", "`reversed` is for gamma_unlabeled; here a negative number"),
        ("data=digits noise_kind=symetric", "expected 'symmetric' or 'asymmetric'. Did you mean 'symmetric'?"),
        ("data=digits gamma_labeled=0.2", "gamma_labeled=0.2: expected at least 1 (balanced)"),
        ("data=digits gamma_unlabeled=0", "gamma_unlabeled=0: expected at least 1 (balanced)"),
        ("data=digits gamma_labeled=9 labels_per_class=3", "labels_per_class and gamma_labeled were both given"),
        ("data=digits head_labeled=9", "head_labeled=9: nothing would use it"),
        ("data=digits layer_decay=0", "train.layer_decay=0.0: expected a share above 0 and at most 1"),
    ],
)
def test_each_mistake_has_its_sentence(overrides: str, message: str) -> None:
    assert message in told(*overrides.split())


def test_a_number_of_labels_in_a_file_takes_the_place_of_the_protocols(tmp_path: Path) -> None:
    def counts(text: str, *overrides: str) -> tuple[object, ...]:
        path = tmp_path / "settings.yaml"
        path.write_text(f"data: {{protocol: imagenet10{text}}}\n")
        data = load(path, overrides).data
        return data.labels, data.labels_per_class, data.fraction

    assert counts("") == (None, None, 0.1)
    assert counts(", labels: 10000") == (10000, None, None)
    assert counts(", labels: 10000", "labels_per_class=3") == (None, 3, None)
    assert counts(", labels: none") == counts("", "fraction=none") == (None, None, None)
    with pytest.raises(UsageError, match=r"data.labels and data.fraction are both given: expected one of them"):
        counts(", labels: 10000, fraction: 0.2")


def test_settings_come_back_from_a_file(tmp_path: Path) -> None:
    words = "protocol=stl10 budget=long_tail gamma_labeled=20 head_labeled=150 gamma_unlabeled=reversed noise=0.1"
    found = of(*words.split(), "class_order=[b, a]")
    assert found.data.class_order == ("b", "a")
    path = tmp_path / "config.yaml"
    path.write_text(dump(found))
    assert flat(load(path)) == flat(found)
    assert load(path, ["recipe=quick"]).budget is None  # another recipe, and its budget goes
    with pytest.raises(
        UsageError, match=r"budget=quick: nothing would use it: .*config.yaml holds all settings of the"
    ):
        load(path, ["budget=quick"])

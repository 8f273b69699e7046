"""What a method is made of, in words."""

from __future__ import annotations

import re
from functools import partial
from typing import Literal, get_args, get_origin

import pytest

from sfumato import addons
from sfumato.functional.divergence import cross_entropy
from sfumato.methods import METHODS, build, describe
from sfumato.methods.building import Facts, checked, options_of, type_hints_of
from sfumato.methods.choices import choices, in_words, year
from sfumato.rules import Aligned, Bell, DistributionAlignment, EntropyGate, NoRefinement, Sharpen, Then

TABLES = [*METHODS.items(), *addons.ADDONS.items()]
NAMED = re.compile(r"literal|official|released|peer|printed|paper")


def test_rules_are_named_with_what_is_inside_them():
    assert in_words(EntropyGate() * Bell()) == "EntropyGate x Bell"
    assert in_words(Then(NoRefinement(), Sharpen())) == "NoRefinement, then Sharpen"
    assert in_words(Aligned(DistributionAlignment(3), Bell())) == "Aligned(DistributionAlignment, Bell)"
    assert in_words(cross_entropy) == in_words(partial(cross_entropy)) == "cross_entropy"


def test_slots_stand_in_the_order_of_a_step():
    assert choices(build("freematch", Facts(3, 4))) == {
        "refine": "NoRefinement",
        "weigh": "SelfAdaptiveThreshold",
        "target": "Hard",
        "divergence": "cross_entropy",
        "charge": "cross_entropy",
        "extras": "Fairness",
    }


def test_a_loss_that_no_add_on_may_change_is_not_named():
    assert "charge" not in choices(build("marginmatch", Facts(3, 4)))


def words(hint) -> set[str]:
    """The strings among the values of a type hint."""
    if get_origin(hint) is Literal:
        return {value for value in get_args(hint) if isinstance(value, str)}
    return {word for part in get_args(hint) for word in words(part)}


@pytest.mark.parametrize(("name", "entry"), TABLES)
def test_declared_readings_are_values_that_the_options_take(name, entry):
    for values in (entry.printed, entry.released, entry.usb):
        assert checked(name, entry.build, values) == values


@pytest.mark.parametrize(("name", "entry"), TABLES)
def test_values_that_are_named_by_whose_they_are_are_declared(name, entry):
    hints, found = type_hints_of(entry.build), entry.literal
    for option in options_of(entry.build):
        named = {word for word in words(hints[option]) if NAMED.search(word)}
        assert named <= set(found.get(option, {}).values()), option


def test_readings_say_whose_they_are():
    assert describe("softmatch").literal == {
        "n_sigma": {"as printed": 1.0, "as released": 2.0},
        "statistics": {"as printed": "raw", "USB": "aligned"},
    }
    assert addons.describe("calibratemix").literal["count"] == {"as released": 15}
    assert addons.describe("abc").literal == {"target": {"USB": "hard"}}
    assert describe("csl_robust").literal["split"] == {"as printed": "absV", "as released": "absV"}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_tells_its_choices(name):
    found = describe(name)
    assert set(found.literal) <= set(found.defaults)
    assert all(found.choices.values())


def test_the_year_is_the_paper_s():
    assert year(METHODS["fixmatch"].paper) == 2020
    assert year("labels only") is None

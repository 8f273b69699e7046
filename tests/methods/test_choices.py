"""What a method is made of, in words."""

from __future__ import annotations

from functools import partial
from typing import Literal

import pytest

from sfumato.functional.divergence import cross_entropy
from sfumato.methods import METHODS, build, describe
from sfumato.methods.building import Facts
from sfumato.methods.choices import choices, in_words, literal_readings, year
from sfumato.rules import Aligned, Bell, DistributionAlignment, EntropyGate, NoRefinement, Sharpen, Then


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


def test_literal_readings_are_found_by_their_names():
    def builder(*, kl: Literal["mixed", "released"] = "mixed", k: Literal["official"] | None = None, n: int = 1):
        return None

    builder.__annotations__ = {"kl": Literal["mixed", "released"], "k": Literal["official"] | None, "n": int}
    assert literal_readings(builder) == {"kl": ["released"], "k": ["official"]}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_tells_its_choices(name):
    found = describe(name)
    assert set(found.literal) <= set(found.defaults)
    assert all(found.choices.values())


def test_the_year_is_the_paper_s():
    assert year(METHODS["fixmatch"].paper) == 2020
    assert year("labels only") is None

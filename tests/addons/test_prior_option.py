"""A prior as it is written in settings, before it is known how many classes there are."""

from __future__ import annotations

import pytest

from sfumato.config import load
from sfumato.errors import UsageError
from tests.addons.long_tail import method_with

ADDONS = ("abc", "adsh", "crest_plus", "darp", "debiaspl", "distribution_alignment", "logit_adjustment", "saw")


def given(addon: str, prior: str) -> dict[str, object]:
    found = load(overrides=["method=fixmatch", f"addon={addon}", f"addon.prior={prior}"])
    return found.addon.options


@pytest.mark.parametrize("addon", ADDONS)
def test_names_and_numbers(addon):
    assert given(addon, "estimated").items() >= {"prior": "estimated"}.items()
    ten = given(addon, "[10,9,8,7,6,5,4,3,2,1]")
    assert len(ten["prior"]) == 10
    with pytest.raises(UsageError, match=r"^prior has 10 numbers: expected one for each of the 4 classes\.$"):
        method_with(addon, **ten)


@pytest.mark.parametrize("addon", ADDONS)
def test_wrong_ones(addon):
    with pytest.raises(UsageError, match=rf"{addon}\.prior='estimatd': input should be .* Did you mean 'estimated'\?"):
        given(addon, "estimatd")
    with pytest.raises(UsageError, match=r"prior\[1\]=0\.0: expected a positive share of each class; to one that"):
        given(addon, "[0.5,0,0.5]")

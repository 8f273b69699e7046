"""A method and an add-on named in the place of one another, or in one word."""

from __future__ import annotations

import pytest

from sfumato.config import load
from sfumato.config.meant import check_either_name
from sfumato.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("method=fixmatch+seval", "'fixmatch+seval': the add-on is a setting of its own: write method=fixmatch addon="),
        ("method=FixMach+sevall", "a setting of its own: write method=fixmatch addon=seval."),
        ("method=seval", "method 'seval': that is an add-on to a method: write method=NAME addon=seval."),
        ("method=FixMatch", "method 'FixMatch' is unknown. Did you mean 'fixmatch'?"),
        ("addon=[saw,seval]", "one add-on a run, such as addon=saw."),
        ("addon=saw+seval", "add-on 'saw+seval': one add-on a run, such as addon=saw."),
        ("method=fixmatch+saw+seval", "one add-on a run, such as addon=saw."),
        ("addon=softmatch", "add-on 'softmatch': that is a method: write method=softmatch."),
        ("addon=SEVAL", "add-on 'SEVAL' is unknown. Did you mean 'seval'?"),
    ],
)
def test_what_is_meant_is_told(settings: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        load(overrides=["data=digits", *settings.split()])
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fixmatch+seval", "`sfumato methods show fixmatch` and `sfumato methods show seval` tell of them one by one."),
        ("sevall", "'sevall' is no method and no add-on. Did you mean 'seval'?"),
        ("FIXMATCH", "Did you mean 'fixmatch'?"),
    ],
)
def test_either_may_be_asked_about(name: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        check_either_name(name)
    assert told in str(error.value)
    check_either_name("fixmatch")
    check_either_name("seval")

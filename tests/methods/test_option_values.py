"""Options whose name says what they are, in every method and add-on that has one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import UnionType
from typing import Any, get_args, get_origin

import pytest

from sfumato.addons import ADDONS, join
from sfumato.errors import UsageError
from sfumato.methods import METHODS, Facts, build
from sfumato.methods.building import options_of, type_hints_of

BUILDERS: dict[str, Callable[..., object]] = {
    **{name: entry.build for name, entry in METHODS.items()},
    **{name: entry.build for name, entry in ADDONS.items()},
}
FACTS = Facts(3, 4, num_labeled=6, label_counts=(3, 2, 1))


def takes_float(hint: Any) -> bool:
    return hint is float or (get_origin(hint) is UnionType and float in get_args(hint))


NUMBERS = [
    (name, key)
    for name, builder in BUILDERS.items()
    for key in options_of(builder)
    if takes_float(type_hints_of(builder)[key])
]
WEIGHTS = [(name, key) for name, key in NUMBERS if key.startswith("lambda_") or key == "weight"]
RAMPS = [(name, key) for name, key in NUMBERS if key == "ramp"]


def made(name: str, options: dict[str, object]) -> None:
    if name in METHODS:
        build(name, Facts(3, 4, METHODS[name].dense_only, 6, (3, 2, 1)), options)
    else:
        join(name, build("fixmatch", FACTS), FACTS, options)


def message(name: str, options: dict[str, object]) -> str:
    with pytest.raises(UsageError) as error:
        made(name, options)
    return str(error.value)


def test_there_are_such_options() -> None:
    assert {("fixmatch", "lambda_u"), ("crmatch", "lambda_rotation"), ("pi_model", "lambda_u")} <= set(WEIGHTS)
    assert {("calibratemix", "lambda_mix"), ("random_mixup", "lambda_mix"), ("abc", "weight")} <= set(WEIGHTS)
    assert {("adamatch", "ramp"), ("mean_teacher", "ramp"), ("cutmix_seg", "ramp")} <= set(RAMPS)


@pytest.mark.parametrize(("name", "key"), WEIGHTS)
def test_no_loss_weighs_less_than_nothing(name: str, key: str) -> None:
    expected = "expected the weight of a loss, 0 or more; 0 leaves it out."
    assert message(name, {key: -1}) == f"{name}.{key}=-1: {expected}"
    assert message(name, {key: float("inf")}) == f"{name}.{key}=inf: {expected}"
    made(name, {key: 0})


@pytest.mark.parametrize(("name", "key"), RAMPS)
def test_a_ramp_is_a_share_of_training(name: str, key: str) -> None:
    expected = "expected a share of training, 0 to 1, such as 0.4."
    for wrong in (-1, 3):
        assert message(name, {key: wrong}) == f"{name}.{key}={wrong}: {expected}"
    for right in (0, 1):
        made(name, {key: right})


@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_what_is_no_number_is_refused(name: str, key: str) -> None:
    assert message(name, {key: float("nan")}) == f"{name}.{key}=nan: expected a number, not NaN."


def test_several_numbers_are_each_a_number() -> None:
    assert message("uncertainty_weighted", {"k": (1.0, float("nan"))}) == (
        "uncertainty_weighted.k=(1.0, nan): expected a number, not NaN."
    )


@pytest.mark.parametrize("name", BUILDERS)
def test_defaults_are_values_that_may_be_given(name: str) -> None:
    made(name, {key: p.default for key, p in options_of(BUILDERS[name]).items() if p.default is not inspect._empty})

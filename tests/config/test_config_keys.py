"""No option of a method or an add-on is named so that a short form of the run's own settings no longer says which."""

from __future__ import annotations

import pytest

from sfumato.addons import ADDONS
from sfumato.config import load
from sfumato.config.keys import SECTIONS, SHORT, Keys
from sfumato.methods import METHODS

SHORT_FORMS = {
    **SHORT,
    **{name: f"data.{name}" for name in SECTIONS["data"].model_fields},
    **{name: name for name in ("seed", "seeds", "recipe", "budget", "baseline")},
    "steps": "train.steps",
}


@pytest.mark.parametrize("method", METHODS)
def test_short_forms_say_which_whatever_the_method_and_the_addon(method: str) -> None:
    for addon in (None, *ADDONS):
        keys = Keys.of(method, addon)
        assert {given: keys.find(given) for given in SHORT_FORMS} == SHORT_FORMS


def test_labels_of_a_protocol_may_be_named_beside_noisy_student() -> None:
    found = load(overrides=["protocol=cifar10", "method=noisy_student", "labels=40", "seed=1", "target=hard"])
    assert (found.data.labels, found.seed, found.method.options["target"]) == (40, 1, "hard")

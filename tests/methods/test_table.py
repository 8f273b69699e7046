"""The table of methods: its order, its messages, and that defaults are declared in one place."""

from __future__ import annotations

import pytest

from sfumato.errors import UsageError
from sfumato.methods import METHODS, Facts, Method, build, describe, options
from sfumato.methods.fixmatch import fixmatch
from sfumato.methods.softmatch import softmatch


def message(*args):
    with pytest.raises(UsageError) as error:
        build(*args)
    return str(error.value)


def test_the_table_is_sorted_and_cites():
    assert list(METHODS) == sorted(METHODS)
    assert all(entry.paper and entry.equations for entry in METHODS.values())


@pytest.mark.parametrize("name", METHODS)
def test_every_entry_describes_itself(name):
    about = describe(name)
    assert about.summary
    assert about.defaults == {key: p.default for key, p in options(name).items()}
    method = build(name, Facts(3, 4, dense=about.dense_only, num_labeled=2, label_counts=(1, 1, 1)), about.defaults)
    assert isinstance(method, Method)
    assert about.views == method.views


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dense", (False, True))
def test_every_entry_is_for_both_tasks_or_says_for_which(name, dense):
    entry, facts = METHODS[name], Facts(3, 4, dense=dense, num_labeled=2, label_counts=(1, 1, 1))
    if entry.classes_only if dense else entry.dense_only:
        only = "images with masks" if entry.dense_only else "one class per image"
        assert message(name, facts).startswith(f"{name} is for {only} only")
    else:
        assert isinstance(build(name, facts), Method)
    assert (describe(name).dense_only, describe(name).classes_only) == (entry.dense_only, entry.classes_only)


def test_an_unknown_method_names_the_nearest():
    assert message("fixmach", Facts(2)) == (
        "method 'fixmach' is unknown. Did you mean 'fixmatch'? `sfumato methods` lists them."
    )
    assert f"Known: {', '.join(METHODS)}" in message("zzz", Facts(2))


def test_an_unknown_option_names_the_nearest():
    assert message("fixmatch", Facts(2), {"treshold": 0.9}) == (
        "fixmatch has no option 'treshold'. Did you mean 'threshold'?"
    )


def test_all_problems_come_at_once():
    text = message("fixmatch", Facts(2), {"treshold": 0.9, "target": "sotf", "lambda_u": "much"})
    assert "no option 'treshold'" in text
    assert "fixmatch.target='sotf': input should be 'hard' or 'soft'" in text
    assert "fixmatch.lambda_u='much': input should be a valid number" in text


def test_values_out_of_range_say_what_is_expected():
    for name in ("fixmatch", "flexmatch", "pseudo_label", "uncertainty_weighted"):
        assert "(threshold=95.0): expected a probability between 0 and 1" in message(name, Facts(2), {"threshold": 95})
    assert "momentum=2.0: expected at least 0 and below 1" in message("freematch", Facts(2), {"momentum": 2})


def test_numbers_may_come_as_text_of_the_command_line():
    assert build("fixmatch", Facts(2), {"threshold": "0.8"}).weigh.threshold == 0.8


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: fixmatch(target="sotf"), r"fixmatch\(target='sotf'\): expected one of hard, soft"),
        (lambda: softmatch(3, align="none", statistics="alined"), r"softmatch\(statistics='alined'\).*'aligned'"),
    ],
)
def test_constructors_called_in_python_check_names_too(make, text):
    with pytest.raises(UsageError, match=text):
        make()

"""Why an add-on does not fit a method, in words that are true of it."""

from __future__ import annotations

import pytest

from sfumato.addons import join
from sfumato.errors import UsageError
from sfumato.methods import Facts, build


@pytest.mark.parametrize(
    ("addon", "name", "reason"),
    [
        ("abc", "vat", "addon=abc does not fit method=vat: it adds a loss, and vat takes none. It fits adamatch,"),
        ("seval", "supervised", "it changes the correction of predictions, and supervised has none of its own to ch"),
    ],
)
def test_the_reason(addon: str, name: str, reason: str) -> None:
    facts = Facts(num_classes=2, num_unlabeled=2, num_labeled=2, label_counts=(1, 1))
    with pytest.raises(UsageError) as caught:
        join(addon, build(name, facts), facts, method_name=name)
    assert reason in str(caught.value)

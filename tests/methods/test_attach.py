"""Methods that train modules beside the student, used before these are made."""

from __future__ import annotations

import pytest

from sfumato.errors import UsageError
from sfumato.methods import Facts, build
from sfumato.types import Progress
from tests.methods.cases import CLASSES, nets_of
from tests.methods.problems import SAMPLES, SEGMENTATION, logits_batch


@pytest.mark.parametrize(
    ("name", "options", "owner"),
    [
        ("cps", {}, "cps"),
        ("corrmatch", {}, "corrmatch"),
        ("u2pl", {}, "PixelContrast"),
        ("farcluss", {"projection": 3}, "PrototypeAttraction"),
    ],
)
def test_what_has_to_be_attached_is_asked_for(name, options, owner):
    method = build(name, Facts(CLASSES, SAMPLES, dense=True), options)
    batch = logits_batch(SEGMENTATION, method.views)
    text = rf"^{owner} has not made yet what it trains beside the student: call method.attach\(net\) before training"
    with pytest.raises(UsageError, match=text):
        method.loss(nets_of(), batch, Progress(0, 9))

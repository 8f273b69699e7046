"""Add-ons that keep what they make of the images of a step fit no method that asks them about others."""

import pytest

from sfumato.addons import ADDONS, fits
from sfumato.methods import METHODS

NEED = ("cossl", "darp", "daso")


@pytest.mark.parametrize("addon", NEED)
def test_defixmatch_asks_about_labeled_images(addon):
    reason = fits(addon, "defixmatch")
    assert reason is not None
    assert f"addon={addon} does not fit method=defixmatch: its pseudo-labels are of the unlabeled images" in reason
    assert "Take another method, such as fixmatch." in reason
    assert fits(addon, "fixmatch") is None


def test_others_may_be_asked():
    assert set(NEED) < set(ADDONS)
    assert "defixmatch" in METHODS
    assert all(fits(addon, "defixmatch") is None for addon in ("abc", "acr"))

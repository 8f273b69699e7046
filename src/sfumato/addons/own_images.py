"""What fits no method that asks its rules about other images than those it shows them."""

from __future__ import annotations

from sfumato.errors import UsageError
from sfumato.methods import Method
from sfumato.methods.defixmatch import Debias


def check_own_images(addon: str, method: Method) -> None:
    """Raise a UsageError for a method that makes pseudo-labels of labeled images too, with the rules of the others."""
    if any(isinstance(extra, Debias) for extra in method.extras):
        raise UsageError(
            f"addon={addon} does not fit method=defixmatch: its pseudo-labels are of the unlabeled images of the step, "
            "and defixmatch makes some of labeled ones. Take another method, such as fixmatch."
        )

"""Semi-supervised image learning: a few labels, many unlabelled images, and a verdict on whether they helped.

Names are imported when first used, so that `import sfumato` costs no more than a dictionary.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# name -> module it lives in. Listed again below for type checkers, and a test compares the two.
_EXPORTS = {
    "Batch": "sfumato.types",
    "CollapseError": "sfumato.errors",
    "DataError": "sfumato.errors",
    "Losses": "sfumato.types",
    "Output": "sfumato.types",
    "Progress": "sfumato.types",
    "Pseudo": "sfumato.types",
    "SfumatoError": "sfumato.errors",
    "UsageError": "sfumato.errors",
    "ViewSpec": "sfumato.types",
}

__all__ = [
    "Batch",
    "CollapseError",
    "DataError",
    "Losses",
    "Output",
    "Progress",
    "Pseudo",
    "SfumatoError",
    "UsageError",
    "ViewSpec",
    "__version__",
]

if TYPE_CHECKING:
    from sfumato.errors import CollapseError, DataError, SfumatoError, UsageError
    from sfumato.types import Batch, Losses, Output, Progress, Pseudo, ViewSpec
else:

    def __getattr__(name: str) -> object:
        if name in _EXPORTS:
            return getattr(import_module(_EXPORTS[name]), name)
        raise AttributeError(f"module 'sfumato' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Semi-supervised image learning: a few labels, many unlabelled images, and a verdict on whether they helped.

Names are imported when first used, so that `import sfumato` costs no more than a dictionary.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# name -> module it lives in. Listed again below for type checkers, and a test compares the two.
_EXPORTS = {
    "Augment": "sfumato.views",
    "Batch": "sfumato.types",
    "CollapseError": "sfumato.errors",
    "Consistency": "sfumato.methods",
    "DataError": "sfumato.errors",
    "DenseAugment": "sfumato.views",
    "ImageData": "sfumato.image_data",
    "LabelNoise": "sfumato.data",
    "LongTail": "sfumato.data",
    "Losses": "sfumato.types",
    "Output": "sfumato.types",
    "PairData": "sfumato.pair_data",
    "PairTable": "sfumato.data.pairs",
    "Progress": "sfumato.types",
    "Pseudo": "sfumato.types",
    "SfumatoError": "sfumato.errors",
    "Splits": "sfumato.data",
    "Table": "sfumato.data",
    "TrainConfig": "sfumato.train_config",
    "UsageError": "sfumato.errors",
    "ViewSpec": "sfumato.types",
    "build_model": "sfumato.models",
    "build_segmenter": "sfumato.models",
    "draw_pair_splits": "sfumato.data.pairs",
    "draw_splits": "sfumato.data",
    "load_pairs": "sfumato.data.pairs",
    "load_table": "sfumato.data",
}

__all__ = [
    "Augment",
    "Batch",
    "CollapseError",
    "Consistency",
    "DataError",
    "DenseAugment",
    "ImageData",
    "LabelNoise",
    "LongTail",
    "Losses",
    "Output",
    "PairData",
    "PairTable",
    "Progress",
    "Pseudo",
    "SfumatoError",
    "Splits",
    "Table",
    "TrainConfig",
    "UsageError",
    "ViewSpec",
    "__version__",
    "build_model",
    "build_segmenter",
    "draw_pair_splits",
    "draw_splits",
    "load_pairs",
    "load_table",
]

if TYPE_CHECKING:
    from sfumato.data import LabelNoise, LongTail, Splits, Table, draw_splits, load_table
    from sfumato.data.pairs import PairTable, draw_pair_splits, load_pairs
    from sfumato.errors import CollapseError, DataError, SfumatoError, UsageError
    from sfumato.image_data import ImageData
    from sfumato.methods import Consistency
    from sfumato.models import build_model, build_segmenter
    from sfumato.pair_data import PairData
    from sfumato.train_config import TrainConfig
    from sfumato.types import Batch, Losses, Output, Progress, Pseudo, ViewSpec
    from sfumato.views import Augment, DenseAugment
else:

    def __getattr__(name: str) -> object:
        if name in _EXPORTS:
            return getattr(import_module(_EXPORTS[name]), name)
        raise AttributeError(f"module 'sfumato' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)

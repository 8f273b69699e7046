"""Networks by name: a `Classifier` has a backbone and a linear head, a `Segmenter` an encoder and a decoder."""

from sfumato.models.build import OWN as _OWN
from sfumato.models.build import build_model, check_model_name, model_names
from sfumato.models.build_segmenter import build_segmenter, check_segmenter_name, segmenter_names
from sfumato.models.classifier import Classifier
from sfumato.models.feature_dropout import FeatureDropout, complementary, dropped_again
from sfumato.models.segmenter import Segmenter
from sfumato.models.weights import LoadedWeights, load_weights

OWN_NAMES = tuple(_OWN)  # of nets of this package for whole images
Net = Classifier | Segmenter

__all__ = [
    "OWN_NAMES",
    "Classifier",
    "FeatureDropout",
    "LoadedWeights",
    "Net",
    "Segmenter",
    "build_model",
    "build_segmenter",
    "check_model_name",
    "check_segmenter_name",
    "complementary",
    "dropped_again",
    "load_weights",
    "model_names",
    "segmenter_names",
]

"""Networks by name, each a `Classifier`: a backbone that gives features, and a linear head on them."""

from sfumato.models.build import build_model, check_model_name, model_names
from sfumato.models.classifier import Classifier
from sfumato.models.weights import LoadedWeights, load_weights

__all__ = ["Classifier", "LoadedWeights", "build_model", "check_model_name", "load_weights", "model_names"]

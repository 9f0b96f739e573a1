"""Ready models by name: list them, make one, and compare several on the same folds."""

from mmdls.zoo import _foundation, _networks, _plain, _tables  # noqa: F401  (importing them registers the models)
from mmdls.zoo._catalogue import create, list_models
from mmdls.zoo._compare import Comparison, compare_models
from mmdls.zoo._cross_fitted import CrossFittedEmbeddings
from mmdls.zoo._cross_predict import cross_predict
from mmdls.zoo._embedding_search import EmbeddingSearch
from mmdls.zoo._foundation import FoundationClassifier, FoundationSurvival
from mmdls.zoo._inputs import SelectInputs
from mmdls.zoo._late_fusion import LateFusion
from mmdls.zoo._per_task import OneModelPerTask

__all__ = [
    "Comparison",
    "CrossFittedEmbeddings",
    "EmbeddingSearch",
    "FoundationClassifier",
    "FoundationSurvival",
    "LateFusion",
    "OneModelPerTask",
    "SelectInputs",
    "compare_models",
    "cross_predict",
    "create",
    "list_models",
]

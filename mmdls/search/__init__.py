"""Search over hyperparameters with Optuna, as a scikit-learn meta-estimator."""

from mmdls.search._search import OptunaSearch
from mmdls.search._space import search_space_of

__all__ = ["OptunaSearch", "search_space_of"]

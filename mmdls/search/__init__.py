"""Search over hyperparameters with Optuna, as a scikit-learn meta-estimator."""

from mmdls.search._composition import search_space_of
from mmdls.search._search import OptunaSearch

__all__ = ["OptunaSearch", "search_space_of"]

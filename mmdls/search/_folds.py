"""What is done in one fold of a trial."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

SCORER = "scorer_"


def fit_and_score(
    estimator: Any, X: Any, y: Any, train: np.ndarray, test: np.ndarray, scorers: Mapping[str, Any], routed: Bunch
) -> dict[str, float]:
    """Scores of one fold, by name."""
    X_train, y_train = _safe_split(estimator, X, y, train)
    X_test, y_test = _safe_split(estimator, X, y, test, train)
    estimator.fit(X_train, y_train, **_check_method_params(X, routed.estimator.fit, indices=train))
    found = {}
    for name, scorer in scorers.items():
        asked = _check_method_params(X, routed.get(SCORER + name, Bunch(score={})).score, indices=test)
        found[name] = float(scorer(estimator, X_test, y_test, **asked))
    return found


def cloned(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of which nothing is shared between trials."""
    return {name: clone(value, safe=False) for name, value in params.items()}

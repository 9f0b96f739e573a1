"""Settings in a form that is equal in every process, for the name of a study."""

from collections.abc import Mapping
from pickle import PicklingError
from typing import Any

import joblib
import numpy as np
import pandas as pd

from mmdls.cohort import cell_columns
from mmdls.images import fingerprint_columns


def fingerprint(scoring: Any) -> Any:
    """Scores in a form that is equal in every process; functions that cannot be pickled are compared by their names."""
    if isinstance(scoring, Mapping):
        return {name: fingerprint(one) for name, one in scoring.items()}
    try:
        return joblib.hash(scoring)
    except (PicklingError, AttributeError, TypeError):
        return getattr(scoring, "__qualname__", type(scoring).__qualname__)


def fingerprint_cells(X: Any) -> dict[str, str]:
    """What stands behind the columns of images, masks and vectors of a table, by column; see fingerprint_columns."""
    return fingerprint_columns(X, cell_columns(X))


def described(value: Any) -> Any:
    """A parameter in a form that is equal in every process: an estimator's parameters, not its fitted attributes."""
    if hasattr(value, "get_params") and not isinstance(value, type):
        return type(value).__qualname__, {n: described(v) for n, v in sorted(value.get_params(deep=False).items())}
    if isinstance(value, Mapping):
        return [(described(name), described(one)) for name, one in value.items()]
    if isinstance(value, list | tuple):
        return type(value).__name__, [described(one) for one in value]
    if isinstance(value, np.ndarray | pd.DataFrame | pd.Series | pd.Index):
        return joblib.hash(value)
    return repr(value)

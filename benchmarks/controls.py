"""Controls: models that show what a benchmark would find if there were nothing to find, or nothing but a shortcut.

With permuted labels the network of everything must be at chance. A centre-only model shows how much the centre alone
predicts, a volume-only model how much of the image is tumour size, and images with shuffled pixels how much is
brightness. :func:`audit_models` tests whether a model learns from the patients left out.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import optuna
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import Pipeline

from benchmarks.designs import Split
from benchmarks.folds import left_out
from benchmarks.models import BASELINE, MULTIMODAL, Settings, unanswered, with_budget
from benchmarks.models import build as build_model
from mmdls import create
from mmdls.audit import audit_procedure
from mmdls.images import is_missing, read_image
from mmdls.zoo._inputs import columns_of
from mmdls.zoo._networks import tuned_network
from mmdls.zoo._tables import tuned_linear

__all__ = ["NAMES", "OneColumn", "PermuteRows", "ShufflePixels", "audit_models", "build", "offered"]

NAMES = ("permuted labels", "centre-only", "volume-only", "shuffled pixels")


class _Change(TransformerMixin, BaseEstimator):
    """A change of the table that learns nothing."""

    def fit(self, X: pd.DataFrame, y: Any = None) -> "_Change":
        """Learn nothing."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


class PermuteRows(_Change):
    """Patients carry one another's features, in training and when left out.

    Exchanging features is exchanging labels, only that the predictions can be scored with the labels as they stand.
    """

    def __init__(self, random_state: int = 0):
        self.random_state = random_state

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The rows in another order, under the same ids."""
        order = np.random.default_rng(self.random_state).permutation(len(X))
        return X.iloc[order].set_axis(X.index)


class OneColumn(_Change):
    """Nothing but one column, as a block of its own."""

    def __init__(self, columns: Sequence[str]):
        self.columns = columns

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The first of the columns that is there."""
        column = X[_first(X, self.columns)]
        numbers = pd.api.types.is_numeric_dtype(column)
        return pd.DataFrame({"control_column": column if numbers else column.astype(object)})


class ShufflePixels(_Change):
    """Images only, with pixels shuffled inside each slice: greys stay, what they show is gone."""

    def __init__(self, random_state: int = 0):
        self.random_state = random_state

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The image columns, shuffled."""
        rng, images = np.random.default_rng(self.random_state), columns_of(X, "images")
        return pd.DataFrame({c: pd.Series([_shuffle(cell, rng) for cell in X[c]], X.index, object) for c in images})


_CENTRE = ("centre", "collection")
_SIZE = ("pet_mtv", "clinical_diameter")  # the tumour's volume in PET, else its diameter


def _first(X: pd.DataFrame, columns: Sequence[str]) -> str | None:
    return next((c for c in columns if c in X.columns), None)


def offered(X: pd.DataFrame) -> list[str]:
    """The controls that a cohort allows."""
    centre, found = _first(X, _CENTRE), ["permuted labels"]
    if centre is not None and X[centre].nunique() > 1:
        found.append("centre-only")
    if _first(X, _SIZE) is not None:
        found.append("volume-only")
    if columns_of(X, "images"):
        found.append("shuffled pixels")
    return found


def build(name: str, settings: Settings, X: pd.DataFrame, y: pd.DataFrame) -> Any:
    """A control, or a registered model, with the budget of the benchmark.

    Controls of one column are linear, or networks where linear models do not answer every task.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`, or as :func:`mmdls.list_models` shows it.
    settings : Settings
    X, y : pandas.DataFrame
        The cohort.

    Returns
    -------
    estimator
        Unfitted.
    """
    if name not in NAMES:
        return build_model(name, settings)
    of_one_column = tuned_network if unanswered(BASELINE, y) else tuned_linear
    steps: dict[str, tuple[Any, Any]] = {
        "permuted labels": (PermuteRows(), lambda: create(MULTIMODAL)),
        "centre-only": (OneColumn(_CENTRE), lambda: of_one_column(("control",))),
        "volume-only": (OneColumn(_SIZE), lambda: of_one_column(("control",))),
        "shuffled pixels": (ShufflePixels(), lambda: create("imaging_network")),
    }
    change, model = steps[name]
    return with_budget(Pipeline([("change", change), ("model", model())]), settings)


def audit_models(
    names: Sequence[str],
    X: pd.DataFrame,
    y: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    settings: Settings,
    workers: int = 1,
    **options: Any,
) -> pd.DataFrame:
    """Test every model with :func:`mmdls.audit.audit_procedure`, on some patients and the smallest budget.

    The options are those of that function.

    Returns
    -------
    pandas.DataFrame
        One row a check: check, passed, detail, which names the models that failed.
    """
    X, y = X.iloc[np.r_[train[:90], test[:30]]], y.iloc[np.r_[train[:90], test[:30]]]
    n_train, least = min(len(train), 90), replace(settings, trials=1, epochs=1, journal=None)
    parallel = joblib.Parallel(n_jobs=min(workers, len(names)))
    # Slow models, which are the last ones, start first, so that all workers end at about the same time.
    found = parallel(joblib.delayed(_audit_model)(name, X, y, n_train, least, options) for name in reversed(names))
    table = pd.concat([one.assign(model=name) for name, one in zip(names, reversed(found), strict=True)])
    rows = []
    for check, part in table.groupby("check", sort=False):
        bad = part[~part["passed"]]
        rows.append(
            (check, len(bad) == 0, "; ".join(f"{model}: {why}" for model, why in bad[["model", "detail"]].values))
        )
    return pd.DataFrame(rows, columns=["check", "passed", "detail"])


def _audit_model(
    name: str, X: pd.DataFrame, y: pd.DataFrame, n_train: int, settings: Settings, options: dict[str, Any]
) -> pd.DataFrame:
    def procedure(X: pd.DataFrame, y: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> dict[str, pd.DataFrame]:
        return left_out(build(name, settings, X, y), name, Split("audit", 0, train, test), X, y)[0]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts that are small on purpose
        return audit_procedure(procedure, X, y, range(n_train), range(n_train, len(X)), **options)


def _shuffle(cell: Any, rng: np.random.Generator) -> np.ndarray | None:
    if is_missing(cell):
        return None
    image = read_image(cell)
    flat = image.reshape(len(image), -1)
    return rng.permuted(flat, axis=1).reshape(image.shape)

"""Controls: arms that show what a benchmark would find if there were nothing to find, or nothing but a shortcut.

With permuted labels every arm must be at chance. A centre-only model shows how much the centre alone tells, a
volume-only model how much of the image is tumour size, and images with shuffled pixels how much is brightness.
:func:`audit_arms` tries out whether an arm learns from the patients left out.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import optuna
import pandas as pd

from benchmarks.arms import Answers, Classical, Deep, Settings, images_only
from benchmarks.arms import offered as arms_offered
from mmdls.audit import audit_procedure
from mmdls.images import is_missing, read_image

__all__ = ["NAMES", "CentreOnly", "PermutedLabels", "ShuffledPixels", "VolumeOnly", "audit_arms", "offered"]

NAMES = ("permuted labels", "centre-only", "volume-only", "shuffled pixels")


class PermutedLabels(Deep):
    """The multimodal model on patients who carry one another's features, in training and when left out.

    Exchanging features is exchanging labels, only that the answers can be held against the labels as they stand.
    """

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "PermutedLabels":
        """Fit with the features of training rows in another order."""
        return super().fit(self._exchanged(X), y)

    def predict(self, X: pd.DataFrame) -> Answers:
        """One table a task."""
        return super().predict(self._exchanged(X))

    def _exchanged(self, X: pd.DataFrame) -> pd.DataFrame:
        order = np.random.default_rng(self.settings.seed).permutation(len(X))
        return X.iloc[order].set_axis(X.index)


class _OneColumn(Classical):
    """A classical model of one column that is made from the cohort."""

    def __init__(self, settings: Settings):
        super().__init__(("control",), "cox", settings)

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "_OneColumn":
        """Fit on the column."""
        return super().fit(self._column(X), y)

    def predict(self, X: pd.DataFrame) -> Answers:
        """One table a task."""
        return super().predict(self._column(X))

    def _column(self, X: pd.DataFrame) -> pd.DataFrame:
        raise NotImplementedError


class CentreOnly(_OneColumn):
    """Nothing but the centre, or the part of the collection that a patient comes from."""

    def _column(self, X: pd.DataFrame) -> pd.DataFrame:
        name = "centre" if "centre" in X.columns else "collection"
        return pd.DataFrame({"control_centre": X[name].astype(object)})


class VolumeOnly(_OneColumn):
    """Nothing but the size of the tumour: its volume in PET, else its diameter."""

    @staticmethod
    def column(X: pd.DataFrame) -> str | None:
        """The column that holds the size."""
        return next((c for c in ("pet_mtv", "clinical_diameter") if c in X.columns), None)

    def _column(self, X: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"control_size": X[self.column(X)]})


class ShuffledPixels(Deep):
    """The imaging model on images whose pixels are shuffled inside each slice: greys stay, what they show is gone."""

    def __init__(self, settings: Settings):
        super().__init__(settings, images_only)

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "ShuffledPixels":
        """Fit on shuffled images."""
        return super().fit(self._shuffled(X), y)

    def predict(self, X: pd.DataFrame) -> Answers:
        """One table a task."""
        return super().predict(self._shuffled(X))

    def _shuffled(self, X: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng(self.settings.seed)
        return pd.DataFrame(
            {c: pd.Series([_shuffle(cell, rng) for cell in X[c]], X.index, object) for c in images_only(X)}
        )


def offered(X: pd.DataFrame, settings: Settings) -> dict[str, Callable[[], Any]]:
    """The controls that a cohort allows, by name, as functions that make them."""
    found: dict[str, Callable[[], Any]] = {"permuted labels": lambda: PermutedLabels(settings)}
    if X.filter(items=["centre", "collection"]).nunique().max() > 1:
        found["centre-only"] = lambda: CentreOnly(settings)
    if VolumeOnly.column(X) is not None:
        found["volume-only"] = lambda: VolumeOnly(settings)
    if images_only(X):
        found["shuffled pixels"] = lambda: ShuffledPixels(settings)
    return found


def audit_arms(
    names: Sequence[str],
    X: pd.DataFrame,
    y: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    settings: Settings,
    workers: int = 1,
    **options: Any,
) -> pd.DataFrame:
    """Try every arm out with :func:`mmdls.audit.audit_procedure`, on some patients and the smallest budget.

    The options are those of that function.

    Returns
    -------
    pandas.DataFrame
        One row a check: check, passed, detail, which names the arms that failed.
    """
    X, y = X.iloc[np.r_[train[:90], test[:30]]], y.iloc[np.r_[train[:90], test[:30]]]
    n_train, least = min(len(train), 90), replace(settings, trials=1, epochs=1, journal=None)
    parallel = joblib.Parallel(n_jobs=min(workers, len(names)))
    found = parallel(joblib.delayed(_audit_arm)(name, X, y, n_train, least, options) for name in names)
    table = pd.concat([one.assign(arm=name) for name, one in zip(names, found, strict=True)])
    rows = []
    for check, part in table.groupby("check", sort=False):
        bad = part[~part["passed"]]
        rows.append((check, len(bad) == 0, "; ".join(f"{arm}: {why}" for arm, why in bad[["arm", "detail"]].values)))
    return pd.DataFrame(rows, columns=["check", "passed", "detail"])


def _audit_arm(
    name: str, X: pd.DataFrame, y: pd.DataFrame, n_train: int, settings: Settings, options: dict[str, Any]
) -> pd.DataFrame:
    def procedure(X: pd.DataFrame, y: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> Answers:
        arm = (arms_offered(X, settings) | offered(X, settings))[name]()
        return arm.fit(X.iloc[train], y.iloc[train]).predict(X.iloc[test])

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

"""The cohort, the predictions of all models and their metrics, on which a report is based."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmdls import evaluation
from mmdls._hints import did_you_mean
from mmdls.cohort import align_rows, check_features, check_target, find_tasks
from mmdls.evaluation._checks import warn_of_late_horizons
from mmdls.evaluation._out_of_fold import own_folds
from mmdls.evaluation._predict import check_horizons, time_grid
from mmdls.zoo import Comparison
from mmdls.zoo._folds import predictions_of

# Columns that are used where the tables have them.
_USUAL = {"by": "centre", "treatment": "treatment"}

ENDPOINTS = {
    "os": "Overall survival",
    "dfs": "Disease-free survival",
    "pfs": "Progression-free survival",
    "rfs": "Recurrence-free survival",
}


class Study:
    """The cohort, the predictions and their metrics, from which the sections are written."""

    def __init__(
        self,
        models: Mapping[str, Any] | Comparison,
        X: pd.DataFrame,
        y: pd.DataFrame,
        training_outcomes: Mapping[str, np.ndarray] | None,
        horizons: Sequence[float],
        by: Any,
        folds: Any,
        split: pd.Series | None,
        treatment: Any,
        groups: pd.DataFrame | None,
        flow: Mapping[str, int] | None,
        n_resamples: int,
        random_state: Any,
        main: str | None,
        tests: bool = False,
        labels: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.labels, self.folder, self.tests = {**ENDPOINTS, **(labels or {})}, folder, tests
        self.found = models if isinstance(models, Comparison) else None
        if isinstance(models, Comparison):
            folds = models.folds if folds is None else folds
            names = [models.reference, *(name for name in models.predictions if name != models.reference)]
            models = {name: models.predictions[name] for name in names if name in models.predictions}
        if not models:
            raise ValueError("models is empty; give at least one fitted estimator or dict of predictions, by name.")
        folds, self.clusters = own_folds(list(models.values()), folds)
        check_features(X)
        y = align_rows(y, X.index, "y")
        self.X, self.y, self.horizons = X, y, tuple(map(float, horizons))
        warn_of_late_horizons(horizons, y, stacklevel=4)
        self.n_resamples, self.random_state = n_resamples, random_state
        self.predictions: dict[str, dict[str, Any]] = {}
        self.estimators: dict[str, Any] = {}
        self.crossed: dict[str, evaluation.OutOfFold] = {}
        self.training_outcomes = dict(training_outcomes or {})
        for name, model in models.items():
            if isinstance(model, Mapping):
                self.predictions[name] = dict(model)
                if isinstance(model, evaluation.OutOfFold):
                    self.crossed[name] = model
            else:
                self.estimators[name] = model
                self.predictions[name] = predictions_of(model, X, y, time_grid(check_horizons(horizons)))
                answered = [task for task in find_tasks(y).values() if task.name in self.predictions[name]]
                self.training_outcomes = {**evaluation.training_outcomes(model, answered), **self.training_outcomes}
        self.names = list(self.predictions)
        if main is not None and main not in self.names:
            raise KeyError(f"main={main!r} is none of the models {self.names}.")
        self.main = self.names[-1] if main is None else main
        predicted = dict.fromkeys(task for answers in self.predictions.values() for task in answers)
        self.tasks = check_target(y, list(predicted))
        self.centre, self.treatment = self._column(by, "by"), self._column(treatment, "treatment")
        self.columns: dict[str, str] = {}  # behind the names of subgroups
        self.split, self.flow = self._column(split, "split"), flow
        self.groups = self._subgroups() if groups is None else align_rows(groups, X.index, "groups")
        folds = align_rows(folds, X.index, "folds")
        self.n_folds = 0 if folds is None else pd.Series(folds).nunique()
        self.options: dict[str, Any] = {
            "training_outcomes": self.training_outcomes,
            "horizons": self.horizons,
            "n_resamples": n_resamples,
            "random_state": random_state,
            "folds": folds,
            "clusters": align_rows(self.clusters, X.index, "groups"),
        }
        self.tables = {n: evaluation.evaluate_predictions(p, y, **self.options) for n, p in self.predictions.items()}

    def label(self, name: Any, column: str = "") -> str:
        """The readable name of a column, task or class, or of a level of a column."""
        return self.labels.get(f"{column}={name}", self.labels.get(str(name), str(name)))

    def _column(self, given: Any, name: str) -> pd.Series | None:
        if isinstance(given, str):
            if given not in self.X.columns and given != _USUAL.get(name):
                raise KeyError(f"{name}={given!r} is no column of X.{did_you_mean(given, self.X.columns)}")
            return self.X[given] if given in self.X.columns else None
        values = align_rows(given, self.X.index, name)
        return values if values is None or isinstance(values, pd.Series) else pd.Series(values, self.X.index, name=name)

    def _subgroups(self) -> pd.DataFrame:
        found = {}
        for word in ("sex", "age", "smok", "histolog", "subtype", "stage"):
            for table in (self.X, self.y):
                fitting = [c for c in table.columns if any(p.startswith(word) for p in str(c).lower().split("_"))]
                if fitting and word not in found:
                    column = str(fitting[0])
                    name = self.labels.get(column, column.partition("_")[2] or column)
                    found[word], self.columns[name] = table[fitting[0]].rename(name), column
        for name, values in (("treatment", self.treatment), ("centre", self.centre)):
            if values is not None:
                found[name] = values.rename(name)
        return pd.DataFrame({series.name: series for series in found.values()}, index=self.y.index)

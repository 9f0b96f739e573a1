"""One endpoint from the numbers of a cohort: what scikit-survival's models share behind one front."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data
from sksurv.functions import StepFunction

from mmdls.cohort import (
    cell_kind,
    check_cohort,
    check_features,
    modalities,
    refuse_other_tables,
    warn_unused,
)
from mmdls.estimators.columns._selection import select_columns
from mmdls.estimators.survival._risk_groups import fit_cutpoints, risk_group
from mmdls.metrics import concordance_index, step_values, tied_times
from mmdls.metrics._horizons import check_times
from mmdls.model_selection import patient_groups
from mmdls.registry import CarriesParts
from mmdls.training._tables import endpoint_table, patient_weights, refuse_no_numbers, rows_with_values, scored_outcome

__all__ = ["LinearSurvival", "TabularSurvival"]

_PATIENTS = 1000  # whose whole curves are in memory at a time


class TabularSurvival(CarriesParts, BaseEstimator):
    """One endpoint from some columns of a cohort; subclasses say which pipeline is fitted."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "columns": [str, list, tuple, np.ndarray],
        "endpoint": [str, None],
    }
    # Groups reach the folds inside with metadata routing too, without being asked for.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}
    # Why a subclass takes no weights.
    _unweighted: str | None = None

    def _pipeline(self, target: np.ndarray) -> Pipeline:
        raise NotImplementedError

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> "TabularSurvival":
        """Fit on the patients whose outcome is known.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_features)
            A table of patients, of which ``columns`` are used, or a plain numeric array.
        y : pandas.DataFrame or structured array of shape (n_patients,)
            A table that holds the endpoint, or scikit-survival's target.
        sample_weight : array or Series of shape (n_patients,), default=None
            Weights of the patients in all that is learned: fillings, scales, model, baseline hazard and risk
            cut-points. A patient of weight 0 teaches nothing. :class:`CoxNet` and :class:`SurvivalBoosting` take none.
        groups : array or Series of shape (n_patients,), default=None
            Rows that belong together, for the folds in which a penalty is chosen. Without them, rows of one patient, by
            the index or a column such as ``patient_id``, are kept together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, an outcome or a weight cannot be right, or the model takes no weights.

        Warns
        -----
        UserWarning
            If the tertiles of the training risks leave a risk group without patients.
        """
        self._validate_params()
        if not len(self.columns) or any(not isinstance(name, str) for name in self.columns):
            raise ValueError(
                f"columns must hold names of columns or blocks, such as ['clinical', 'pet_suvmax'], or be 'all'; got "
                f"{self.columns!r}."
            )
        if sample_weight is not None and self._unweighted:
            raise ValueError(
                f"{type(self).__name__} takes no sample_weight: {self._unweighted}. ClinicalCox, RadiomicsCox, "
                "SignWeightedBagging and SurvivalForest take weights."
            )
        features, by_id = self._features(X, reset=True), isinstance(X, pd.DataFrame)
        outcomes, name = endpoint_table(y, features.index, self.endpoint, by_id=by_id)
        tasks = check_cohort(X if by_id else features, outcomes, [name])
        target = tasks[name].outcome(outcomes)
        used = ~np.isnan(target["time"])
        weight = patient_weights(sample_weight, features.index, by_id=by_id)
        if weight is not None:
            used &= weight > 0
            weight = weight[used]
            if not target["event"][used].any():
                raise ValueError(
                    f"endpoint {name!r} has no event among the {used.sum()} patients whose sample_weight is above 0; "
                    "nothing can be learned."
                )
        self._name = name
        outcome, features = target[used], features[used]
        # scikit-survival refuses time zero only in some models; half a day keeps the order and is the same for all.
        usable = outcome.copy()
        usable["time"] = tied_times(np.maximum(usable["time"], 1 / 60))
        pipeline = self._pipeline(usable)
        weights = {} if weight is None else {f"{step}__sample_weight": weight for step, _ in pipeline.steps}
        if has_fit_parameter(pipeline[-1], "groups"):
            together = patient_groups(X if by_id else features, groups)
            weights[f"{pipeline.steps[-1][0]}__groups"] = None if together is None else together[used]
        with config_context(enable_metadata_routing=False):  # the steps are named
            self.pipeline_ = pipeline.fit(features, usable, **weights)
        self.tasks_ = tasks
        self.training_outcomes_ = {name: outcome}
        self.risk_cutpoints_ = {name: fit_cutpoints(self.pipeline_.predict(features), weight, endpoint=name)}
        self.unique_times_ = self._model.unique_times_
        self.event_times_ = np.unique(outcome["time"][outcome["event"]])
        self._finish()
        return self

    def _finish(self) -> None:
        """Attributes and warnings of a subclass, at the end of ``fit``."""

    @property
    def _model(self) -> Any:
        last = self.pipeline_[-1]
        return getattr(last, "best_estimator_", last)

    def _features(self, X: Any, *, reset: bool) -> pd.DataFrame:
        refuse_other_tables(X, "X")
        if reset and isinstance(X, pd.DataFrame) and X.shape[1] == 0:
            raise ValueError(
                f"X has 0 feature(s), and a minimum of 1 is required; {type(self).__name__} reads "
                f"{self.columns!r}. mmdls.cohort.read_cohort takes features from blocks={{'clinical': [...]}}."
            )
        named = isinstance(X, pd.DataFrame) and any(isinstance(column, str) for column in X.columns)
        if not named or not (reset or hasattr(self, "feature_names_in_")):
            if (
                hasattr(self, "feature_names_in_")
                and not reset
                and isinstance(X, np.ndarray)
                and X.dtype.kind not in "biuf"
            ):
                raise TypeError(
                    "the model was fitted on a table of patients; X must be a pandas DataFrame too, with names of its "
                    f"columns; got {type(X).__name__}."
                )
            index = check_features(X).index if isinstance(X, pd.DataFrame) else None
            refuse_no_numbers(X)
            values = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
            names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(values.shape[1])])
            return pd.DataFrame(values, columns=names, index=index)
        check_features(X)
        if reset:
            found = modalities(X)
            columns = self._select(X, found)
            self.feature_names_in_ = np.asarray(columns, dtype=object)
            self.n_features_in_ = len(columns)
            standard = {c for block in ("clinical", "pet", "radiomics") for c in found.get(block, ())}
            carried = [c for c in X.columns if c not in standard and cell_kind(c) is None]
            unused = [c for c in carried if c not in columns]
            warn_unused(X, unused, f"This model reads {self.columns!r}.", stacklevel=4)
        gone = [c for c in self.feature_names_in_ if c not in X.columns]
        if gone:
            raise ValueError(
                f"X lacks the columns {gone}, which were there in fit; fill them with NaN for patients without them."
            )
        features = X[list(self.feature_names_in_)]
        if not reset and (alone := ~rows_with_values(features)).any():
            warnings.warn(
                f"{alone.sum()} of {len(X)} patients have no value in any column of this model; their predictions are "
                f"those of a patient with typical values. First: {list(X.index[alone][:3])}.",
                stacklevel=4,
            )
        return features

    def _select(self, X: pd.DataFrame, found: dict[str, list[str]]) -> list[str]:
        """The columns that are read; those of images, masks and vectors are refused."""
        name = type(self).__name__
        if isinstance(self.columns, str) and self.columns == "all":
            blocks = [columns for columns in found.values() if cell_kind(columns[0]) is None]
            if not blocks:
                shown = list(X.columns)[:30]
                raise ValueError(f"{name} reads all blocks of numbers or categories, and X has none. Columns: {shown}.")
            return [column for columns in blocks for column in columns]
        columns = select_columns(X, self.columns, name)
        if cells := [column for column in columns if cell_kind(column) is not None]:
            raise ValueError(f"{name} reads numbers and categories; {cells} hold something else. Leave them out.")
        return columns

    def predict(self, X: Any) -> np.ndarray:
        """Risk, higher = earlier event, (n_patients,)."""
        check_is_fitted(self, "pipeline_")
        return np.asarray(self.pipeline_.predict(self._features(X, reset=False)), dtype=float)

    def predict_tasks(self, X: Any, times: Sequence[float] = ()) -> dict[str, pd.DataFrame]:
        """Risk and survival; what :mod:`mmdls.evaluation` reads.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_features)
        times : sequence of float, default=()
            Months at which survival is given.

        Returns
        -------
        dict of str to pandas.DataFrame
            By endpoint, one row a patient: ``risk`` (higher = earlier event) and survival probabilities, one column a
            time, NaN beyond the training follow-up.
        """
        check_is_fitted(self, "pipeline_")
        table = pd.DataFrame({"risk": np.asarray(self.predict(X), dtype=float)})
        if len(times):
            grid = np.asarray(times, dtype=np.float64)
            survival = self._survival_at(self._features(X, reset=False), grid)
            table = pd.concat([table, pd.DataFrame(survival, columns=grid)], axis=1)
        return {self._name: table.set_axis(X.index) if isinstance(X, pd.DataFrame) else table}

    def _survival_at(self, features: pd.DataFrame, times: np.ndarray) -> np.ndarray:
        """Survival at some times, NaN beyond the training follow-up; (n_patients, n_times)."""
        values = self.pipeline_[:-1].transform(features)
        end = max(self.unique_times_[-1], self.training_outcomes_[self._name]["time"].max())
        found = np.empty((len(features), len(times)))
        for start in range(0, len(features), _PATIENTS):
            rows = slice(start, start + _PATIENTS)
            steps = self._model.predict_survival_function(values[rows], return_array=True)
            found[rows] = step_values(self.unique_times_, steps, times)
        return np.where(times <= end, found, np.nan)

    def predict_survival_function(self, X: Any, return_array: bool = False, times: Any = None) -> np.ndarray:
        """Survival functions: step functions, or probabilities (n_patients, n_times) at ``unique_times_``.

        Parameters
        ----------
        X : pandas.DataFrame or array of shape (n_patients, n_features)
        return_array : bool, default=False
        times : sequence of float, default=None
            Months: only the probabilities there are computed and given, NaN beyond the training follow-up.
        """
        check_is_fitted(self, "pipeline_")
        if times is not None:
            return self._survival_at(self._features(X, reset=False), check_times(times))
        return self._curves(X, self._model.predict_survival_function, 1.0, return_array)

    def predict_cumulative_hazard_function(self, X: Any, return_array: bool = False) -> np.ndarray:
        """Cumulative hazard functions; see :meth:`predict_survival_function`."""
        check_is_fitted(self, "pipeline_")
        return self._curves(X, self._model.predict_cumulative_hazard_function, 0.0, return_array)

    def _curves(self, X: Any, method: Any, start: float, return_array: bool) -> np.ndarray:
        values = method(self.pipeline_[:-1].transform(self._features(X, reset=False)), return_array=True)
        if return_array:
            return values
        # scikit-survival's functions hold their first value from time zero on; a curve starts where nobody has died.
        times, values = np.r_[0.0, self.unique_times_], np.c_[np.full(len(values), start), values]
        functions = np.empty(len(values), dtype=object)
        functions[:] = [StepFunction(times, row, domain=(0, None)) for row in values]
        return functions

    def predict_risk_group(self, X: Any) -> np.ndarray:
        """Risk group, 0 (low) to 2 (high), by the tertiles of the training risks, (n_patients,).

        A risk equal to a cut-point belongs to the lower group.
        """
        return risk_group(self.predict(X), self.risk_cutpoints_[self._name])

    def score(self, X: Any, y: Any) -> float:
        """Harrell's C-index."""
        risk = self.predict(X)
        index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(risk))
        target = scored_outcome(y, index, self._name, by_id=isinstance(X, pd.DataFrame))
        known = ~np.isnan(target["time"])
        return float(concordance_index(target["event"][known], target["time"][known], risk[known]))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


class LinearSurvival(TabularSurvival):
    """One endpoint from a weighted sum of the columns that the steps before the model give."""

    @property
    def coef_(self) -> pd.Series:
        """Log hazard ratios, (n_covariates,), by the names of the columns that the model reads.

        Numbers are standardised on the training rows, so that a coefficient is that of one standard deviation
        (:class:`TabularEncoder`: after the power transform, or of a spline); categories and ``_missing`` are 0 or 1.
        """
        check_is_fitted(self, "pipeline_")
        names = pd.Index(self.pipeline_[:-1].get_feature_names_out(), name="covariate")
        return pd.Series(np.ravel(self._coefficients()), index=names, name="coef")

    def _coefficients(self) -> np.ndarray:
        return self._model.coef_

"""How often sets and bounds hold."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from mmdls._hints import did_you_mean
from mmdls.cohort import align_rows, refuse_measurements
from mmdls.evaluation._checks import check_level
from mmdls.metrics import CensoringDistribution
from mmdls.tasks._reading import warn_of_new_classes
from mmdls.training._tables import outcome_table

__all__ = ["coverage_table"]


def coverage_table(
    model: Any, X: pd.DataFrame, y: Any, *, by: Any = None, confidence_level: float = 0.95
) -> pd.DataFrame:
    """How often label sets hold the true label, and bounds are outlived, overall and in each group, with intervals.

    Parameters
    ----------
    model : ConformalPredictor
        Fitted.
    X : pandas.DataFrame
        Patients who neither trained nor calibrated it.
    y : pandas.DataFrame, labels or structured array
        Their outcomes; unknown ones are left out, and so are classes that no training patient had, with a warning.
    by : str, Series or array of shape (n_patients,), default=None
        A column of X or one value a patient, such as the centre; a Series is joined by its index. Patients without
        a value are in no group.
    confidence_level : float, default=0.95
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns task, group (``"all"`` first), nominal, coverage, low, high, n, mean_size (classes in a set, or months
        of a bound), certain (share of sets with one class, or of bounds above 0), empty (share of sets without a
        class; NaN for bounds). Deaths before a bound are weighted by the inverse probability of being followed until
        then (Kaplan-Meier in the group). Intervals are Wilson's, with the effective number of patients.

    Raises
    ------
    TypeError
        If the model gives no sets.
    KeyError
        If ``y`` lacks a column of a task of the model.
    ValueError
        If ``by`` names no column or holds a measurement, a group is called "all", or the level is not between 0 and 1.

    Examples
    --------
    >>> from mmdls import ClinicalCox
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> from mmdls.uncertainty import ConformalPredictor
    >>> X, y = make_nsclc_cohort(300, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    >>> model = ConformalPredictor(ClinicalCox(), random_state=0).fit(X[:200], y[["os_time", "os_event"]][:200])
    >>> coverage_table(model, X[200:], y[200:], by="centre").shape
    (6, 10)
    """
    if not hasattr(model, "predict_sets"):
        raise TypeError(f"model must be a fitted ConformalPredictor; got {type(model).__name__}.")
    y = outcome_table(y, X.index)
    check_level(confidence_level)
    members = {"all": np.ones(len(X), dtype=bool)} | _members(X, by)
    sets, bounds = model.predict_sets(X), model.predict_lower_bounds(X)
    quantile = float(norm.ppf((1 + confidence_level) / 2))
    rows = []
    for name in (*sets, *bounds):
        task = model.tasks_[name]
        if lost := [column for column in task.columns if column not in y]:
            raise KeyError(f"y lacks {lost}, which {name!r} needs; its columns are {list(y.columns)}.")
        outcome = task.outcome(y)
        if name in sets:
            warn_of_new_classes(task, y, outcome, "coverage")
        for group, rows_of in members.items():
            inside = rows_of & task.known(outcome)
            if not inside.any():
                continue
            own = outcome[inside]
            if name in sets:
                table = sets[name].to_numpy()[inside]
                missed = (~table[np.arange(len(own)), own]).astype(float)
                size = table.sum(axis=1)
                shown = size.mean(), (size == 1).mean(), (size == 0).mean()
            else:
                bound = bounds[name].to_numpy()[inside]
                weight = CensoringDistribution(own).event_weight(own["event"], own["time"])
                missed = np.where(own["time"] < bound, weight, 0.0)
                shown = bound.mean(), (bound > 0).mean(), np.nan
            interval = _wilson(missed, quantile)
            rows.append((name, group, model.confidence_level, *interval, len(own), *shown))
    columns = "task group nominal coverage low high n mean_size certain empty".split()
    return pd.DataFrame(rows, columns=columns)


def _members(X: pd.DataFrame, by: Any) -> dict[Any, np.ndarray]:
    """Who is in which group, (n_patients,), bool; nobody without groups."""
    if by is None:
        return {}
    if isinstance(by, str) and by not in X.columns:
        raise ValueError(f"by={by!r} is no column of X.{did_you_mean(by, X.columns)} Columns: {list(X.columns)[:20]}.")
    given = X[by] if isinstance(by, str) else align_rows(by, X.index, "by")
    refuse_measurements(given, "by")
    groups = pd.Series(np.asarray(given, dtype=object))
    found = sorted(groups.dropna().unique(), key=str)
    if "all" in found:
        raise ValueError("a group of by= is called 'all', as the row of all patients is; give it another name.")
    return {value: (groups == value).to_numpy() for value in found}


def _wilson(missed: np.ndarray, quantile: float) -> tuple[float, float, float]:
    """One minus the mean of weights of errors, with Wilson's interval for as many patients as its variance says."""
    share = float(np.clip(1 - missed.mean(), 0, 1))
    variance = missed.var() / len(missed)
    n = share * (1 - share) / variance if variance > 0 and 0 < share < 1 else len(missed)
    centre = (share + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half = quantile * np.sqrt(share * (1 - share) / n + quantile**2 / (4 * n**2)) / (1 + quantile**2 / n)
    return share, centre - half, centre + half

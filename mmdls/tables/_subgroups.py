"""Metrics within subgroups, and their random-effects mean over centres."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm, t

from mmdls.cohort import Task, align_rows, check_target, refuse_measurements
from mmdls.evaluation import evaluate_predictions
from mmdls.evaluation._checks import check_names
from mmdls.tables._cohort import levels

__all__ = ["random_effects_summary", "subgroups"]


def subgroups(
    predictions: Mapping[str, Any],
    y: pd.DataFrame,
    groups: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    min_patients: int = 20,
    min_events: int = 10,
    **options: Any,
) -> pd.DataFrame:
    """Metrics within subgroups; small subgroups are suppressed.

    Parameters
    ----------
    predictions, y
        As in :func:`mmdls.evaluation.evaluate_predictions`.
    groups : pandas.DataFrame
        One column a grouping (sex, age, smoking, centre, stage, treatment, ...), joined by patient id. Numbers with
        more than five values are divided at their median. A patient without a value is in no level of the grouping.
    metrics : sequence of str, default=None
        Names as in the table of :func:`mmdls.evaluation.evaluate`; None means the main one of each kind of task:
        ``concordance_index`` of an endpoint, ``auc`` of a class task.
    min_patients, min_events : int, default=20 and 10
        Smaller subgroups show neither values nor counts; their note is ``suppressed (n < 20)`` or similar. For a class
        task, ``min_events`` is the smallest number of patients in each class.
    **options
        Passed to :func:`mmdls.evaluation.evaluate_predictions`.

    Returns
    -------
    pandas.DataFrame
        Columns group, level and those of :func:`mmdls.evaluation.evaluate`; the level "all" comes first.

    Raises
    ------
    TypeError
        If ``groups`` is no DataFrame.
    ValueError
        If a grouping holds dates, or a measurement as text.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> risk = pd.Series(rng.normal(size=80))
    >>> y = pd.DataFrame({"os_time": rng.exponential(np.exp(-risk)), "os_event": 1})
    >>> groups = pd.DataFrame({"sex": ["f"] * 70 + ["m"] * 10})
    >>> subgroups({"os": risk}, y, groups, n_resamples=0, horizons=())[["group", "level", "n"]]
      group level   n
    0   all   all  80
    1   sex     f  70
    2   sex     m  <NA>
    """
    check_names(metrics)
    if not isinstance(groups, pd.DataFrame):
        raise TypeError(f"groups must be a DataFrame, one column a grouping; got {type(groups).__name__}.")
    patients = y.index[y.index.isin(pd.Index([]).append([table.index for table in predictions.values()]))]
    groups = align_rows(groups, patients, "groups")
    tables = [("all", "all", np.ones(len(groups), dtype=bool))]
    for name, values in groups.items():
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > 5:
            tables += [(name, level, member) for level, member in _halves(values)]
        else:
            refuse_measurements(values, f"groups[{name!r}]")
            # Of a missing value NA is neither the one nor the other.
            tables += [(name, str(value), (values == value).fillna(False)) for value in levels(values)]
    tasks, rows = check_target(y, list(predictions)), []
    # Which metrics a list of the caller gives may differ from group to group; the main one is always there.
    wanted = {name: [task.main_metric] if metrics is None else list(metrics) for name, task in tasks.items()}
    # Of groups that are too small the names of the metrics are shown: those of all patients, if they are enough.
    given = {name: set(task.metrics) for name, task in tasks.items()}
    for group, level, member in tables:
        inside = groups.index[np.asarray(member, dtype=bool)]
        for task, predicted in predictions.items():
            if group == task:
                continue
            chosen = predicted.loc[predicted.index.isin(inside)]
            outcome = tasks[task].outcome(y.loc[chosen.index])
            if note := _too_few(tasks[task], outcome, min_patients, min_events):
                shown = [name for name in wanted[task] if name in given[task]]
                rows += [{"group": group, "level": level, "task": task, "metric": m, "note": note} for m in shown]
                continue
            computed = wanted[task] if metrics is None else None
            table = evaluate_predictions({task: chosen}, y, metrics=computed, **options)
            if group == "all":
                given[task] = set(table["metric"])
            table = table[table["metric"].isin(wanted[task])]
            rows += [{"group": group, "level": level, **row} for row in table.to_dict("records")]
    columns = ["group", "level", "task", "metric", "horizon", "value", "low", "high", "n", "n_events", "note"]
    return pd.DataFrame(rows, columns=columns).astype({"n": "Int64", "n_events": "Int64"})


def _too_few(task: Task, outcome: np.ndarray, min_patients: int, min_events: int) -> str:
    """Why a subgroup is not shown; nothing, if it is large enough."""
    if task.known(outcome).sum() < min_patients:
        return f"suppressed (n < {min_patients})"
    if task.effective_size(outcome) < min_events:
        what = "events" if task.is_censored else "smallest class" if task.has_classes else "n"
        return f"suppressed ({what} < {min_events})"
    return ""


def _halves(values: pd.Series) -> list[tuple[str, np.ndarray]]:
    """Patients up to and above the median; if nobody is above it, below it and from it on."""
    values = values.astype(np.float64)
    middle = values.median()
    shown = f"{middle:g}"
    if len(shown) > 5:  # more digits than can be read
        shown = f"{middle:.3g}" if abs(middle) < 100 else f"{middle:.0f}"
    if (values > middle).any():
        return [(f"up to {shown}", (values <= middle).to_numpy()), (f"above {shown}", (values > middle).to_numpy())]
    return [(f"below {shown}", (values < middle).to_numpy()), (f"from {shown}", (values >= middle).to_numpy())]


def random_effects_summary(values: Any, low: Any, high: Any, confidence_level: float = 0.95) -> dict[str, float]:
    """Random-effects mean of a metric over centres, with a prediction interval for a new centre.

    Computed on the logit scale, since C-index and AUC lie between 0 and 1; standard errors come from the intervals.

    Parameters
    ----------
    values, low, high : array of shape (k,)
        A metric between 0 and 1 and its interval, by centre; centres with NaN are left out.
    confidence_level : float, default=0.95
        Of the given and of the returned intervals.

    Returns
    -------
    dict
        ``value``, ``low``, ``high``; ``predicted_low``, ``predicted_high`` (prediction interval: Student t with k - 2
        degrees of freedom; NaN below 3 centres); ``heterogeneity`` (standard deviation between centres on the logit
        scale); ``n_centres``.

    References
    ----------
    .. [1] DerSimonian R, Laird N. Meta-analysis in clinical trials. Controlled Clinical Trials, 1986.
    .. [2] Snell KIE et al. Meta-analysis of prediction model performance across multiple studies: which scale helps
       ensure between-study normality for the C-statistic? Statistical Methods in Medical Research, 2018.

    Examples
    --------
    >>> pooled = random_effects_summary([0.7, 0.7, 0.7], [0.6, 0.6, 0.6], [0.8, 0.8, 0.8])
    >>> round(pooled["value"], 3), pooled["heterogeneity"], bool(pooled["low"] > 0.6)
    (0.7, 0.0, True)
    """
    values, low, high = (np.asarray(a, dtype=np.float64) for a in (values, low, high))
    known = ~np.isnan(values + low + high) & (low < high)
    with np.errstate(divide="ignore"):
        effect = logit(values[known])
        error = (logit(high[known]) - logit(low[known])) / (2 * norm.ppf((1 + confidence_level) / 2))
    finite = np.isfinite(effect) & np.isfinite(error)
    effect, error = effect[finite], error[finite]
    k = len(effect)
    nothing = dict.fromkeys(("value", "low", "high", "predicted_low", "predicted_high", "heterogeneity"), float("nan"))
    if not k:
        return nothing | {"n_centres": 0}
    weight = error**-2.0
    fixed = (weight * effect).sum() / weight.sum()
    excess = (weight * (effect - fixed) ** 2).sum() - (k - 1)
    between = max(0.0, excess / (weight.sum() - (weight**2).sum() / weight.sum())) if k > 1 else 0.0
    weight = 1 / (error**2 + between)
    mean, error = (weight * effect).sum() / weight.sum(), weight.sum() ** -0.5
    margin = norm.ppf((1 + confidence_level) / 2) * error
    new = t.ppf((1 + confidence_level) / 2, k - 2) * np.sqrt(between + error**2) if k > 2 else float("nan")
    results = expit([mean, mean - margin, mean + margin, mean - new, mean + new])
    return dict(zip(nothing, [*map(float, results), float(np.sqrt(between))], strict=True)) | {"n_centres": k}

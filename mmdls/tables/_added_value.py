"""What each of a row of growing models adds to the one before."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression

from mmdls import metrics
from mmdls.cohort import find_tasks, survival_target
from mmdls.evaluation import compare_predictions, evaluate_predictions
from mmdls.metrics import holm_correction

__all__ = ["added_value"]


def added_value(
    models: Mapping[str, Mapping[str, Any]],
    y: pd.DataFrame,
    *,
    metrics: Sequence[str] = ("concordance_index", "integrated_brier_score", "integrated_prediction_accuracy", "auc"),
    **options: Any,
) -> pd.DataFrame:
    """What each model adds to the one before it: differences of metrics, and likelihood-ratio tests.

    Parameters
    ----------
    models : dict of predictions
        From the smallest to the largest, for example stage, clinical, with PET, with images; each as in
        :func:`mmdls.evaluation.evaluate_predictions`. Predictions for patients that no model has learned from.
    y : pandas.DataFrame
    metrics : sequence of str
    **options
        To :func:`mmdls.evaluation.compare_predictions`.

    Returns
    -------
    pandas.DataFrame
        Columns task, model, metric, horizon, value, gain (over the model before), low, high, p, p_holm (within each
        task), n, note. Rows of metric ``likelihood_ratio`` give as value the chi-squared statistic of adding this
        model's score to the earlier one's in a Cox (logistic) model, as gain the share of that model's likelihood
        that the earlier score alone does not have.

    References
    ----------
    .. [1] Harrell FE. Regression modeling strategies, 2nd edition, section 9.8.4 (adequacy index). Springer, 2015.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 120))
    >>> y = pd.DataFrame({"os_time": rng.exponential(np.exp(-a - b)), "os_event": 1})
    >>> models = {"stage": {"os": pd.Series(a)}, "all": {"os": pd.Series(a + b)}}
    >>> added_value(models, y, n_resamples=100, horizons=())[["model", "metric", "gain"]].round(2)
       model             metric  gain
    0  stage  concordance_index   NaN
    1    all  concordance_index  0.09
    2    all   likelihood_ratio  0.67
    """
    names, rows = list(models), []
    first = evaluate_predictions(models[names[0]], y, **{**options, "n_resamples": 0})
    for row in first[first["metric"].isin(metrics)].to_dict("records"):
        rows.append({**row, "model": names[0], "low": np.nan, "high": np.nan})
    for before, name in zip(names, names[1:], strict=False):
        table = compare_predictions(models[name], models[before], y, metrics=metrics, **options)
        table = table.rename(columns={"first": "value", "difference": "gain"})
        rows += [{**row, "model": name} for row in table.to_dict("records")]
        for task in (task for task in models[name] if task in models[before]):
            rows.append(
                {"task": task, "model": name, **_likelihood_ratio(models[before][task], models[name][task], y, task)}
            )
    columns = ["task", "model", "metric", "horizon", "value", "gain", "low", "high", "p", "p_holm", "n", "note"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    order = list(dict.fromkeys(table["task"]))
    table = table.sort_values("task", key=lambda t: t.map(order.index), kind="stable", ignore_index=True)
    for task in order:
        own = table["task"] == task
        table.loc[own, "p_holm"] = holm_correction(table.loc[own, "p"])
    table["note"] = table["note"].fillna("")
    return table


def _likelihood_ratio(smaller: Any, larger: Any, y: pd.DataFrame, task: str) -> dict[str, Any]:
    """Chi-squared of the larger model's score beside the smaller's, and its share of the likelihood of both."""
    index = smaller.index.intersection(larger.index)
    smaller, larger, y = smaller.loc[index], larger.loc[index], y.loc[index]
    row = {"metric": "likelihood_ratio", "note": ""}
    if find_tasks(y)[task].kind == "survival":
        outcome = survival_target(y, task)
        known = ~np.isnan(outcome["time"])
        scores = [(t if isinstance(t, pd.Series) else t["risk"]).to_numpy(np.float64)[known] for t in (smaller, larger)]
        event, time = outcome["event"][known], outcome["time"][known]
        one = metrics.cox_regression(event, time, scores[0])
        two = metrics.cox_regression(event, time, np.column_stack(scores))
        alone, both = (2 * (fit.log_likelihood - fit.null_log_likelihood) for fit in (one, two))
        n, added = int(known.sum()), 1
    else:
        known = y[task].notna().to_numpy()
        labels = y.loc[known, task].astype(str).to_numpy()
        classes, labels = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            return row | {"note": "only one class"}
        scores = [_log_odds(table[known]) for table in (smaller, larger)]
        alone, both = (_logistic_statistic(np.column_stack(s), labels) for s in (scores[:1], scores))
        n, added = int(known.sum()), scores[1].shape[1] * (len(classes) - 1)
    if not np.isfinite(both - alone):
        return row | {"n": n, "note": "the two scores are the same or the regression has no finite maximum"}
    statistic = max(both - alone, 0.0)
    return row | {"value": statistic, "gain": statistic / both, "p": float(chi2.sf(statistic, added)), "n": n}


def _log_odds(probability: pd.DataFrame) -> np.ndarray:
    """Log odds of every class against the first."""
    values = np.log(np.clip(probability.to_numpy(np.float64), 1e-6, 1.0))
    return values[:, 1:] - values[:, :1]


def _logistic_statistic(scores: np.ndarray, labels: np.ndarray) -> float:
    """Twice the gain in log-likelihood over the class frequencies."""
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-12)
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(scores, labels)
    own = model.predict_log_proba(scores)[np.arange(len(labels)), labels].sum()
    share = np.bincount(labels) / len(labels)
    return float(2 * (own - np.log(share)[labels].sum()))

"""Added value of each model in a sequence of growing models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from mmdls.cohort import Task, align_rows, check_target
from mmdls.evaluation import compare_predictions, evaluate_predictions
from mmdls.evaluation._checks import check_names
from mmdls.metrics import holm_correction

__all__ = ["added_value"]


def added_value(
    models: Mapping[str, Mapping[str, Any]],
    y: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    external: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Added value of each model over the one before it: differences of metrics, likelihood-ratio tests.

    Parameters
    ----------
    models : dict of predictions
        From the smallest to the largest, for example stage, clinical, with PET, with images; each as in
        :func:`mmdls.evaluation.evaluate_predictions`, for patients on whom no model was fitted.
    y : pandas.DataFrame
    metrics : sequence of str, default=None
        Names as in the table of :func:`mmdls.evaluation.evaluate`. None means few of each kind of task: of an endpoint
        ``concordance_index``, ``integrated_brier_score`` and ``integrated_ipa``, of a class task ``auc``.
    external : bool, default=False
        True states that no model and no choice between models used these patients, as in an external cohort. Only then
        likelihood-ratio tests are given. Out-of-fold scores of cross-validation are not external: each comes from a
        model fitted on the other patients, so scores are dependent, and the test would have a type I error of 15 to
        18 % instead of 5 %.
    **options
        To :func:`mmdls.evaluation.compare_predictions`.

    Returns
    -------
    pandas.DataFrame
        Columns task, model, metric, horizon, value, gain (over the model before), low, high, p, p_holm (within each
        task), n, note. The p-values of metrics are those of their paired differences, conditional on the fitted
        models. In rows of the metric ``likelihood_ratio`` the value is the chi-squared statistic of adding the score of
        this model to that of the earlier one in a regression (Cox for an endpoint, logistic for a label, linear for a
        number) with non-negative coefficients, since a score with a reversed sign adds nothing; p is one-sided. Their
        gain is the difference of the adequacy of the two scores alone, as a fraction of the likelihood ratio of both:
        negative if this model is worse.

    References
    ----------
    .. [1] Harrell FE. Regression modeling strategies, 2nd edition, section 9.8.4 (adequacy index). Springer, 2015.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 120))
    >>> y = pd.DataFrame({"os_time": rng.exponential(np.exp(-a - b)), "os_event": 1})
    >>> models = {"stage": {"os": pd.Series(a)}, "all": {"os": pd.Series(a + b)}}
    >>> added_value(models, y, external=True, n_resamples=100, horizons=())[["model", "metric", "gain"]].round(2)
       model             metric  gain
    0  stage  concordance_index   NaN
    1    all  concordance_index  0.09
    2    all   likelihood_ratio  0.65
    """
    check_names(metrics)
    tasks = check_target(y, list(dict.fromkeys(task for predictions in models.values() for task in predictions)))
    names, rows = list(models), []
    first = evaluate_predictions(models[names[0]], y, **{**options, "n_resamples": 0})
    if metrics is None:
        few = [name for task in tasks.values() for name in task.added_metrics or (task.main_metric,)]
        metrics = [name for name in dict.fromkeys(few) if name in set(first["metric"])]
    for row in first[first["metric"].isin(metrics)].to_dict("records"):
        rows.append({**row, "model": names[0], "low": np.nan, "high": np.nan})
    for before, name in zip(names, names[1:], strict=False):
        table = compare_predictions(models[name], models[before], y, metrics=metrics, **options)
        table = table.rename(columns={"first": "value", "difference": "gain"})
        rows += [{**row, "model": name} for row in table.to_dict("records")]
        for task in (task for task in models[name] if external and task in models[before]):
            row = _likelihood_ratio(models[before][task], models[name][task], y, tasks[task])
            if row is not None:
                rows.append({"task": task, "model": name, **row})
    columns = ["task", "model", "metric", "horizon", "value", "gain", "low", "high", "p", "p_holm", "n", "note"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    order = list(dict.fromkeys(table["task"]))
    table = table.sort_values("task", key=lambda t: t.map(order.index), kind="stable", ignore_index=True)
    for task in order:
        own = table["task"] == task
        table.loc[own, "p_holm"] = holm_correction(table.loc[own, "p"])
    table["note"] = table["note"].fillna("")
    return table


def _likelihood_ratio(smaller: Any, larger: Any, y: pd.DataFrame, task: Task) -> dict[str, Any] | None:
    """Likelihood ratio of adding the larger model's score to the smaller's, with non-negative coefficients.

    None for a kind of task that has no such regression.
    """
    index = smaller.index.intersection(larger.index)
    y = align_rows(y, index, "y")
    tables = [table.to_frame("risk") if isinstance(table, pd.Series) else table for table in (smaller, larger)]
    read = [task.read_predictions(table.loc[index], y) for table in tables]
    task = read[0][0]  # with the classes of the models
    outcome = task.outcome(y)
    known = task.known(outcome)
    outcome, scores = outcome[known], [table.loc[known] for _, table in read]
    row: dict[str, Any] = {"metric": "likelihood_ratio", "n": int(known.sum()), "note": ""}
    if reason := task.uninformative(outcome):
        return row | {"note": reason}
    fits = [fit for chosen in (scores[:1], scores[1:], scores) if (fit := task.association(outcome, chosen))]
    if not fits:
        return None
    (one, first), (two, second), (both, slopes) = fits
    one, two = one * (first[0] > 0), two * (second[0] > 0)
    if not np.isfinite([one, two, both, *slopes]).all() or both <= 0:
        return row | {"note": "the two scores are equal, or the regression has no finite maximum"}
    # With a negative coefficient the constrained maximum lies on the boundary: one score alone.
    both = both if (slopes > 0).all() else max(one, two)
    added = max(both - one, 0.0)
    note = "adds to the model before, but is not better alone" if added > 0 and two <= one else ""
    # Under the null hypothesis a non-negative coefficient is 0 with probability one half.
    p = 0.5 * float(chi2.sf(added, 1)) if added > 0 else 1.0
    return row | {"value": added, "gain": (two - one) / both if both > 0 else 0.0, "p": p, "note": note}

"""Added value of each model in a sequence of growing models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from scipy.stats import chi2

from mmdls import metrics
from mmdls.cohort import align_rows, class_codes, find_tasks, survival_target
from mmdls.evaluation import compare_predictions, evaluate_predictions
from mmdls.evaluation._checks import check_names
from mmdls.metrics import holm_correction

__all__ = ["added_value"]

_ROUNDS = 50


def added_value(
    models: Mapping[str, Mapping[str, Any]],
    y: pd.DataFrame,
    *,
    metrics: Sequence[str] = ("concordance_index", "integrated_brier_score", "integrated_ipa", "auc"),
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
    metrics : sequence of str
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
        this model to that of the earlier one in a Cox (logistic) model with non-negative coefficients, since a score
        with a reversed sign adds nothing; p is one-sided. Their gain is the difference of the adequacy of the two
        scores alone, as a fraction of the likelihood ratio of both: negative if this model is worse.

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
    names, rows = list(models), []
    first = evaluate_predictions(models[names[0]], y, **{**options, "n_resamples": 0})
    for row in first[first["metric"].isin(metrics)].to_dict("records"):
        rows.append({**row, "model": names[0], "low": np.nan, "high": np.nan})
    for before, name in zip(names, names[1:], strict=False):
        table = compare_predictions(models[name], models[before], y, metrics=metrics, **options)
        table = table.rename(columns={"first": "value", "difference": "gain"})
        rows += [{**row, "model": name} for row in table.to_dict("records")]
        for task in (task for task in models[name] if external and task in models[before]):
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
    """Likelihood ratio of adding the larger model's score to the smaller's, with non-negative coefficients."""
    index = smaller.index.intersection(larger.index)
    smaller, larger, y = smaller.loc[index], larger.loc[index], align_rows(y, index, "y")
    row: dict[str, Any] = {"metric": "likelihood_ratio", "note": ""}
    kind = find_tasks(y)[task]
    if kind.kind == "survival":
        outcome = survival_target(y, task)
        known = ~np.isnan(outcome["time"])
        risks = [(t if isinstance(t, pd.Series) else t["risk"]).to_numpy(np.float64)[known] for t in (smaller, larger)]

        def statistic(scores: list[np.ndarray]) -> tuple[float, np.ndarray]:
            fit = metrics.cox_regression(outcome["event"][known], outcome["time"][known], np.column_stack(scores))
            return 2 * (fit.log_likelihood - fit.null_log_likelihood), fit.coefficients

        scores = risks
    else:
        known = y[task].notna().to_numpy()
        present, labels = np.unique(class_codes(y.loc[known, task], kind.classes), return_inverse=True)
        if len(present) < 2:
            return row | {"note": "only one class"}
        classes = [kind.classes[code] for code in present]
        # By position: a list of booleans would select columns as a mask.
        places = [[list(table.columns).index(label) for label in classes] for table in (smaller, larger)]
        scores = [
            _log_odds(table.loc[known].iloc[:, own]) for table, own in zip((smaller, larger), places, strict=True)
        ]

        def statistic(scores: list[np.ndarray]) -> tuple[float, np.ndarray]:
            return _logistic_statistic(np.stack(scores, axis=2), labels)

    row["n"] = int(known.sum())
    (one, first), (two, second), (both, slopes) = (statistic(s) for s in (scores[:1], scores[1:], scores))
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


def _log_odds(probability: pd.DataFrame) -> np.ndarray:
    """Log odds of every class against the first, (n, K)."""
    values = np.log(np.clip(probability.to_numpy(np.float64), 1e-6, 1.0))
    return values - values[:, :1]


def _logistic_statistic(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Twice the gain in log-likelihood over the class frequencies, and the coefficient of each of the scores.

    A multinomial regression with an intercept a class and one coefficient a score, which are log odds (n, K, m); NaN
    without a finite maximum.
    """
    n, n_classes, n_scores = scores.shape
    constants = np.broadcast_to(np.eye(n_classes)[:, 1:], (n, n_classes, n_classes - 1))
    design = np.concatenate([constants, scores], axis=2)
    frequency = np.bincount(labels, minlength=n_classes) / n
    chosen = design[np.arange(n), labels]

    def likelihood(beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        log_p = log_softmax(design @ beta, axis=1)
        p = np.exp(log_p)
        mean = np.einsum("nk,nkp->np", p, design)
        information = np.einsum("nk,nkp,nkq->pq", p, design, design) - mean.T @ mean
        return float(log_p[np.arange(n), labels].sum()), (chosen - mean).sum(axis=0), information

    beta = np.r_[np.log(frequency[1:] / frequency[0]), np.zeros(n_scores)]
    value, gradient, information = likelihood(beta)
    null = value
    for _ in range(_ROUNDS):
        if np.linalg.cond(information) > 1e10:
            return 2 * (value - null), np.full(n_scores, np.nan)
        step = np.linalg.solve(information, gradient)
        while likelihood(beta + step)[0] < value - 1e-9 * abs(value) and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
        value, gradient, information = likelihood(beta)
        if np.abs(step).max() < 1e-8:
            return 2 * (value - null), beta[-n_scores:]
    return 2 * (value - null), np.full(n_scores, np.nan)

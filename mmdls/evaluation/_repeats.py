"""Intervals and tests for a modelling procedure, from repeated cross-validation."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from mmdls.evaluation._cases import cases
from mmdls.evaluation._checks import check_found, check_names, check_resampling, paired, settings_of
from mmdls.evaluation._predict import HORIZONS
from mmdls.metrics import holm_correction
from mmdls.tasks import Settings
from mmdls.tasks._case import noted

__all__ = ["evaluate_repeats"]

_KEY = ["task", "metric", "horizon"]


def evaluate_repeats(
    predictions: Sequence[Mapping[str, pd.DataFrame | pd.Series]],
    y: pd.DataFrame,
    folds: Sequence[Any],
    *,
    second: Sequence[Mapping[str, pd.DataFrame | pd.Series]] | None = None,
    training_outcomes: Mapping[str, np.ndarray] | None = None,
    censoring: Mapping[str, np.ndarray] | None = None,
    horizons: Sequence[float] = HORIZONS,
    thresholds: Sequence[float] = (),
    metrics: Sequence[str] | None = None,
    confidence_level: float = 0.95,
    tau: float | None = None,
) -> pd.DataFrame:
    """Evaluate a modelling procedure by repeated cross-validation, with the variance of Nadeau and Bengio.

    The intervals of :func:`evaluate_predictions` are conditional on the fitted models: other test patients, the same
    models. Here the procedure is evaluated, which gives other models for other training patients. Scores of folds are
    not independent, since training sets overlap; their variance is multiplied by ``1 / J + n_test / n_train`` for ``J``
    scores [1]_. This correction is approximate; no unbiased estimator exists [2]_.

    Parameters
    ----------
    predictions : sequence of dict of str to DataFrame or Series
        One dict of out-of-fold predictions a repeat, as in :func:`evaluate_predictions`.
    y : pandas.DataFrame
        Outcomes of at least these patients.
    folds : sequence of Series or array of shape (n_patients,)
        For each repeat, the fold in which each patient was left out.
    second : sequence of dict, default=None
        Predictions of a second procedure on the same folds; then the table has differences (first minus second) and
        p-values.
    metrics : sequence of str, default=None
        Names as in the table of :func:`evaluate`; None means all.
    training_outcomes, censoring, horizons, thresholds, confidence_level, tau
        As in :func:`evaluate_predictions`.

    Returns
    -------
    pandas.DataFrame
        Columns task, metric, horizon, value (the mean over all folds of all repeats), low, high, and with ``second`` p
        and p_holm; n_scores, note. Folds in which a metric is undefined are left out and counted in the note.

    Raises
    ------
    ValueError
        If the numbers of repeats differ, or a repeat has fewer than two folds.

    References
    ----------
    .. [1] Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning, 2003.
    .. [2] Bengio Y, Grandvalet Y. No unbiased estimator of the variance of K-fold cross-validation. JMLR, 2004.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = pd.DataFrame({"os_time": rng.exponential(20, 60), "os_event": 1})
    >>> repeats = [{"os": -y["os_time"] + rng.normal(0, 20, 60)} for _ in range(2)]
    >>> folds = [rng.permutation(np.resize([0, 1, 2], 60)) for _ in range(2)]
    >>> evaluate_repeats(repeats, y, folds, horizons=(), metrics=["concordance_index"])[["metric", "n_scores"]]
                  metric  n_scores
    0  concordance_index         6
    """
    settings = settings_of(horizons, thresholds, tau)
    check_resampling(0, confidence_level, False, None)
    check_names(metrics)
    given = [predictions] if second is None else [predictions, second]
    if isinstance(predictions, Mapping) or any(len(repeats) != len(folds) for repeats in given) or not len(folds):
        raise ValueError(
            "predictions, folds and second must be sequences with one entry a repeat; got "
            f"{', '.join(str(len(repeats)) for repeats in (*given, folds))}. For one repeat give lists of one item."
        )
    if second is not None:
        given = list(zip(*(paired(one, two, y) for one, two in zip(predictions, second, strict=True)), strict=True))
    options = {"reference": training_outcomes, "censoring": censoring}
    first, *others = [
        pd.concat(
            [
                _scores(*pair, y, settings, options).assign(repeat=r)
                for r, pair in enumerate(zip(repeats, folds, strict=True))
            ]
        )
        for repeats in given
    ]
    if others:
        first = first.merge(others[0], on=[*_KEY, "repeat", "fold", "ratio"], suffixes=("", "_second"))
        first["score"] -= first["score_second"]
    check_found(metrics, first["metric"])
    rows = []
    for key, scores in first.groupby(_KEY, dropna=False, sort=False):
        if metrics is None or key[1] in metrics:
            known = scores.dropna(subset="score")
            lost = len(scores) - len(known)
            note = f"undefined in {lost} of {len(scores)} folds" if lost else ""
            rows.append((*key, *_corrected(known["score"], known["ratio"], confidence_level), len(known), note))
    table = pd.DataFrame(rows, columns=[*_KEY, "value", "low", "high", "p", "n_scores", "note"])
    if not others:
        return table.drop(columns="p")
    table.insert(7, "p_holm", holm_correction(table["p"]))
    return table


def _scores(
    predictions: Mapping[str, Any], folds: Any, y: pd.DataFrame, settings: Settings, options: Mapping[str, Any]
) -> pd.DataFrame:
    """One row a metric and fold, with the ratio of test to training patients."""
    rows = []
    for case in cases(predictions, y, folds=folds, **options):
        name, parts = case.task.name, case.parts
        if len(parts) < 2:
            raise ValueError(f"predictions of {name!r} are all in one fold; cross-validation needs two or more.")
        for fold, part in enumerate(parts):
            for statistic in part.statistics(settings):
                if statistic.resampled:
                    score, _ = noted(partial(statistic.compute, None))
                    ratio = part.n / (case.n - part.n)
                    rows.append((name, statistic.metric, statistic.horizon, fold, ratio, float(score)))
    return pd.DataFrame(rows, columns=[*_KEY, "fold", "ratio", "score"])


def _corrected(values: pd.Series, ratio: pd.Series, confidence_level: float) -> tuple[float, float, float, float]:
    """Mean, interval, and p-value of the test that the mean is 0."""
    if not len(values):
        return (float("nan"),) * 4
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan"), float("nan")
    error = float(np.sqrt((1 / len(values) + ratio.mean()) * values.var()))
    half = float(student.ppf((1 + confidence_level) / 2, len(values) - 1)) * error
    p = float(2 * student.sf(abs(mean) / error, len(values) - 1)) if error > 0 else float(mean == 0)
    return mean, mean - half, mean + half, p

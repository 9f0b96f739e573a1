"""Time-dependent AUC, Brier scores and log-likelihood of survival predictions, weighted for censoring."""

from typing import Any

import numpy as np

from mmdls.metrics._censoring import kaplan_meier, step_values
from mmdls.metrics._checks import check_order, check_outcome, check_predictions, known_outcome
from mmdls.metrics._classification import weighted_auc
from mmdls.metrics._horizons import (
    NO_SPAN,
    beyond_follow_up,
    check_times,
    integrated_loss,
    integrated_loss_reduction,
    loss_reduction,
    mean_loss,
    per_time,
    usable_times,
    weights_over_time,
)
from mmdls.metrics._notes import collected_warnings, warn
from mmdls.metrics._resamples import over_resamples, ratio
from mmdls.metrics._times import snap_times

__all__ = [
    "brier_score",
    "censored_log_likelihood",
    "cumulative_dynamic_auc",
    "index_of_prediction_accuracy",
    "integrated_auc",
    "integrated_brier_score",
    "integrated_ipa",
]

_SMALLEST = 1e-6


def cumulative_dynamic_auc(
    survival_train: np.ndarray, survival_test: np.ndarray, risk: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Time-dependent AUC: patients with the event by a horizon against those event-free beyond it.

    NaN, with an ``UndefinedMetricWarning``, where one of the two groups is empty or censoring weights do not exist.

    Parameters
    ----------
    survival_train : structured array of shape (n_train,)
        Event and time of the rows whose censoring distribution gives the weights: the scored rows themselves, or
        training rows that are censored in the same way.
    survival_test : structured array of shape (n,)
        Event and time.
    risk : array of shape (n,) or (n, n_times)
        Higher = earlier event; one column a horizon if it changes with time.
    times : float or array of shape (n_times,)
        Horizons in months.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float or ndarray of shape (n_times,), (R,) or (R, n_times)

    References
    ----------
    .. [1] Uno H et al. Evaluating prediction rules for t-year survivors with censored regression models.
       JASA, 2007.
    .. [2] Hung H, Chiang CT. Estimation methods for time-dependent AUC models with survival data. Canadian
       Journal of Statistics, 2010.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> round(cumulative_dynamic_auc(y, y, [4.0, 2.0, 1.0, 3.0], 3.0), 6)
    0.4
    """
    event, time = check_outcome(survival_test)
    grid = check_times(times)
    risk = np.asarray(risk, dtype=np.float64)
    if risk.ndim == 1:
        risk = np.repeat(risk[:, None], len(grid), axis=1)
    risk = check_predictions(risk, (len(time), len(grid)), "risk")
    weights = weights_over_time(survival_train, survival_test, grid)
    each = [weighted_auc(*column) for column in zip(risk.T, *(own.T for own in weights), strict=True)]

    def statistic(block: np.ndarray) -> np.ndarray:
        return per_time(np.stack([one(block) for one in each], axis=-1), times)

    return over_resamples(statistic, sample_weight, len(time), "no event by the horizon, or " + beyond_follow_up(times))


def integrated_auc(
    survival_train: np.ndarray, survival_test: np.ndarray, risk: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Mean of the time-dependent AUC over an interval of time, weighted by the fraction of events in each part of it.

    Times at which the AUC is not defined are left out, with a warning.

    Parameters
    ----------
    survival_train, survival_test, risk, times, sample_weight
        As in :func:`cumulative_dynamic_auc`.

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Lambert J, Chevret S. Summary measure of discrimination in survival models based on cumulative/dynamic
       time-dependent ROC curves. Statistical Methods in Medical Research, 2016.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> round(integrated_auc(y, y, [4.0, 2.0, 1.0, 3.0], [1.5, 3.0]), 3)
    0.64
    """
    event, time = check_outcome(survival_test)
    grid = check_times(times)
    risk = np.asarray(risk, dtype=np.float64)
    with collected_warnings():
        known = ~np.isnan(np.asarray(cumulative_dynamic_auc(survival_train, survival_test, risk, grid)))
    if not known.all():
        shown = ", ".join(f"{t:g}" for t in grid[~known][:5])
        warn(f"the AUC is not defined at {shown} months: left out of the mean.")
        grid, risk = grid[known], risk[:, known] if risk.ndim == 2 else risk

    def statistic(block: np.ndarray) -> np.ndarray:
        if not len(grid):
            return np.full(len(block), np.nan)
        values = cumulative_dynamic_auc(survival_train, survival_test, risk, grid, block)
        survival = step_values(*kaplan_meier(event, time, block), grid)
        fraction = -np.diff(survival, prepend=1.0, axis=1)
        return ratio((values * fraction).sum(axis=1), fraction.sum(axis=1))

    return over_resamples(statistic, sample_weight, len(time), "the AUC is not defined at any of the times.")


def brier_score(
    survival_train: np.ndarray, survival_test: np.ndarray, survival: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Squared error of survival probabilities at horizons, weighted for censoring.

    Parameters
    ----------
    survival_train : structured array of shape (n_train,)
        Event and time of the rows whose censoring distribution gives the weights: the scored rows themselves, or
        training rows that are censored in the same way.
    survival_test : structured array of shape (n,)
        Event and time.
    survival : array of shape (n,) or (n, n_times)
        Probability to be event-free at each horizon.
    times : float or array of shape (n_times,)
        Horizons in months.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float or ndarray of shape (n_times,), (R,) or (R, n_times)
        NaN at a horizon without censoring weights.

    References
    ----------
    .. [1] Graf E et al. Assessment and comparison of prognostic classification schemes for survival data.
       Statistics in Medicine, 1999.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> brier_score(y, y, [0.0, 0.5, 0.0, 1.0], 3.0)
    0.0
    """
    loss, _ = _brier_losses(survival_train, survival_test, survival, times)
    return over_resamples(mean_loss(loss, times), sample_weight, len(loss), beyond_follow_up(times))


def integrated_brier_score(
    survival_train: np.ndarray, survival_test: np.ndarray, survival: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Brier score averaged over a span of time by the trapezoidal rule.

    Times without censoring weights are left out: the span is clipped at the last usable one, with a warning.

    Parameters
    ----------
    survival_train, survival_test : structured array of shape (n_train,) and (n,)
        As in :func:`brier_score`.
    survival : array of shape (n, n_times)
        Probability to be event-free at each time.
    times : array of shape (n_times,)
        At least two times in months, ascending.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Graf E et al. Assessment and comparison of prognostic classification schemes for survival data.
       Statistics in Medicine, 1999.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> integrated_brier_score(y, y, [[0.5, 0.5]] * 4, [1.0, 3.0])
    0.25
    """
    loss, grid = usable_times(_brier_losses(survival_train, survival_test, survival, times)[0], times)
    return over_resamples(integrated_loss(loss, grid), sample_weight, len(loss), NO_SPAN)


def index_of_prediction_accuracy(
    survival_train: np.ndarray,
    survival_test: np.ndarray,
    survival: Any,
    times: Any,
    sample_weight: Any = None,
    *,
    reference: np.ndarray | None = None,
) -> float | np.ndarray:
    """One minus the ratio of the Brier score to that of the Kaplan-Meier curve of the reference rows.

    1 is perfect, 0 no better than the same Kaplan-Meier curve for all patients, below 0 worse than that.

    Parameters
    ----------
    survival_train, survival_test, survival, times, sample_weight
        As in :func:`brier_score`.
    reference : structured array of shape (n_reference,), default=None
        Rows of the Kaplan-Meier curve that is the reference: the training rows. None uses ``survival_train``.

    Returns
    -------
    float or ndarray of shape (n_times,), (R,) or (R, n_times)

    References
    ----------
    .. [1] Kattan MW, Gerds TA. The index of prediction accuracy: an intuitive measure useful for evaluating
       risk prediction models. Diagnostic and Prognostic Research, 2018.

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> index_of_prediction_accuracy(y, y, [0.0, 0.5, 0.0, 1.0], 3.0)
    1.0
    """
    loss, null = _brier_losses(survival_train, survival_test, survival, times, reference)
    return over_resamples(loss_reduction(loss, null, times), sample_weight, len(loss), beyond_follow_up(times))


def integrated_ipa(
    survival_train: np.ndarray,
    survival_test: np.ndarray,
    survival: Any,
    times: Any,
    sample_weight: Any = None,
    *,
    reference: np.ndarray | None = None,
) -> float | np.ndarray:
    """One minus the ratio of the integrated Brier score to that of the Kaplan-Meier curve of the reference rows.

    Parameters
    ----------
    survival_train, survival_test, survival, times, sample_weight
        As in :func:`integrated_brier_score`.
    reference : structured array of shape (n_reference,), default=None
        Rows of the Kaplan-Meier curve that is the reference: the training rows. None uses ``survival_train``.

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> y = np.array([(True, 1.0), (False, 2.0), (True, 3.0), (True, 4.0)], dtype=[("event", bool), ("time", float)])
    >>> round(integrated_ipa(y, y, [[0.0, 0.0], [1.0, 0.5], [1.0, 0.0], [1.0, 1.0]], [1.0, 3.0]), 3)
    1.0
    """
    loss, null = _brier_losses(survival_train, survival_test, survival, times, reference)
    null = null[:, ~np.isnan(loss).any(axis=0)]
    loss, grid = usable_times(loss, times)
    return over_resamples(integrated_loss_reduction(loss, null, grid), sample_weight, len(loss), NO_SPAN)


def censored_log_likelihood(
    event: Any, time: Any, survival: Any, times: Any, sample_weight: Any = None
) -> float | np.ndarray:
    """Mean log-likelihood of right-censored outcomes: log density at events, log survival at censorings.

    A proper score of the whole curve; higher is better. Only differences between models can be interpreted. The curve
    is linear between the given times, starting from 1, so its density is constant between them. Outcomes beyond the
    last time count as censored there.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
        Months.
    survival : array of shape (n, n_times)
        Probability to be event-free at each time.
    times : array of shape (n_times,)
        Months, ascending, above 0.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float, or ndarray of shape (R,)
        Log of a density per month. Probabilities below 1e-6 count as 1e-6, so that one event of
        probability 0 does not make the mean infinite.

    References
    ----------
    .. [1] Rindt D et al. Survival regression with proper scoring rules and monotonic neural networks. AISTATS, 2022.

    Examples
    --------
    >>> value = censored_log_likelihood([True, False], [1.0, 3.0], [[0.5, 0.25]] * 2, [2.0, 4.0])
    >>> round(value, 4), round(float(np.log(0.25 * 0.375) / 2), 4)
    (-1.1836, -1.1836)
    """
    check_order(event=event, time=time, survival=survival)
    event, time = check_outcome(event, time)
    grid = check_times(times)
    survival = check_predictions(survival, (len(time), len(grid)), "survival")
    time = snap_times(time, grid)
    knots, curve = np.r_[0.0, grid], np.column_stack([np.ones(len(time)), survival])
    # The interval (left, right] that holds the outcome.
    right = np.clip(np.searchsorted(knots, time, side="left"), 1, len(grid))
    row = np.arange(len(time))
    before, after = curve[row, right - 1], curve[row, right]
    width = knots[right] - knots[right - 1]
    part = np.clip((time - knots[right - 1]) / width, 0, 1)
    density = np.maximum(before - after, _SMALLEST) / width
    free = np.maximum(before + (after - before) * part, _SMALLEST)
    score = np.log(np.where(event & (time <= grid[-1]), density, free))

    def statistic(block: np.ndarray) -> np.ndarray:
        return ratio(block @ score, block.sum(axis=1))

    return over_resamples(statistic, sample_weight, len(time), "there are no patients.")


def _brier_losses(
    survival_train: np.ndarray,
    survival_test: np.ndarray,
    survival: Any,
    times: Any,
    reference: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted squared errors of survival, and of the Kaplan-Meier curve of the reference rows for all patients.

    Both (n, n_times), NaN where there are no weights.
    """
    grid = check_times(times)
    survival = np.asarray(survival, dtype=np.float64)
    if survival.ndim == 1:
        survival = survival[:, None]
    survival = check_predictions(survival, (len(survival_test), len(grid)), "survival")
    case, control = weights_over_time(survival_train, survival_test, grid)
    curve = kaplan_meier(*known_outcome(survival_train if reference is None else reference))
    loss, null = (case * each**2 + control * (1 - each) ** 2 for each in (survival, step_values(*curve, grid)))
    return loss, null

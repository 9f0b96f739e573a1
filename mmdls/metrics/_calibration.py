"""Calibration of survival probabilities at a horizon."""

from typing import Any

import numpy as np

from mmdls.metrics._censoring import kaplan_meier, step_values
from mmdls.metrics._checks import check_outcome, check_predictions
from mmdls.metrics._classification import _log_odds, _recalibrate
from mmdls.metrics._resamples import over_resamples, ratio
from mmdls.metrics._survival import horizon_weights

__all__ = ["observed_expected_ratio", "survival_calibration_slope"]


def observed_expected_ratio(
    event: Any, time: Any, survival: Any, horizon: float, weights: Any = None
) -> float | np.ndarray:
    """Share of events by a horizon (Kaplan-Meier) over the mean predicted risk; 1 is ideal.

    Above 1 the risk is underestimated. NaN beyond the end of follow-up.

    Parameters
    ----------
    event : array of shape (n,), bool
    time : array of shape (n,)
    survival : array of shape (n,)
        Predicted probability to be event-free at the horizon.
    horizon : float
        Months.
    weights : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] McLernon DJ et al. Assessing performance and clinical usefulness in prediction models with survival outcomes.
       Annals of Internal Medicine, 2023.

    Examples
    --------
    >>> observed_expected_ratio([True, False], [1.0, 5.0], [0.5, 0.5], 3.0)
    1.0
    """
    event, time = check_outcome(event, time)
    survival = check_predictions(survival, time.shape, "survival")
    reached = horizon <= time.max(initial=-np.inf)

    def statistic(block: np.ndarray) -> np.ndarray:
        observed = 1 - step_values(*kaplan_meier(event, time, block), horizon)
        expected = ratio(block @ (1 - survival), block.sum(axis=1))
        return ratio(observed, expected) if reached else np.full(len(block), np.nan)

    return over_resamples(
        statistic,
        weights,
        len(time),
        f"nobody is followed for {horizon:g} months, or nobody is at any predicted risk.",
    )


def survival_calibration_slope(
    survival_train: np.ndarray, survival_test: np.ndarray, survival: Any, horizon: float, weights: Any = None
) -> float | np.ndarray:
    """Slope of a logistic regression of the event by a horizon on the predicted log odds, weighted for censoring.

    1 is ideal; below 1 the predictions are too extreme.

    Parameters
    ----------
    survival_train : structured array of shape (n_train,)
        Event and time of the training rows, for the censoring distribution.
    survival_test : structured array of shape (n,)
    survival : array of shape (n,)
        Predicted probability to be event-free at the horizon.
    horizon : float
        Months.
    weights : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> y = np.array([(t <= 8, t) for t in range(1, 13)], dtype=[("event", bool), ("time", float)])
    >>> survival = np.r_[[0.2] * 3, 0.8, 0.8, 0.2, 0.2, 0.8, 0.8, 0.8, 0.2, 0.8]
    >>> round(survival_calibration_slope(y, y, survival, 7.0), 3)
    0.83
    """
    case, control = horizon_weights(survival_train, survival_test, horizon)
    survival = check_predictions(survival, case.shape, "survival")
    log_odds, share = _log_odds(1 - survival), case + control

    def statistic(block: np.ndarray) -> np.ndarray:
        if np.isnan(share).any():
            return np.full(len(block), np.nan)
        return _recalibrate((case > 0).astype(float), log_odds, block * share, slope=True)[:, 1]

    return over_resamples(
        statistic,
        weights,
        len(case),
        f"the slope at {horizon:g} months does not exist: no censoring weights, one outcome only, or equal predictions.",
    )

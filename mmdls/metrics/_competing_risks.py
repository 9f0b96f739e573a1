"""Discrimination and calibration of predicted risks of one cause among several."""

from typing import Any

import numpy as np

from mmdls.metrics._censoring import CensoringDistribution
from mmdls.metrics._checks import check_horizon, check_order, check_predictions
from mmdls.metrics._classification import weighted_auc
from mmdls.metrics._concordance import Pairs, concordance_index
from mmdls.metrics._cumulative_incidence import (
    any_event,
    check_cause,
    check_causes,
    check_incidence,
    horizon_weights_cause,
    incidence_at,
    known_causes,
)
from mmdls.metrics._horizons import beyond_follow_up, check_times, per_time
from mmdls.metrics._notes import warn
from mmdls.metrics._resamples import over_resamples, ratio
from mmdls.metrics._times import snap_times

__all__ = [
    "concordance_index_cause",
    "concordance_index_ipcw_cause",
    "cumulative_dynamic_auc_cause",
    "observed_expected_ratio_cause",
]


def concordance_index_cause(
    causes: Any, time: Any, risk: Any, sample_weight: Any = None, *, cause: int = 1
) -> float | np.ndarray:
    """Wolbers' C: the fraction of pairs in which the patient of higher risk has the event of one cause first.

    A patient with an event of another cause can no longer have one of this cause, and counts as event-free at every
    time. Pairs and ties are those of :func:`concordance_index`, which it equals if there is only one cause.

    Parameters
    ----------
    causes : array of shape (n,), int
        0 = censored, 1, 2, ... = the cause of the event.
    time : array of shape (n,)
        Months.
    risk : array of shape (n,)
        Higher = more likely, or earlier, event of this cause: for example its cumulative incidence at a horizon.
    sample_weight : array of shape (n,) or (R, n), default=None
    cause : int, default=1

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Wolbers M et al. Prognostic models with competing risks: methods and application to coronary risk prediction.
       Epidemiology, 2009.

    Examples
    --------
    >>> concordance_index_cause([2, 1, 0], [1.0, 2.0, 3.0], [0.5, 0.9, 0.1])
    1.0
    """
    check_order(causes=causes, time=time, risk=risk)
    causes, time = check_causes(causes, time)
    event = causes == check_cause(cause)
    never = time.max(initial=0.0) + 1
    return concordance_index(event, np.where(event | (causes == 0), time, never), np.asarray(risk), sample_weight)


def concordance_index_ipcw_cause(
    outcome_train: np.ndarray,
    outcome_test: np.ndarray,
    risk: Any,
    tau: float | None = None,
    sample_weight: Any = None,
    *,
    cause: int = 1,
) -> float | np.ndarray:
    """Concordance of one cause up to a time tau, weighted so that it does not depend on the censoring.

    A pair of a patient with an event of this cause at ``t`` and one still event-free then weighs ``1 / G(t-)**2``; a
    pair with a patient who had an event of another cause at an earlier ``s`` weighs ``1 / (G(t-) G(s-))``. With one
    cause it equals :func:`concordance_index_ipcw`, where the end of follow-up is treated in the same way.

    Parameters
    ----------
    outcome_train : structured array of shape (n_train,)
        Cause and time of the rows whose censoring distribution gives the weights: the scored rows themselves, or
        training rows that are censored in the same way.
    outcome_test : structured array of shape (n,)
        Cause and time.
    risk : array of shape (n,)
        As in :func:`concordance_index_cause`.
    tau : float, default=None
        Months; only events before tau count. None means up to the last time with weights.
    sample_weight : array of shape (n,) or (R, n), default=None
        The censoring distribution stays the same.
    cause : int, default=1

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Wolbers M et al. Concordance for prognostic models with competing risks. Biostatistics, 2014.

    Examples
    --------
    >>> y = np.array([(2, 1.0), (0, 2.0), (1, 3.0), (0, 4.0)], dtype=[("cause", int), ("time", float)])
    >>> concordance_index_ipcw_cause(y, y, [0.8, 0.1, 0.7, 0.2])
    0.6
    """
    causes, time = check_causes(outcome_test)
    risk = check_predictions(risk, time.shape, "risk")
    censoring = CensoringDistribution(any_event(*known_causes(outcome_train)))
    time = snap_times(time, censoring.times)
    event = causes == check_cause(cause)
    if tau is not None:
        event &= snap_times(time, [tau]) < tau
    lost = event & (time > censoring.last)
    if lost.any():
        warn(
            f"tau clipped at {censoring.last:g} months, the end of the follow-up that the weights come from: "
            f"{lost.sum()} later events have no censoring weight."
        )
    weight = censoring.event_weight(causes > 0, time)
    other = weight * (causes > 0) * (causes != cause)
    later = Pairs(event, time, risk)
    # Partners "later" on the reversed axis had their event earlier; half a rank keeps those of the same time out.
    rank = np.unique(time, return_inverse=True)[1]
    earlier = Pairs(event, -(rank + 0.5 * ~event), risk)

    def statistic(block: np.ndarray) -> np.ndarray:
        own = block * np.where(event, weight, 0.0)
        pairs, won = later.sums(block)
        pairs_other, won_other = earlier.sums(block * other)
        return ratio((own * (weight * won + won_other)).sum(axis=1), (own * (weight * pairs + pairs_other)).sum(axis=1))

    return over_resamples(
        statistic,
        sample_weight,
        len(time),
        f"no pair of patients is comparable: no event of cause {cause} precedes another patient's time.",
    )


def cumulative_dynamic_auc_cause(
    outcome_train: np.ndarray,
    outcome_test: np.ndarray,
    risk: Any,
    times: Any,
    sample_weight: Any = None,
    *,
    cause: int = 1,
) -> float | np.ndarray:
    """Time-dependent AUC of one cause: patients with its event by a horizon against all others.

    The others are event-free beyond the horizon, or had an event of another cause by then. NaN, with an
    ``UndefinedMetricWarning``, where one of the two groups is empty or censoring weights do not exist.

    Parameters
    ----------
    outcome_train, outcome_test : structured array of shape (n_train,) and (n,)
        As in :func:`concordance_index_ipcw_cause`.
    risk : array of shape (n,) or (n, n_times)
        Higher = more likely event of this cause; one column a horizon if it changes with time.
    times : float or array of shape (n_times,)
        Horizons in months.
    sample_weight : array of shape (n,) or (R, n), default=None
    cause : int, default=1

    Returns
    -------
    float or ndarray of shape (n_times,), (R,) or (R, n_times)

    References
    ----------
    .. [1] Blanche P, Dartigues JF, Jacqmin-Gadda H. Estimating and comparing time-dependent areas under receiver
       operating characteristic curves for censored event times with competing risks. Statistics in Medicine, 2013.

    Examples
    --------
    >>> y = np.array([(2, 1.0), (1, 2.0), (1, 3.0), (0, 4.0)], dtype=[("cause", int), ("time", float)])
    >>> cumulative_dynamic_auc_cause(y, y, [0.8, 0.9, 0.7, 0.2], 3.0)
    0.75
    """
    grid, n = check_times(times), len(outcome_test)
    risk = np.asarray(risk, dtype=np.float64)
    if risk.ndim == 1:
        risk = np.repeat(risk[:, None], len(grid), axis=1)
    risk = check_predictions(risk, (n, len(grid)), "risk")
    each = [
        weighted_auc(column, *horizon_weights_cause(outcome_train, outcome_test, horizon, cause))
        for column, horizon in zip(risk.T, grid, strict=True)
    ]

    def statistic(block: np.ndarray) -> np.ndarray:
        return per_time(np.stack([one(block) for one in each], axis=-1), times)

    return over_resamples(
        statistic, sample_weight, n, f"no event of cause {cause} by the horizon, or " + beyond_follow_up(times)
    )


def observed_expected_ratio_cause(
    causes: Any, time: Any, incidence: Any, horizon: float, sample_weight: Any = None, *, cause: int = 1
) -> float | np.ndarray:
    """Incidence of one cause by a horizon (Aalen-Johansen) over the mean predicted one; 1 is ideal.

    Above 1 the risk is underestimated. NaN beyond the end of follow-up.

    Parameters
    ----------
    causes : array of shape (n,), int
        0 = censored, 1, 2, ... = the cause of the event.
    time : array of shape (n,)
    incidence : array of shape (n,)
        Predicted probability of an event of this cause by the horizon.
    horizon : float
        Months.
    sample_weight : array of shape (n,) or (R, n), default=None
    cause : int, default=1

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] van Geloven N et al. Validation of prediction models in the presence of competing risks: a guide through
       modern methods. BMJ, 2022.

    Examples
    --------
    >>> observed_expected_ratio_cause([1, 2, 0, 0], [1.0, 2.0, 5.0, 5.0], [0.125] * 4, 3.0)
    2.0
    """
    check_order(causes=causes, time=time, incidence=incidence)
    (causes, time), horizon, cause = check_causes(causes, time), check_horizon(horizon), check_cause(cause)
    incidence = check_incidence(incidence, time.shape)
    horizon = float(snap_times(horizon, np.unique(time)))
    reached = horizon <= time.max(initial=-np.inf)

    def statistic(block: np.ndarray) -> np.ndarray:
        expected = ratio(block @ incidence, block.sum(axis=1))
        observed = incidence_at(causes, time, horizon, cause, block)
        return ratio(observed, expected) if reached else np.full(len(block), np.nan)

    return over_resamples(
        statistic,
        sample_weight,
        len(time),
        f"nobody is followed for {horizon:g} months, or nobody is at any predicted risk.",
    )

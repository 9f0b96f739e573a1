"""Discrimination, error and agreement of class probabilities."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mmdls.metrics._checks import as_numbers, check_classes, check_order, class_codes
from mmdls.metrics._resamples import over_resamples, ratio

_MOST_CLASSES = 1000  # of a kappa without n_classes

__all__ = [
    "accuracy_score",
    "auc_score",
    "average_precision_score",
    "brier_score_classes",
    "log_loss",
    "negative_predictive_value",
    "quadratic_weighted_kappa",
    "sensitivity",
    "specificity",
    "weighted_auc",
]

_ONE_CLASS = "not every class is present in y_true: {}."


def weighted_auc(score: np.ndarray, case: np.ndarray, control: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Probability that a case scores higher than a control (ties one half), as a function of patient weights.

    Parameters
    ----------
    score : ndarray of shape (n,)
    case, control : ndarray of shape (n,)
        Weight of each patient as a case and as a control, before patient weights.

    Returns
    -------
    callable
        Maps weights (R, n) to values (R,), NaN without cases or without controls.
    """
    cases, controls = np.flatnonzero(case), np.flatnonzero(control)
    below = weight_below(score[cases], score[controls])

    def statistic(weights: np.ndarray) -> np.ndarray:
        own, others = weights[:, cases] * case[cases], weights[:, controls] * control[controls]
        return ratio(np.einsum("rn,rn->r", own, below(others)), own.sum(axis=1) * others.sum(axis=1))

    return statistic


def weight_below(score: np.ndarray, others: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weight of others whose score is lower, half of it where it is equal, as a function of their weights.

    Parameters
    ----------
    score : ndarray of shape (n,)
    others : ndarray of shape (m,)

    Returns
    -------
    callable
        Maps weights of the others (R, m) to sums (R, n).
    """
    order = np.argsort(others, kind="stable")
    below, upto = (np.searchsorted(others[order], score, side=side) for side in ("left", "right"))
    tied = (below != upto).any()

    def sums(weights: np.ndarray) -> np.ndarray:
        running = np.zeros((len(weights), len(order) + 1))
        np.cumsum(weights[:, order], axis=1, out=running[:, 1:])
        return (running[:, below] + running[:, upto]) / 2 if tied else running[:, below]

    return sums


def auc_score(y_true: Any, y_proba: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Area under the ROC curve; with more than two classes the mean over classes, one against the rest.

    Parameters
    ----------
    y_true : array of shape (n,)
        Class codes: the columns of ``y_proba``.
    y_proba : array of shape (n,) or (n, n_classes)
        (n,) is any score of class 1.
    sample_weight : array of shape (n,) or (R, n), default=None
        One row a resample gives the AUC of every resample.

    Returns
    -------
    float, or ndarray of shape (R,)
        NaN, with an ``UndefinedMetricWarning``, if a class has no patient.

    References
    ----------
    .. [1] Hanley JA, McNeil BJ. The meaning and use of the area under a receiver operating characteristic
       curve. Radiology, 1982.

    Examples
    --------
    >>> auc_score([0, 1, 1], [0.2, 0.1, 0.9])
    0.5
    """
    codes, y_proba = check_classes(y_true, y_proba, scores=True)
    members, scores = one_against_rest(codes, y_proba)
    each = [weighted_auc(score, own.astype(float), 1.0 - own) for own, score in zip(members, scores, strict=True)]

    def statistic(block: np.ndarray) -> np.ndarray:
        return np.mean([one(block) for one in each], axis=0)

    return over_resamples(statistic, sample_weight, len(codes), _absent(codes, y_proba))


def average_precision_score(y_true: Any, y_proba: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Average precision, the area under the precision-recall curve as a sum of steps; mean over more than two classes.

    Parameters
    ----------
    y_true, y_proba, sample_weight
        As in :func:`auc_score`.

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> average_precision_score([0, 1, 1], [0.2, 0.1, 0.9])
    0.8333333333333333
    """
    codes, y_proba = check_classes(y_true, y_proba, scores=True)
    members, scores = one_against_rest(codes, y_proba)

    def one(block: np.ndarray, own: np.ndarray, score: np.ndarray) -> np.ndarray:
        order = np.argsort(-score, kind="stable")
        starts = np.flatnonzero(np.diff(score[order], prepend=np.inf) < 0)
        found = np.add.reduceat((block * own)[:, order], starts, axis=1)
        shown = np.add.reduceat(block[:, order], starts, axis=1).cumsum(axis=1)
        precision = np.divide(found.cumsum(axis=1), shown, out=np.zeros_like(shown), where=shown > 0)
        return ratio((precision * found).sum(axis=1), found.sum(axis=1))

    def statistic(block: np.ndarray) -> np.ndarray:
        return np.mean([one(block, own, score) for own, score in zip(members, scores, strict=True)], axis=0)

    return over_resamples(statistic, sample_weight, len(codes), _absent(codes, y_proba))


def brier_score_classes(y_true: Any, y_proba: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Brier score: mean squared error of the probability of class 1, or summed over more than two classes (0 to 2).

    Parameters
    ----------
    y_true, y_proba, sample_weight
        As in :func:`auc_score`.

    Returns
    -------
    float, or ndarray of shape (R,)

    References
    ----------
    .. [1] Brier GW. Verification of forecasts expressed in terms of probability. Monthly Weather Review,
       1950.

    Examples
    --------
    >>> brier_score_classes([0, 1], [0.5, 0.5])
    0.25
    """
    codes, y_proba = check_classes(y_true, y_proba)
    error = (y_proba - np.eye(y_proba.shape[1])[codes]) ** 2
    loss = error[:, 1] if error.shape[1] == 2 else error.sum(axis=1)
    return _mean(loss, sample_weight)


def log_loss(y_true: Any, y_proba: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Mean negative logarithm of the probability of the true class; probabilities below 1e-15 count as 1e-15.

    Parameters
    ----------
    y_true, y_proba, sample_weight
        As in :func:`auc_score`.

    Returns
    -------
    float, or ndarray of shape (R,)

    Examples
    --------
    >>> log_loss([0, 1], [0.5, 0.5])
    0.6931471805599453
    """
    codes, y_proba = check_classes(y_true, y_proba)
    return _mean(-np.log(np.clip(y_proba[np.arange(len(codes)), codes], 1e-15, 1)), sample_weight)


def accuracy_score(y_true: Any, y_proba: Any, sample_weight: Any = None) -> float | np.ndarray:
    """Fraction of patients whose most probable class is the true class.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True classes, 0 to K - 1.
    y_proba : array-like of shape (n,) or (n, K)
        Predicted probability of class 1, or of every class.
    sample_weight : array-like of shape (n,) or (R, n), default=None
        Weights of the patients, or of R resamples at once.

    Returns
    -------
    float or ndarray of shape (R,)

    Examples
    --------
    >>> accuracy_score([0, 1], [0.2, 0.4])
    0.5
    """
    codes, y_proba = check_classes(y_true, y_proba)
    return _mean((y_proba.argmax(axis=1) == codes).astype(np.float64), sample_weight)


def specificity(y_true: Any, y_proba: Any, threshold: float = 0.5, sample_weight: Any = None) -> float | np.ndarray:
    """Fraction of class 0 with a probability of class 1 below a threshold.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True classes, 0 or 1.
    y_proba : array-like of shape (n,) or (n, 2)
        Predicted probability of class 1, or of both.
    threshold : float, default=0.5
    sample_weight : array-like of shape (n,) or (R, n), default=None
        Weights of the patients, or of R resamples at once.

    Returns
    -------
    float or ndarray of shape (R,)

    Examples
    --------
    >>> specificity([0, 0, 1], [0.2, 0.7, 0.9])
    0.5
    """
    codes, score = binary_scores(y_true, y_proba)
    return _fraction(codes == 0, score < threshold, sample_weight, "no patient of class 0.")


def sensitivity(y_true: Any, y_proba: Any, threshold: float = 0.5, sample_weight: Any = None) -> float | np.ndarray:
    """Fraction of class 1 with a probability of class 1 of at least a threshold.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True classes, 0 or 1.
    y_proba : array-like of shape (n,) or (n, 2)
        Predicted probability of class 1, or of both.
    threshold : float, default=0.5
    sample_weight : array-like of shape (n,) or (R, n), default=None
        Weights of the patients, or of R resamples at once.

    Returns
    -------
    float or ndarray of shape (R,)

    Examples
    --------
    >>> sensitivity([0, 0, 1], [0.2, 0.7, 0.9])
    1.0
    """
    codes, score = binary_scores(y_true, y_proba)
    return _fraction(codes == 1, score >= threshold, sample_weight, "no patient of class 1.")


def negative_predictive_value(
    y_true: Any, y_proba: Any, threshold: float = 0.5, sample_weight: Any = None
) -> float | np.ndarray:
    """Fraction of class 0 among patients with a probability of class 1 below a threshold.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True classes, 0 or 1.
    y_proba : array-like of shape (n,) or (n, 2)
        Predicted probability of class 1, or of both.
    threshold : float, default=0.5
    sample_weight : array-like of shape (n,) or (R, n), default=None
        Weights of the patients, or of R resamples at once.

    Returns
    -------
    float or ndarray of shape (R,)

    Examples
    --------
    >>> negative_predictive_value([0, 0, 1], [0.2, 0.7, 0.9])
    1.0
    """
    codes, score = binary_scores(y_true, y_proba)
    return _fraction(score < threshold, codes == 0, sample_weight, "no patient is below the threshold.")


def quadratic_weighted_kappa(
    y_true: Any, y_pred: Any, n_classes: int | None = None, sample_weight: Any = None
) -> float | np.ndarray:
    """Cohen's kappa of ordered classes, with quadratic weights of disagreements.

    Parameters
    ----------
    y_true, y_pred : array of shape (n,)
        Class codes.
    n_classes : int, default=None
        None means the largest code plus one.
    sample_weight : array of shape (n,) or (R, n), default=None

    Returns
    -------
    float, or ndarray of shape (R,)
        NaN if both are constant and equal.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    .. [1] Cohen J. Weighted kappa. Psychological Bulletin, 1968.

    Examples
    --------
    >>> quadratic_weighted_kappa([0, 1, 2], [0, 1, 2])
    1.0
    """
    check_order(y_true=y_true, y_pred=y_pred)
    given = [as_numbers(values) for values in (y_true, y_pred)]
    if given[0].ndim != 1 or given[0].shape != given[1].shape:
        raise ValueError(f"y_true and y_pred must have one shape (n,); got {given[0].shape} and {given[1].shape}.")
    # What is no code, such as infinity, is refused below by name.
    usable = [v[np.isfinite(v) & (v < _MOST_CLASSES)] for v in given if v.dtype.kind in "biuf"]
    size = n_classes or int(max((v.max(initial=0) for v in usable), default=0)) + 1
    y_true, y_pred = class_codes(y_true, size), class_codes(y_pred, size, "y_pred")
    rows, columns = np.eye(size)[y_true], np.eye(size)[y_pred]
    codes = np.arange(size)
    cost = (codes[:, None] - codes[None, :]) ** 2.0

    def statistic(block: np.ndarray) -> np.ndarray:
        expected = np.einsum("ri,ij,rj->r", block @ rows, cost, block @ columns)
        return 1 - ratio(block @ cost[y_true, y_pred] * block.sum(axis=1), expected)

    return over_resamples(statistic, sample_weight, len(y_true), "all values of y_true and y_pred are one class.")


def one_against_rest(codes: np.ndarray, y_proba: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    classes = [1] if y_proba.shape[1] == 2 else range(y_proba.shape[1])
    return [codes == k for k in classes], [y_proba[:, k] for k in classes]


def _absent(codes: np.ndarray, y_proba: np.ndarray) -> str:
    return _ONE_CLASS.format(f"only codes {np.unique(codes).tolist()} of {y_proba.shape[1]}")


def binary_scores(y_true: Any, y_proba: Any) -> tuple[np.ndarray, np.ndarray]:
    codes, y_proba = check_classes(y_true, y_proba)
    if y_proba.shape[1] != 2:
        raise ValueError(f"this metric needs two classes; y_proba has {y_proba.shape[1]} columns.")
    return codes, y_proba[:, 1]


def _mean(values: np.ndarray, sample_weight: Any) -> float | np.ndarray:
    def statistic(block: np.ndarray) -> np.ndarray:
        return ratio(block @ values, block.sum(axis=1))

    return over_resamples(statistic, sample_weight, len(values), "there are no patients.")


def _fraction(of: np.ndarray, that: np.ndarray, sample_weight: Any, undefined: str) -> float | np.ndarray:
    def statistic(block: np.ndarray) -> np.ndarray:
        return ratio(block @ (of & that), block @ of)

    return over_resamples(statistic, sample_weight, len(of), undefined)

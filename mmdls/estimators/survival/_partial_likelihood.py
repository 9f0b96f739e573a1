"""Cox's partial likelihood with weights, and the penalty of a regression that it chooses in cross-validation."""

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["PartialLikelihood", "best_penalty", "deal"]


def best_penalty(
    alphas: np.ndarray,
    path: Callable[[np.ndarray], np.ndarray],
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    ties: str,
    fold: np.ndarray,
) -> float:
    """The penalty with the highest cross-validated log partial likelihood.

    A fold is worth the log likelihood of all patients less that of those who were learned from, both under the
    coefficients that were learned without the fold [1]_: a fold alone has too few patients for risk sets.

    Parameters
    ----------
    alphas : ndarray of shape (n_alphas,)
        The first of equally good ones is taken, so large penalties come first.
    path : callable
        From a mask of rows (n,) to the coefficients that they give, (n_alphas, n_columns); fewer if the fit of the last
        ones fails.
    X, y, weight : ndarray of shape (n, n_columns), structured array of shape (n,), ndarray of shape (n,)
    ties : {"efron", "breslow"}
    fold : ndarray of shape (n,), int
        As of :func:`deal`.

    Returns
    -------
    float
        The first, if the only event is in one fold, since nothing is learned without it.

    References
    ----------
    .. [1] Verweij PJM, van Houwelingen HC. Cross-validation in survival analysis. Statistics in Medicine, 1993.
    """
    everybody, total = PartialLikelihood(X, y, weight, ties), np.zeros(len(alphas))
    for k in np.unique(fold):
        train = fold != k
        if not y["event"][train].any():
            return float(alphas[0])
        learned, found = PartialLikelihood(X[train], y[train], weight[train], ties), path(train)
        with np.errstate(all="ignore"):  # risks that overflow are worth nothing
            gained = np.array([everybody.value(beta) - learned.value(beta) for beta in found])
        total[: len(found)] += np.where(np.isfinite(gained), gained, -np.inf)
        total[len(found) :] = -np.inf
    return float(alphas[total.argmax()])


def deal(X: np.ndarray, y: np.ndarray, groups: Any = None, n_folds: int = 5) -> np.ndarray:
    """Folds of equal numbers of events and like follow-up, without chance: patients are dealt out in order.

    They are sorted by event, time and values. Equal rows are in one fold, as a weight instead of them would be, and
    neither the order of the rows nor that of the columns makes a difference.

    Parameters
    ----------
    X, y : ndarray of shape (n, n_columns), structured array of shape (n,)
    groups : array of shape (n,), default=None
        Rows of one group are in one fold.
    n_folds : int, default=5

    Returns
    -------
    ndarray of shape (n,), int
    """
    key = np.column_stack([~y["event"], y["time"], np.sort(X, axis=1)])
    place = np.unique(key, axis=0, return_inverse=True)[1].ravel()
    if groups is not None:
        _, group = np.unique(groups, return_inverse=True)
        first = np.full(group.max() + 1, len(place))
        np.minimum.at(first, group, place)
        place = np.unique(first[group], return_inverse=True)[1]
    return place % n_folds


class PartialLikelihood:
    """Weighted log partial likelihood, gradient and information, in the memory of the columns.

    There is one term for each death: the k-th of d tied ones sees the risk set without k/d of the tied deaths (Efron).
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, ties: str) -> None:
        order = np.argsort(-y["time"], kind="stable")
        self.x, self.weight = X[order] - X.mean(axis=0), weight[order]
        event, time = y["event"][order], y["time"]
        _, self.group, counts = np.unique(-time[order], return_inverse=True, return_counts=True)
        self.last = np.cumsum(counts) - 1
        self.deaths = np.flatnonzero(event)
        self.at = self.group[self.deaths]
        tied = np.bincount(self.at, minlength=len(counts))
        rank = np.arange(len(self.deaths)) - (np.cumsum(tied) - tied)[self.at]
        self.share = rank / tied[self.at] if ties == "efron" else np.zeros(len(self.deaths))
        mean_weight = np.bincount(self.at, self.weight[self.deaths], len(counts)) / np.maximum(tied, 1)
        self.term_weight = mean_weight[self.at]

    def __call__(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, hazard, left = self._terms(beta)
        mean = self._at_risk(hazard[:, None] * self.x) / left[:, None]
        gradient = self.weight[self.deaths] @ self.x[self.deaths] - self.term_weight @ mean
        # The risk sets in which a patient stands: those of his own time and earlier, which come later in this order.
        each = self.term_weight / left
        n_groups = len(self.last)
        seen = np.bincount(self.at, each, n_groups)[::-1].cumsum()[::-1][self.group]
        seen[self.deaths] -= np.bincount(self.at, each * self.share, n_groups)[self.at]
        second = (hazard * seen * self.x.T) @ self.x
        information = second - (self.term_weight * mean.T) @ mean
        return value, gradient, information

    def value(self, beta: np.ndarray) -> float:
        """The log likelihood alone."""
        return self._terms(beta)[0]

    def _terms(self, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The log likelihood, and what it is made of: hazards (n,), and what is left at risk at each death."""
        risk = self.x @ beta
        shift = risk.max()
        hazard = self.weight * np.exp(risk - shift)
        left = self._at_risk(hazard[:, None])[:, 0]
        value = self.weight[self.deaths] @ (risk[self.deaths] - shift) - self.term_weight @ np.log(left)
        return value, hazard, left

    def _at_risk(self, moment: np.ndarray) -> np.ndarray:
        """Sums over the risk set of each death, (n_deaths, ...)."""
        summed = moment.cumsum(axis=0)[self.last[self.at]]
        if not self.share.any():
            return summed
        tied = np.zeros((len(self.last), moment.shape[1]))
        np.add.at(tied, self.at, moment[self.deaths])
        return summed - self.share[:, None] * tied[self.at]

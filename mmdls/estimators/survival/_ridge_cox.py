"""Cox regression with a ridge penalty and weights."""

import warnings
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from mmdls.estimators.survival._partial_likelihood import PartialLikelihood, best_penalty, deal
from mmdls.metrics import baseline_cumulative_hazard

__all__ = ["ProportionalHazards", "RidgeCox"]

_ROUNDS = 100
# Of the largest eigenvalue of the information: from coefficients near zero to coefficients as without a penalty.
_PENALTIES = np.logspace(2, -4, 25)


class ProportionalHazards:
    """Curves of a model whose ``predict`` gives log hazards and that has fitted a baseline ``cumulative_hazard_``."""

    cumulative_hazard_: np.ndarray

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Log hazards, (n,); a subclass gives them."""
        raise NotImplementedError

    def predict_cumulative_hazard_function(self, X: np.ndarray, return_array: bool = True) -> np.ndarray:
        """Cumulative hazards at ``unique_times_``, (n, n_times)."""
        return np.exp(self.predict(X))[:, None] * self.cumulative_hazard_

    def predict_survival_function(self, X: np.ndarray, return_array: bool = True) -> np.ndarray:
        """Survival probabilities at ``unique_times_``, (n, n_times)."""
        return np.exp(-self.predict_cumulative_hazard_function(X))


class RidgeCox(ProportionalHazards, BaseEstimator):
    """The penalised partial likelihood's maximum by Newton's method, with Breslow's baseline hazard.

    A weight multiplies a patient's terms in the likelihood and in the risk sets. With ``ties="breslow"`` a weight is a
    repetition; Efron's correction counts tied deaths, not weights, as ``coxph`` of R does: repeated deaths are ties, a
    death of weight 2 is not.

    Parameters
    ----------
    alpha : float or "cv", default="cv"
        Half of it times the sum of squares is taken from the log likelihood of all patients. ``"cv"`` takes the one of
        25 with the highest cross-validated partial likelihood, :func:`best_penalty`, in five folds.
    ties : {"efron", "breslow"}, default="efron"

    Attributes
    ----------
    alpha_ : float
        The penalty in use.
    coef_ : ndarray of shape (n_columns,)
    variance_ : ndarray of shape (n_columns,)
        Of the coefficients: the diagonal of the inverse of the penalised information.
    unique_times_, cumulative_hazard_ : ndarray of shape (n_times,)
        All different times (months), and the baseline's cumulative hazard at them.
    """

    def __init__(self, alpha: float | str = "cv", ties: str = "efron"):
        self.alpha = alpha
        self.ties = ties

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: Any = None, groups: Any = None) -> "RidgeCox":
        """Fit on numbers (n, n_columns) and a structured array of "event" and "time".

        Rows of one group, (n,), are in one fold.
        """
        weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        turned, turn = X, None
        if X.shape[1] > len(X):
            # The coefficients lie in the span of the rows, where a rotation changes neither risks nor penalty.
            turn, across = np.linalg.qr(X.T)
            turned = across.T
        if isinstance(self.alpha, str):
            self.alpha_ = self._chosen(turned, y, weight, deal(X, y, groups))
        else:
            self.alpha_ = self.alpha
        likelihood = PartialLikelihood(turned, y, weight, self.ties)
        beta, converged = _maximum(likelihood, np.zeros(turned.shape[1]), self.alpha_)
        if not converged:
            warnings.warn(
                f"the Cox regression did not converge in {_ROUNDS} steps; a column may separate the events. Give a "
                f"larger alpha (got {self.alpha_}).",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.coef_ = beta if turn is None else turn @ beta
        self.variance_ = _variance(likelihood(beta)[2], self.alpha_, turn)
        self.unique_times_, self.cumulative_hazard_ = baseline_cumulative_hazard(
            y["event"], y["time"], turned @ beta, ties="breslow", sample_weight=weight
        )
        return self

    def _chosen(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, fold: np.ndarray) -> float:
        """The penalty by cross-validation, each fold with warm starts from large penalties to small ones."""
        information = PartialLikelihood(X, y, weight, self.ties)(np.zeros(X.shape[1]))[2]
        alphas = (np.linalg.eigvalsh(information)[-1] or 1.0) * _PENALTIES

        def path(rows: np.ndarray) -> np.ndarray:
            likelihood = PartialLikelihood(X[rows], y[rows], weight[rows], self.ties)
            found = [np.zeros(X.shape[1])]
            for alpha in alphas:
                found.append(_maximum(likelihood, found[-1], alpha)[0])
            return np.array(found[1:])

        return best_penalty(alphas, path, X, y, weight, self.ties, fold)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Log hazards, (n,)."""
        check_is_fitted(self)
        return X @ self.coef_


def _variance(information: np.ndarray, alpha: float, turn: np.ndarray | None) -> np.ndarray:
    """Diagonal of the inverse of the information under a ridge penalty, in the space of the columns."""
    inverse = cho_solve(cho_factor(information + alpha * np.eye(len(information))), np.eye(len(information)))
    if turn is None:
        return np.diag(inverse).copy()
    # What lies outside of the span of the rows is known from the penalty alone.
    outside = (1 - np.square(turn).sum(axis=1)) / alpha
    return np.einsum("ij,jk,ik->i", turn, inverse, turn, optimize=True) + outside


def _maximum(likelihood: PartialLikelihood, beta: np.ndarray, alpha: float) -> tuple[np.ndarray, bool]:
    """Coefficients under a ridge penalty, by Newton's method from a first guess; and whether it converged."""

    def penalised(beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, information = likelihood(beta)
        information[np.diag_indices_from(information)] += alpha
        return value - alpha * (beta @ beta) / 2, gradient - alpha * beta, information

    value, gradient, information = penalised(beta)
    for _ in range(_ROUNDS):
        try:
            step = cho_solve(cho_factor(information), gradient)
        except LinAlgError:
            raise ValueError(
                "the columns depend on each other, and without a penalty their coefficients have no single "
                f"solution; give alpha > 0 (got {alpha})."
            ) from None
        # Below, rounding decides whether a step goes up; Newton's last step is as exact as any.
        gain = gradient @ step
        while True:
            # A step may go so far that the hazards of all who are at risk vanish beside the largest one.
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                proposed = penalised(beta + step)
            goes_up = np.isfinite(proposed[0]) and proposed[0] >= value - 1e-9 * (1 + abs(value))
            if goes_up or np.abs(step).max() < 1e-12:
                break
            step = step / 2
        beta, (value, gradient, information) = beta + step, proposed
        if gain < 1e-13 * (1 + abs(value)):
            return beta, True
    return beta, False

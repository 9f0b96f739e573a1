"""Cox regression with a ridge penalty and weights."""

import warnings

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from mmdls.metrics import baseline_cumulative_hazard

__all__ = ["RidgeCox"]

_ROUNDS = 100


class RidgeCox(BaseEstimator):
    """The penalised partial likelihood's maximum by Newton's method, with Breslow's baseline hazard.

    A weight multiplies a patient's terms in the likelihood and in the risk sets. With ``ties="breslow"`` a weight is a
    repetition; Efron's correction counts tied deaths, not weights, as ``coxph`` of R does: repeated deaths are ties, a
    death of weight 2 is not.

    Parameters
    ----------
    alpha : float, default=1.0
        Half of it times the sum of squares is taken from the log likelihood of all patients.
    ties : {"efron", "breslow"}, default="efron"

    Attributes
    ----------
    coef_ : ndarray of shape (n_columns,)
    unique_times_, cumulative_hazard_ : ndarray of shape (n_times,)
        All different times (months), and the baseline's cumulative hazard at them.
    """

    def __init__(self, alpha: float = 1.0, ties: str = "efron"):
        self.alpha = alpha
        self.ties = ties

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> "RidgeCox":
        """Fit on numbers (n, n_columns) and a structured array of "event" and "time"."""
        weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        likelihood = _WeightedLikelihood(X, y["event"], y["time"], weight, self.ties, self.alpha)
        beta = np.zeros(X.shape[1])
        value, gradient, information = likelihood(beta)
        for _ in range(_ROUNDS):
            try:
                step = cho_solve(cho_factor(information), gradient)
            except LinAlgError:
                raise ValueError(
                    "the columns depend on each other, and without a penalty their coefficients have no single "
                    f"solution; give alpha > 0 (got {self.alpha})."
                ) from None
            # Below, rounding decides whether a step goes up; Newton's last step is as exact as any.
            gain = gradient @ step
            while True:
                proposed = likelihood(beta + step)
                if proposed[0] >= value - 1e-9 * (1 + abs(value)) or np.abs(step).max() < 1e-12:
                    break
                step = step / 2
            beta, (value, gradient, information) = beta + step, proposed
            if gain < 1e-13 * (1 + abs(value)):
                break
        else:
            warnings.warn(
                f"the Cox regression did not converge in {_ROUNDS} steps; a column may separate the events. Give a "
                f"larger alpha (got {self.alpha}).",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.coef_ = beta
        self.unique_times_, self.cumulative_hazard_ = baseline_cumulative_hazard(
            y["event"], y["time"], X @ beta, ties="breslow", sample_weight=weight
        )
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Log hazards, (n,)."""
        check_is_fitted(self)
        return X @ self.coef_

    def predict_cumulative_hazard_function(self, X: np.ndarray, return_array: bool = True) -> np.ndarray:
        """Cumulative hazards at ``unique_times_``, (n, n_times)."""
        return np.exp(self.predict(X))[:, None] * self.cumulative_hazard_

    def predict_survival_function(self, X: np.ndarray, return_array: bool = True) -> np.ndarray:
        """Survival probabilities at ``unique_times_``, (n, n_times)."""
        return np.exp(-self.predict_cumulative_hazard_function(X))


class _WeightedLikelihood:
    """Penalised log partial likelihood, gradient and information, in the memory of the columns.

    There is one term for each death: the k-th of d tied ones sees the risk set without k/d of the tied deaths (Efron).
    """

    def __init__(
        self, X: np.ndarray, event: np.ndarray, time: np.ndarray, weight: np.ndarray, ties: str, alpha: float
    ) -> None:
        order = np.argsort(-time, kind="stable")
        self.x, self.weight, self.alpha = X[order] - X.mean(axis=0), weight[order], alpha
        event = event[order]
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
        risk = self.x @ beta
        shift = risk.max()
        hazard = self.weight * np.exp(risk - shift)
        left = self._at_risk(hazard[:, None])[:, 0]
        mean = self._at_risk(hazard[:, None] * self.x) / left[:, None]
        value = self.weight[self.deaths] @ (risk[self.deaths] - shift) - self.term_weight @ np.log(left)
        gradient = self.weight[self.deaths] @ self.x[self.deaths] - self.term_weight @ mean
        # The risk sets in which a patient stands: those of his own time and earlier, which come later in this order.
        each = self.term_weight / left
        n_groups = len(self.last)
        seen = np.bincount(self.at, each, n_groups)[::-1].cumsum()[::-1][self.group]
        seen[self.deaths] -= np.bincount(self.at, each * self.share, n_groups)[self.at]
        second = (hazard * seen * self.x.T) @ self.x
        information = second - (self.term_weight * mean.T) @ mean
        information[np.diag_indices_from(information)] += self.alpha
        return value - self.alpha * (beta @ beta) / 2, gradient - self.alpha * beta, information

    def _at_risk(self, moment: np.ndarray) -> np.ndarray:
        """Sums over the risk set of each death, (n_deaths, ...)."""
        summed = moment.cumsum(axis=0)[self.last[self.at]]
        if not self.share.any():
            return summed
        tied = np.zeros((len(self.last), moment.shape[1]))
        np.add.at(tied, self.at, moment[self.deaths])
        return summed - self.share[:, None] * tied[self.at]

"""Ridge-penalised linear predictors of every task, fitted by the losses of the heads; penalties by cross-validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.optimize import minimize
from torch import Tensor

__all__ = ["LinearFit", "fit_linear"]

# Penalties per event or patient, from strong to weak; factors of the penalty of one table against the others.
_PENALTIES = 10.0 ** np.arange(1.5, -4.0, -0.5)
_FACTORS: tuple[float, ...] = (10.0, 0.1)
_RANGE = (1e-6, 1e6)
_PATIENCE = 2  # steps of the path without a better loss, after which it ends
_SEARCH, _FINAL = 1e-6, 1e-9  # relative fall of the loss in a step at which a fit ends
_Turn = Callable[[np.ndarray], np.ndarray]
_LEAST_GAIN = 0.1  # of the held-out log likelihood, for a penalty of its own


@dataclass
class LinearFit:
    """The linear predictors of one task, under the same penalties, each fitted without some of the rows.

    Parameters
    ----------
    coefficients : ndarray of shape (n_fits, n_columns, P)
        Of the standardised columns.
    intercept : ndarray of shape (n_fits, P)
    """

    coefficients: np.ndarray
    intercept: np.ndarray


class _Problem:
    """Ridge regression by the loss of a head on some rows, in the eigenvectors of the penalised columns.

    Parameters
    ----------
    columns : ndarray of shape (n, p)
        Standardised.
    loss : callable
        Parameters (n, P) -> mean loss, a scalar connected to them.
    start : ndarray of shape (P,)
        First intercept.
    shared : bool
        All parameters have the same coefficients.
    """

    def __init__(self, columns: np.ndarray, loss: Callable[[Tensor], Tensor], start: np.ndarray, shared: bool):
        self.columns, self.loss, self.start, self.shared = columns, loss, start, shared
        n, p = columns.shape
        self.gram = columns.T @ columns if p <= n else columns @ columns.T
        self.solution: tuple[np.ndarray, np.ndarray] | None = None

    def fit(self, penalty: np.ndarray, tolerance: float = _FINAL) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (p, P) and intercept (P,) under a penalty of each column, (p,)."""
        n, p = self.columns.shape
        n_out, width = len(self.start), 1 if self.shared else len(self.start)
        values, features, turn, turn_back = self._turned(1 / np.sqrt(penalty))
        # The Hessian of a mean loss is near values / n times a number below one: this makes it near the identity.
        condition = 1 / np.sqrt(1 + 0.5 * np.clip(values, 0, None) / n)
        features = features * condition
        r = features.shape[1]
        first = np.zeros((r, width)), self.start.copy()
        if self.solution is not None:
            coefficients, intercept = self.solution
            first = turn(coefficients[:, :width]) / condition[:, None], intercept
        ridge = condition**2

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            slopes, intercept = x[: r * width].reshape(r, width), x[r * width :]
            parameters = torch.as_tensor(features @ slopes + intercept).requires_grad_()
            loss = self.loss(parameters)
            gradient = torch.autograd.grad(loss, parameters)[0].numpy()
            of_slopes = features.T @ (gradient.sum(axis=1, keepdims=True) if self.shared else gradient)
            value = float(loss.detach()) + 0.5 * float((ridge[:, None] * slopes**2).sum())
            return value, np.r_[(of_slopes + ridge[:, None] * slopes).ravel(), gradient.sum(axis=0)]

        found = minimize(
            objective,
            np.r_[first[0].ravel(), first[1]],
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 200, "ftol": tolerance, "gtol": 1e-6},
        )
        slopes = found.x[: r * width].reshape(r, width) * condition[:, None]
        coefficients = turn_back(slopes)
        self.solution = np.broadcast_to(coefficients, (p, n_out)).copy(), found.x[r * width :]
        return self.solution

    def _turned(self, root: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Turn, _Turn]:
        """The columns times some factors (p,), in their r eigenvectors.

        Returns
        -------
        values : ndarray of shape (r,)
        features : ndarray of shape (n, r)
        turn, turn_back : callable
            From coefficients of the columns (p, P) to those of the features (r, P), and back.
        """
        n, p = self.columns.shape
        if p <= n:
            values, basis = eigh(self.gram * root[:, None] * root) if p else (np.zeros(0), np.zeros((0, 0)))
            features = (self.columns * root) @ basis
            return values, features, lambda c: basis.T @ (c / root[:, None]), lambda s: root[:, None] * (basis @ s)
        # More columns than rows: products of rows tell all, and those of one factor are known already.
        scaled = self.columns * root if np.ptp(root) else None
        values, vectors = eigh(self.gram * root[0] ** 2 if scaled is None else scaled @ scaled.T)
        kept = values > 1e-10 * max(values.max(), 1e-300)
        values, vectors = values[kept], vectors[:, kept]
        dual = vectors / np.sqrt(values)
        return (
            values,
            vectors * np.sqrt(values),
            lambda c: dual.T @ (self.columns @ c),
            lambda s: root[:, None] ** 2 * (self.columns.T @ (dual @ s)),
        )


def fit_linear(
    tables: Sequence[np.ndarray],
    loss: Callable[..., Tensor],
    targets: tuple[Tensor, ...],
    folds: Sequence[np.ndarray],
    left_out: Sequence[np.ndarray],
    start: np.ndarray,
    *,
    shared: bool,
    n_informative: float,
) -> LinearFit:
    """Fit the linear predictor of one task; penalties have the least pooled loss of held-out rows.

    Each table gets a penalty of its own: after the best common one is found, those of the tables are moved in turn as
    long as the held-out log likelihood gains, so that a table of many useless columns does not shrink the others.

    Parameters
    ----------
    tables : sequence of ndarray, each (n, p)
        Standardised columns.
    loss : callable
        Of a head: ``loss(parameters (n, P), *targets)``.
    targets : tuple of Tensor, each (n,)
    folds : sequence of ndarray of int
        Rows held out to choose penalties.
    left_out : sequence of ndarray of int
        Rows that each fit leaves out.
    start : ndarray of shape (P,)
        First intercept.
    shared : bool
        Whether all parameters have the same coefficients.
    n_informative : float
        Patients or events over which the loss is a mean.

    Returns
    -------
    LinearFit
    """
    n = len(targets[0])
    columns = np.hstack([*tables, np.zeros((n, 0))])
    sizes = [table.shape[1] for table in tables]
    everybody = np.arange(n)

    def problem(rows: np.ndarray) -> _Problem:
        chosen = tuple(target[torch.as_tensor(rows)] for target in targets)
        return _Problem(columns[rows], lambda parameters: loss(parameters, *chosen), start, shared)

    problems = [problem(np.setdiff1d(everybody, fold)) for fold in folds]

    def held_out_loss(penalties: np.ndarray) -> float:
        parameters = np.empty((n, len(start)))
        for fold, each in zip(folds, problems, strict=True):
            coefficients, intercept = each.fit(np.repeat(penalties, sizes), _SEARCH)
            parameters[fold] = columns[fold] @ coefficients + intercept
        return float(loss(torch.as_tensor(parameters), *targets))

    penalties = _choose_penalties(held_out_loss, sizes, _LEAST_GAIN / n_informative) if sum(sizes) else None
    penalty = np.repeat(np.ones(len(tables)) if penalties is None else penalties, sizes)
    fits = [problem(np.setdiff1d(everybody, rows)).fit(penalty) for rows in left_out]
    return LinearFit(np.stack([fit[0] for fit in fits]), np.stack([fit[1] for fit in fits]))


def _choose_penalties(
    held_out_loss: Callable[[np.ndarray], float], sizes: Sequence[int], least_gain: float
) -> np.ndarray:
    """A common penalty by a path from strong to weak, then one of each table by steps that gain.

    While useless columns are free, the other tables seem better off when they are shrunk too. So tables of many columns
    come first, and after one has moved, all others are moved together.
    """
    n_tables = len(sizes)
    best, chosen, waited = np.inf, np.ones(n_tables), 0
    for penalty in _PENALTIES:
        loss = held_out_loss(np.full(n_tables, penalty))
        if loss < best:
            best, chosen, waited = loss, np.full(n_tables, penalty), 0
        else:
            waited += 1
            if waited == _PATIENCE:
                break

    def move(tables: np.ndarray) -> bool:
        """Multiply the penalties of some tables by the better factor as long as that gains."""
        nonlocal best, chosen
        factors, moved = _FACTORS, False
        while True:
            tried = [np.where(tables, chosen * factor, chosen) for factor in factors]
            losses = [held_out_loss(each) if _is_in_range(each) else np.inf for each in tried]
            least = int(np.argmin(losses))
            if not losses[least] < best - least_gain:
                return moved
            best, chosen, factors, moved = losses[least], tried[least], (factors[least],), True

    order = sorted(range(n_tables), key=lambda table: -sizes[table])
    turn, still = 0, 0
    while 1 < n_tables > still:  # until every table has stayed in its turn
        own = np.arange(n_tables) == order[turn]
        moved = move(own)
        if moved:
            move(~own)
        turn, still = (turn + 1) % n_tables, 1 if moved else still + 1
    return chosen


def _is_in_range(penalties: np.ndarray) -> bool:
    return _RANGE[0] <= penalties.min() and penalties.max() <= _RANGE[1]

"""Ridge-penalised linear predictors of every task, fitted by the losses of the heads; penalties by cross-validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.optimize import minimize
from torch import Tensor

from mmdls.modules.heads import is_of_many

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
    """Ridge regressions by the loss of a head, each of some of the rows, in the eigenvectors of the penalised columns.

    All are fitted at once: a step of several small regressions takes hardly longer than that of one.

    Parameters
    ----------
    columns : ndarray of shape (n, p)
        Standardised.
    rows : sequence of ndarray of int
        Those of each of k regressions.
    losses : callable
        Parameters (k, n, P) -> mean loss of each regression (k,), connected to the parameters of its own rows only.
    start : ndarray of shape (P,)
        First intercept.
    shared : bool
        All parameters have the same coefficients.
    """

    def __init__(
        self,
        columns: np.ndarray,
        rows: Sequence[np.ndarray],
        losses: Callable[[Tensor], Tensor],
        start: np.ndarray,
        shared: bool,
    ):
        self.columns, self.rows, self.losses, self.shared = columns, rows, losses, shared
        self.is_wide = columns.shape[1] > max(map(len, rows))
        self.grams = [columns @ columns.T] if self.is_wide else [columns[own].T @ columns[own] for own in rows]
        k, n_out = len(rows), len(start)
        # Of the columns, as of the last fit.
        self.coefficients = np.zeros((k, columns.shape[1], 1 if shared else n_out))
        self.intercept = np.tile(start, (k, 1))

    def fit(self, penalty: np.ndarray, tolerance: float = _FINAL) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (k, p, P) and intercepts (k, P) under a penalty of each column (p,), from the last ones."""
        values, features, turn, turn_back = self._turned(1 / np.sqrt(penalty))
        # The Hessian of a mean loss is near values / n times a number below one: this makes it near the identity.
        sizes = np.array([max(len(own), 1) for own in self.rows])  # one without rows keeps its first intercept
        condition = 1 / np.sqrt(1 + 0.5 * np.clip(values, 0, None) / sizes[:, None])
        features = features * condition[:, None]
        features_turned = features.transpose(0, 2, 1)
        ridge = condition[:, :, None] ** 2
        first = turn(self.coefficients) / condition[:, :, None]
        n_slopes = first.size

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            slopes, intercept = x[:n_slopes].reshape(first.shape), x[n_slopes:].reshape(self.intercept.shape)
            parameters = torch.as_tensor(features @ slopes + intercept[:, None]).requires_grad_()
            loss = self.losses(parameters).sum()
            gradient = torch.autograd.grad(loss, parameters)[0].numpy()
            of_slopes = features_turned @ (gradient.sum(axis=2, keepdims=True) if self.shared else gradient)
            shrunk = ridge * slopes
            value = float(loss.detach()) + 0.5 * float((shrunk * slopes).sum())
            return value, np.r_[(of_slopes + shrunk).ravel(), gradient.sum(axis=1).ravel()]

        found = minimize(
            objective,
            np.r_[first.ravel(), self.intercept.ravel()],
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 200, "ftol": tolerance, "gtol": 1e-6},
        )
        self.coefficients = turn_back(found.x[:n_slopes].reshape(first.shape) * condition[:, :, None])
        self.intercept = found.x[n_slopes:].reshape(self.intercept.shape)
        n_out = self.intercept.shape[1]
        return np.repeat(self.coefficients, n_out, axis=2) if self.shared else self.coefficients, self.intercept

    def _turned(self, root: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Turn, _Turn]:
        """The columns times some factors (p,), in the r eigenvectors of each regression's own rows.

        Returns
        -------
        values : ndarray of shape (k, r)
        features : ndarray of shape (k, n, r)
            Of all rows; where a regression has fewer eigenvectors than another, zeros.
        turn, turn_back : callable
            From coefficients of the columns (k, p, P) to those of the features (k, r, P), and back.
        """
        columns, factors = self.columns, root[:, None]
        if not self.is_wide:
            pairs = [eigh(gram * factors * root) if len(root) else (root, gram) for gram in self.grams]
            values, basis = (np.stack(each) for each in zip(*pairs, strict=True))
            features = (columns * root) @ basis
            return values, features, lambda c: basis.transpose(0, 2, 1) @ (c / factors), lambda s: factors * (basis @ s)
        # More columns than rows: products of rows tell all, and those of one factor are known already.
        (gram,) = self.grams
        scaled = columns * root if np.ptp(root) else None
        products = gram * root[0] ** 2 if scaled is None else scaled @ scaled.T
        values = np.zeros((len(self.rows), max(map(len, self.rows))))
        dual = np.zeros((len(self.rows), len(columns), values.shape[1]))
        for k, own in enumerate(self.rows):
            if not len(own):
                continue
            each, vectors = eigh(products[np.ix_(own, own)])
            kept = each > 1e-10 * max(each.max(), 1e-300)
            values[k, : kept.sum()] = each[kept]
            dual[k, own, : kept.sum()] = vectors[:, kept] / np.sqrt(each[kept])
        most = int((values > 0).sum(axis=1).max())
        values, dual = values[:, :most], dual[:, :, :most]
        return (
            values,
            products @ dual,
            lambda c: dual.transpose(0, 2, 1) @ (columns @ c),
            lambda s: factors**2 * (columns.T @ (dual @ s)),
        )


def fit_linear(
    tables: Sequence[np.ndarray],
    head: Any,
    targets: tuple[Tensor, ...],
    folds: Sequence[np.ndarray],
    left_out: Sequence[np.ndarray],
    start: np.ndarray,
    *,
    n_informative: float,
    sample_weight: Tensor | None = None,
) -> LinearFit:
    """Fit the linear predictor of one task; penalties have the least pooled loss of held-out rows.

    Each table gets a penalty of its own: after the best common one is found, those of the tables are moved in turn as
    long as the held-out log likelihood gains, so that a table of many useless columns does not shrink the others.

    Parameters
    ----------
    tables : sequence of ndarray, each (n, p)
        Standardised columns.
    head : nn.Module
        Its loss is minimised, ``loss(parameters (n, P), *targets, sample_weight)``. With ``shares_linear_effects`` all
        parameters have the same coefficients.
    targets : tuple of Tensor, each (n,)
    folds : sequence of ndarray of int
        Rows held out to choose penalties.
    left_out : sequence of ndarray of int
        Rows that each fit leaves out.
    start : ndarray of shape (P,)
        First intercept.
    n_informative : float
        Patients or events over which the loss is a mean.
    sample_weight : Tensor of shape (n,), default=None

    Returns
    -------
    LinearFit
    """
    n = len(targets[0])
    columns = np.hstack([*tables, np.zeros((n, 0))])
    sizes = [table.shape[1] for table in tables]

    def problem(without: Sequence[np.ndarray]) -> _Problem:
        rows = [np.setdiff1d(np.arange(n), own) for own in without]
        losses = _losses_of(head, targets, sample_weight, rows)
        return _Problem(columns, rows, losses, start, getattr(head, "shares_linear_effects", False))

    search = problem(folds)

    def held_out_loss(penalties: np.ndarray) -> float:
        parameters = np.empty((n, len(start)))
        for fold, coefficients, intercept in zip(folds, *search.fit(np.repeat(penalties, sizes), _SEARCH), strict=True):
            parameters[fold] = columns[fold] @ coefficients + intercept
        return float(head.loss(torch.as_tensor(parameters), *targets, sample_weight))

    penalties = _choose_penalties(held_out_loss, sizes, _LEAST_GAIN / n_informative) if sum(sizes) else None
    penalty = np.repeat(np.ones(len(tables)) if penalties is None else penalties, sizes)
    return LinearFit(*problem(left_out).fit(penalty))


def _losses_of(
    head: Any, targets: tuple[Tensor, ...], sample_weight: Tensor | None, rows: Sequence[np.ndarray]
) -> Callable[[Tensor], Tensor]:
    """Parameters (k, n, P) -> the loss (k,) of a head on each of k sets of rows."""
    if is_of_many(head):
        weights = torch.zeros(len(rows), len(targets[0]), dtype=torch.float64)
        for k, own in enumerate(rows):
            weights[k, torch.as_tensor(own)] = 1.0
        if sample_weight is not None:
            weights = weights * sample_weight
        return lambda parameters: head.loss(parameters, *targets, weights)
    everything = targets if sample_weight is None else (*targets, sample_weight)
    parts = [(here, [field[here] for field in everything]) for here in map(torch.as_tensor, rows)]
    return lambda parameters: torch.stack(
        [
            head.loss(each[here], *own) if len(here) else each.sum() * 0
            for each, (here, own) in zip(parameters, parts, strict=True)
        ]
    )


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

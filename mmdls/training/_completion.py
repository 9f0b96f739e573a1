"""Tables that a patient lacks, as they are expected from the tables that he has."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd

from mmdls.encoders import TableData
from mmdls.training._inputs import Inputs

__all__ = ["Completion", "location_and_scale"]

_N_FACTORS = (0, 1, 2, 4, 8, 16)
_PATIENCE = 2  # numbers of factors in a row that predict held-out patients no better, after which the search ends
_FOLDS = 3
_PRIOR = 10.0  # patients' worth of evidence for loadings of zero
_LEAST_NOISE = 0.01  # of the variance of a standardised column
_ITERATIONS, _TOLERANCE = 100, 1e-3
_LEAST_SPREAD = 0.25  # of a mark, 0 or 1: that of one patient in fifteen
_DIGITS = 5  # of expected columns, in standard deviations
_MOST_CELLS = 500_000  # of all tables, from which factors are learned; more would take longer and tell little more


@dataclass
class _Factors:
    """Common factors of the columns of all tables: the rest of each column is noise of its own.

    Parameters
    ----------
    loadings : list of ndarray, each (p, k)
        Of the standardised columns of each table.
    noise : list of ndarray, each (p,)
        Variances.
    """

    loadings: list[np.ndarray]
    noise: list[np.ndarray]

    def posterior(self, tables: Sequence[np.ndarray], patterns: "_Patterns") -> tuple[np.ndarray, np.ndarray]:
        """Means (n, k) of the factors given tables (n, p), zero where absent, and covariances of each pattern."""
        k = self.loadings[0].shape[1]
        said, precision = np.zeros((len(patterns.of), k)), np.tile(np.eye(k), (len(patterns.present), 1, 1))
        for table, loadings, noise, here in zip(tables, self.loadings, self.noise, patterns.present.T, strict=True):
            weights = loadings / noise[:, None]
            said += table @ weights
            precision[here] += loadings.T @ weights
        covariance = np.linalg.inv(precision)
        return (covariance[patterns.of] @ said[:, :, None])[:, :, 0], covariance

    def expected(self, tables: Sequence[np.ndarray], here: np.ndarray) -> list[np.ndarray]:
        """What is expected of every table, (n, p) each, given those that are here, (n, M)."""
        mean, _ = self.posterior(_shown(tables, here), _Patterns.of_rows(here))
        return [mean @ loadings.T for loadings in self.loadings]

    @classmethod
    def fit(cls, tables: Sequence[np.ndarray], here: np.ndarray, weight: np.ndarray, k: int) -> "_Factors":
        """The most probable factors, by expectation and maximisation; a table that is not here counts nowhere."""
        tables, sizes = _shown(tables, here), [table.shape[1] for table in tables]
        if k == 0:
            return cls([np.zeros((size, 0)) for size in sizes], [np.ones(size) for size in sizes])
        _, lengths, axes = randomized_svd(np.hstack(tables), k, random_state=0)
        start = axes.T * lengths / np.sqrt(len(here))
        found = cls(np.split(start, np.cumsum(sizes)[:-1]), [np.ones(size) for size in sizes])
        patterns, counts = _Patterns.of_rows(here), here * weight[:, None]
        squares = [own @ table**2 for own, table in zip(counts.T, tables, strict=True)]
        for _ in range(_ITERATIONS):
            mean, covariance = found.posterior(tables, patterns)
            before, found = found, cls([], [])
            for table, own, square in zip(tables, counts.T, squares, strict=True):
                weighted = mean * own[:, None]
                shares = np.bincount(patterns.of, own, len(covariance))
                second = weighted.T @ mean + np.einsum("q,qkl->kl", shares, covariance)
                cross = table.T @ weighted
                loadings = np.linalg.solve(second + _PRIOR * np.eye(k), cross.T).T
                rest = square - 2 * (loadings * cross).sum(axis=1) + ((loadings @ second) * loadings).sum(axis=1)
                found.loadings.append(loadings)
                found.noise.append(np.maximum(rest / max(own.sum(), 1e-12), _LEAST_NOISE))
            if max(np.abs(a - b).max(initial=0) for a, b in zip(found.noise, before.noise, strict=True)) < _TOLERANCE:
                break
        return found


@dataclass
class _Patterns:
    """Which tables are here together: the patterns, few, and that of each patient.

    Parameters
    ----------
    present : ndarray of bool, shape (n_patterns, M)
    of : ndarray of int, shape (n,)
    """

    present: np.ndarray
    of: np.ndarray

    @classmethod
    def of_rows(cls, here: np.ndarray) -> "_Patterns":
        present, of = np.unique(here, axis=0, return_inverse=True)
        return cls(present, of.ravel())


def _shown(tables: Sequence[np.ndarray], here: np.ndarray) -> list[np.ndarray]:
    """Tables with zeros where they are absent."""
    return [np.where(there[:, None], table, 0.0) for table, there in zip(tables, here.T, strict=True)]


class Completion:
    """The columns of tables that a patient lacks, as expected from those that he has.

    A model that reads zeros, or means, where a table is missing is wrong for whoever lacks it: what the present tables
    say then has weights that are right only beside the absent one. Of a tumour with known metabolic volume a larger
    diameter may speak for a lower stage; alone it speaks for a higher one. The expectation given what is present keeps
    the same weights right for every subset of the tables.

    The columns of all tables are taken for jointly normal, with a few common factors that training patients with any
    tables tell of. As many factors are used as predict each table of held-out patients from their others best; none, so
    that absent tables are at their mean, if tables say nothing of one another.

    Parameters
    ----------
    center, scale : dict of str to ndarray of shape (n_columns,)
        By table.
    factors : _Factors

    References
    ----------
    .. [1] Rubin DB, Thayer DT. EM algorithms for ML factor analysis. Psychometrika, 1982.
    """

    def __init__(self, center: Mapping[str, np.ndarray], scale: Mapping[str, np.ndarray], factors: _Factors):
        self.center, self.scale = dict(center), dict(scale)
        self.loadings, self.noise = factors.loadings, factors.noise

    @classmethod
    def fit(cls, inputs: Inputs, sample_weight: np.ndarray | None = None) -> "Completion | None":
        """Learn from the tables of training patients; None if there are fewer than two that a linear part reads."""
        names = [name for i, name in enumerate(inputs.names) if _is_read(inputs, name) and inputs.present[:, i].any()]
        if len(names) < 2:
            return None
        here = inputs.present[:, [inputs.names.index(name) for name in names]].numpy()
        weight = np.ones(len(here)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        center, scale = {}, {}
        for name, there in zip(names, here.T, strict=True):
            center[name], scale[name] = location_and_scale(_numbers(inputs, name)[there])
        tables = [(_numbers(inputs, name) - center[name]) / scale[name] for name in names]
        n_most = max(_MOST_CELLS // sum(table.shape[1] for table in tables), 500)
        some = np.unique(np.linspace(0, len(here) - 1, min(len(here), n_most)).astype(int))
        tables, here, weight = [table[some] for table in tables], here[some], weight[some]
        k = _best_number(tables, here, weight)
        return cls(center, scale, _Factors.fit(tables, here, weight, k))

    def fill(self, inputs: Inputs) -> Inputs:
        """Inputs in which everybody who has any modality has all of these tables; ``measured`` says who really had."""
        names = list(self.center)
        places = [inputs.names.index(name) for name in names]
        here, anything = inputs.present[:, places].numpy(), inputs.present.any(dim=1).numpy()
        tables = [(_numbers(inputs, name) - self.center[name]) / self.scale[name] for name in names]
        expected = _Factors(self.loadings, self.noise).expected(tables, here)
        present, data = inputs.present.clone(), dict(inputs.data)
        for place, name, there, values in zip(places, names, here.T, expected, strict=True):
            # Rounded, since the last digits of a matrix product depend on the machine and on the number of rows.
            values = values.round(_DIGITS) * self.scale[name] + self.center[name]
            values = np.where(there[:, None], _numbers(inputs, name), values)
            filled: Any = copy(inputs.data[name])
            filled.present = anything
            filled.table = torch.as_tensor(np.where(anything[:, None], values, 0.0), dtype=torch.float32)
            filled.linear = filled.table
            data[name], present[:, place] = filled, torch.as_tensor(anything)
        return replace(inputs, data=data, present=present, measured=inputs.present)


def location_and_scale(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and scales of columns: standard deviations, but of marks, 0 or 1, at least that of one in fifteen.

    A rarer mark would otherwise be worth more to a penalised model the fewer patients tell what it means.
    """
    if not len(table):
        return np.zeros(table.shape[1]), np.ones(table.shape[1])
    spread = table.std(axis=0)
    is_mark = ((table == 0) | (table == 1)).all(axis=0)
    scale = np.where(is_mark, np.maximum(spread, _LEAST_SPREAD), spread)
    return table.mean(axis=0), np.where(spread < 1e-12, 1.0, scale)


def _is_read(inputs: Inputs, name: str) -> bool:
    """Whether a modality is a table of columns on one scale."""
    columns = inputs.data[name].linear
    return isinstance(inputs.data[name], TableData) and columns is not None and columns.shape[1] > 0


def _numbers(inputs: Inputs, name: str) -> np.ndarray:
    data: Any = inputs.data[name]
    return data.linear.double().numpy()


def _best_number(tables: Sequence[np.ndarray], here: np.ndarray, weight: np.ndarray) -> int:
    """The number of factors that predicts each table of held-out patients from their other tables best."""
    fold = np.arange(len(here)) % _FOLDS
    least, best, waited = np.inf, 0, 0
    for k in _N_FACTORS:
        if k > min(len(here) * (_FOLDS - 1) // _FOLDS, sum(table.shape[1] for table in tables)):
            break
        error = 0.0
        for number in range(_FOLDS):
            learned, asked = fold != number, fold == number
            factors = _Factors.fit([table[learned] for table in tables], here[learned], weight[learned], k)
            error += _error(factors, [table[asked] for table in tables], here[asked], weight[asked])
        if error < least:
            least, best, waited = error, k, 0
        else:
            waited += 1
            if waited == _PATIENCE:
                break
    return best


def _error(factors: _Factors, tables: Sequence[np.ndarray], here: np.ndarray, weight: np.ndarray) -> float:
    """Squared error of each table as predicted from all others together, and from each other one alone.

    It is summed over patients and is a mean over the columns of a table.
    """
    total, n_tables = 0.0, len(tables)
    for i, table in enumerate(tables):
        alone = [np.arange(n_tables) == j for j in range(n_tables) if j != i and n_tables > 2]
        for shown in [np.arange(n_tables) != i, *alone]:
            counted = here[:, i] & (here & shown).any(axis=1)
            expected = factors.expected([each[counted] for each in tables], (here & shown)[counted])[i]
            total += float(weight[counted] @ ((table[counted] - expected) ** 2).mean(axis=1))
    return total

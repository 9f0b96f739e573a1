"""Compiled code trusts trees and splines: what a file says of them is checked first."""

from typing import Any

import numpy as np
from scipy.interpolate import BSpline
from sklearn.base import BaseEstimator
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.tree._tree import Tree

__all__ = ["check_compiled"]

_TREES = ("tree_", "estimators_", "_predictors")


def check_compiled(model: Any) -> None:
    """Refuse trees and splines that would read outside of a patient's row or of their own nodes, or never end.

    Parameters
    ----------
    model : object
        Everything that it holds is looked at.

    Raises
    ------
    ValueError
        If a child does not come after its parent, a column is not among those of the estimator, or coefficients are
        too few for the knots.
    """
    waiting, known = [model], set()
    while waiting:
        value = waiting.pop()
        if id(value) in known:
            continue
        known.add(id(value))
        if isinstance(value, Tree | TreePredictor):
            _check_nodes(value)
        if isinstance(value, BSpline):
            BSpline(value.t, value.c, value.k, value.extrapolate, value.axis)  # refuses what does not fit together
        if isinstance(value, BaseEstimator) and "n_features_in_" in vars(value):
            _check_columns(value, value.n_features_in_)
        waiting += _inside(value)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, BSpline):
        return []
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, np.ndarray):
        return list(value.ravel()) if value.dtype.kind == "O" else []
    return list(vars(value).values()) if hasattr(value, "__dict__") and not isinstance(value, type) else []


def _inner_nodes(tree: Any) -> tuple[np.ndarray, ...]:
    """Which nodes have children, their columns, and their children."""
    if isinstance(tree, TreePredictor):
        nodes = tree.nodes
        return nodes["is_leaf"] == 0, nodes["feature_idx"], nodes["left"], nodes["right"]
    nodes = tree.__getstate__()["nodes"]
    return nodes["left_child"] != -1, nodes["feature"], nodes["left_child"], nodes["right_child"]


def _check_nodes(tree: Any) -> None:
    inner, columns, *children = _inner_nodes(tree)
    place = np.flatnonzero(inner)
    for child in children:
        after = child[inner].astype(np.int64)
        if not len(inner) or (after <= place).any() or (after >= len(inner)).any():
            raise ValueError("the file has a decision tree whose nodes do not follow each other.")
    if (columns[inner] < 0).any():
        raise ValueError("the file has a decision tree that reads columns that do not exist.")
    if isinstance(tree, TreePredictor):
        by_category = tree.nodes["bitset_idx"][inner & (tree.nodes["is_categorical"] != 0)]
        if (by_category >= min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets))).any():
            raise ValueError("the file has a decision tree that reads categories that do not exist.")


def _check_columns(owner: BaseEstimator, width: Any) -> None:
    """The trees of an estimator read no more columns than the estimator does."""
    waiting = [vars(owner)[name] for name in _TREES if name in vars(owner)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tree | TreePredictor):
            inner, columns, *_ = _inner_nodes(value)
            if inner.any() and columns[inner].max() >= width:
                raise ValueError("the file has a decision tree that reads columns that its estimator does not have.")
        elif isinstance(value, BaseEstimator) and hasattr(value, "tree_"):
            waiting.append(value.tree_)
        elif isinstance(value, list | np.ndarray):
            waiting += _inside(value)

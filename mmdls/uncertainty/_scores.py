"""How unusual each class of a patient is, by the probabilities of a model."""

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["SCORES", "class_scores", "uniform_by_id"]

SCORES = ("lac", "aps", "randomised_aps")
_DECIMALS = 12  # sums of the same probabilities in another order are equal


def class_scores(probability: np.ndarray, score: str, *, contiguous: bool = False, uniform: Any = None) -> np.ndarray:
    """Conformity scores of every class; higher = more unusual.

    Classes are taken in one order, and each has the score at which it joins the set of a patient. The order is that of
    falling probability; of contiguous sets it starts at the likeliest class and goes on to the likelier neighbour.

    Parameters
    ----------
    probability : ndarray of shape (n, K)
    score : {"lac", "aps", "randomised_aps"}
        ``"lac"``: one minus the smallest probability up to the class. ``"aps"``: the sum of the probabilities of the
        classes before it, to which ``"randomised_aps"`` adds a random share of its own.
    contiguous : bool, default=False
    uniform : ndarray of shape (n,), default=None
        The random shares.

    Returns
    -------
    ndarray of shape (n, K)

    Examples
    --------
    >>> p = np.array([[0.5, 0.1, 0.4]])
    >>> class_scores(p, "lac")
    array([[0.5, 0.9, 0.6]])
    >>> class_scores(p, "aps", contiguous=True)
    array([[0. , 0.5, 0.6]])
    """
    order = _outward(probability) if contiguous else np.argsort(-probability, axis=1, kind="stable")
    ordered = np.take_along_axis(probability, order, axis=1)
    if score == "lac":
        joined = np.maximum.accumulate(1 - ordered, axis=1)
    else:
        share = np.asarray(uniform)[:, None] if score == "randomised_aps" else 0.0
        joined = ordered.cumsum(axis=1) - (1 - share) * ordered
    scores = np.empty_like(joined)
    np.put_along_axis(scores, order, joined, axis=1)
    return scores.round(_DECIMALS)


def _outward(probability: np.ndarray) -> np.ndarray:
    """The order of classes from the likeliest to the likelier neighbour of those already taken, (n, K)."""
    n, n_classes = probability.shape
    walled = np.pad(probability, ((0, 0), (1, 1)), constant_values=-1.0)
    rows, first = np.arange(n), probability.argmax(axis=1) + 1
    last, order = first.copy(), [first - 1]
    for _ in range(n_classes - 1):
        down = walled[rows, first - 1] >= walled[rows, last + 1]
        first, last = first - down, last + ~down
        order.append(np.where(down, first, last) - 1)
    return np.stack(order, axis=1)


def uniform_by_id(index: pd.Index, seed: int, task: str) -> np.ndarray:
    """A number between 0 and 1 for each patient, (n,), that depends on id, seed and task alone, not on other rows."""
    texts = np.array([f"{seed} {task} {patient}" for patient in index], dtype=object)
    return pd.util.hash_array(texts, categorize=False) / 2.0**64

"""What a search draws from: distributions by name of a parameter."""

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from sklearn.base import BaseEstimator

__all__ = ["search_space_of"]


def search_space_of(estimator: Any) -> dict[str, BaseDistribution]:
    """Everything that an estimator and its parts say is worth searching.

    Parameters
    ----------
    estimator : estimator
        A part that is a parameter, a step or a modality counts as ``<name>__<parameter>``.

    Returns
    -------
    dict of str to optuna distribution
        Empty if nothing has a ``search_space()``.

    Examples
    --------
    >>> from mmdls import MMDLS, SliceEncoder
    >>> space = search_space_of(MMDLS(image_encoder=SliceEncoder()))
    >>> "dropout" in space, "image_encoder__backbone" in space
    (True, True)
    """
    space = dict(estimator.search_space()) if hasattr(estimator, "search_space") else {}
    for name, part in estimator.get_params(deep=True).items():
        if isinstance(part, BaseEstimator) and hasattr(part, "search_space"):
            space |= {f"{name}__{parameter}": values for parameter, values in part.search_space().items()}
    return space


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    suggest = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution can draw this value."""
    if isinstance(distribution, CategoricalDistribution):
        return any(
            value is choice or (type(value) is type(choice) and value == choice) for choice in distribution.choices
        )
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return bool(number and distribution.low <= value <= distribution.high)

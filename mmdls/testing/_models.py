"""The contract of a ready model of the zoo."""

from typing import Any

from sklearn.base import clone

from mmdls.registry import tasks

__all__ = ["check_model"]


def check_model(recipe: Any) -> None:
    """It says which kinds of tasks it answers and what it reads, and makes a new unfitted estimator at each call.

    Parameters
    ----------
    recipe : class
        With ``tasks`` and ``inputs``, tuples of str, and ``build()``.

    Raises
    ------
    AssertionError
        If the contract is broken.

    Examples
    --------
    >>> from mmdls.registry import models
    >>> check_model(models["clinical_cox"])
    """
    name = recipe.__name__
    for said in ("tasks", "inputs"):
        values = getattr(recipe, said, None)
        assert isinstance(values, tuple) and all(isinstance(value, str) for value in values), (
            f"{name}.{said} must be a tuple of names; got {values!r}"
        )
    unknown = [kind for kind in recipe.tasks if kind not in tasks]
    assert recipe.tasks and not unknown, f"{name}.tasks must name kinds of tasks; {unknown} are none of {list(tasks)}"
    first, second = recipe.build(), recipe.build()
    for method in ("fit", "get_params", "set_params"):
        assert callable(getattr(first, method, None)), f"build() of {name} must give an estimator; it lacks {method}"
    assert first is not second, f"build() of {name} must give a new estimator at each call"
    assert not [key for key in vars(first) if key.endswith("_") and not key.startswith("_")], (
        f"{name} is fitted already"
    )
    assert repr(clone(first)) == repr(first) == repr(second), f"{name} must survive clone unchanged"

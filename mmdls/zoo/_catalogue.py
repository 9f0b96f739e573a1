"""Find registered models by name, by what they predict and by what they read; and make them."""

from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from mmdls._hints import did_you_mean
from mmdls.registry import models, tasks

__all__ = ["create", "list_models"]

_TABLES, _IMAGES = ("clinical", "pet", "radiomics"), ("lesion", "lung")


def list_models(pattern: str = "*", *, task: str | None = None, input: str | None = None) -> pd.DataFrame:
    """List the registered models.

    Parameters
    ----------
    pattern : str, default="*"
        Of the name, with the wildcards of :mod:`fnmatch`: ``*``, ``?``, ``[abc]``.
    task : str, default=None
        Only models that answer this kind of task, such as ``"survival"``; the kinds are in
        :data:`mmdls.registry.tasks`.
    input : str, default=None
        Only models that read this input: ``"clinical"``, ``"pet"``, ``"radiomics"``, ``"lesion"``, ``"lung"``,
        ``"tables"`` (some block of numbers or categories) or ``"images"`` (some image).

    Returns
    -------
    pandas.DataFrame
        One row a model, by name: inputs (a cohort must have all of them; "any" is whatever it has), tasks, about.

    Raises
    ------
    KeyError
        If there is no such kind of task or input; the message names the closest.

    Examples
    --------
    >>> list_models("clinical_*", task="nominal").index.tolist()[:3]
    ['clinical_boosting', 'clinical_elastic_net', 'clinical_forest']
    """
    if task is not None:
        tasks[task]  # refuses an unknown kind, with the closest
    recipes, broken = {}, {}
    for name in models:
        try:
            recipes[name] = models[name]
        except ImportError as error:  # a package that cannot be imported must not hide the others
            broken[name] = str(error)
    if input is not None:
        known = {*_TABLES, *_IMAGES, "tables", "images", *(i for recipe in recipes.values() for i in recipe.inputs)}
        if input not in known:
            hint = did_you_mean(input, known, cutoff=0.5)
            raise KeyError(f"no model reads {input!r}.{hint} Known inputs: {', '.join(sorted(known))}.")
    rows = [
        (name, ", ".join(recipe.inputs) or "any", ", ".join(recipe.tasks), _about(recipe))
        for name, recipe in recipes.items()
        if fnmatchcase(name, pattern)
        and (task is None or task in recipe.tasks)
        and (input is None or _reads(recipe.inputs, input))
    ]
    if task is None and input is None:
        rows += [(name, "", "", why) for name, why in broken.items() if fnmatchcase(name, pattern)]
    return pd.DataFrame(rows, columns=["name", "inputs", "tasks", "about"]).set_index("name")


def create(name: str, **params: Any) -> Any:
    """Make a registered model.

    Parameters
    ----------
    name : str
        As :func:`list_models` shows it.
    **params
        Set by ``set_params``. Most models are a ``Pipeline`` with the steps ``inputs`` and ``model``, so that a
        parameter is, for example, ``model__survival__n_trials``.

    Returns
    -------
    estimator
        Unfitted.

    Raises
    ------
    KeyError
        If there is no such model; the message names the closest.

    Examples
    --------
    >>> create("clinical_cox", alpha=10.0)
    ClinicalCox(alpha=10.0)
    """
    model = models[name].build()
    return model.set_params(**params) if params else model


def _about(recipe: type) -> str:
    return (recipe.__doc__ or "").strip().partition("\n")[0]


def _reads(inputs: tuple[str, ...], wanted: str) -> bool:
    either = {wanted}
    if wanted in _TABLES or wanted == "tables":
        either |= {"tables"} | (set(_TABLES) if wanted == "tables" else set())
    if wanted in _IMAGES or wanted == "images":
        either |= {"images"} | (set(_IMAGES) if wanted == "images" else set())
    return not inputs or bool(either & set(inputs))

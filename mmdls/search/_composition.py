"""The search space of an estimator, composed of what it and its parts say, and which of it belongs to which part.

A name such as ``fusion[gated]__dropout`` is the parameter ``fusion__dropout`` where ``fusion`` is ``"gated"``: it is
drawn only then. Parts may therefore have parameters of the same name with different distributions.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from sklearn.base import BaseEstimator

from mmdls.parts import Composed, Part, Slot, name_of

__all__ = ["conditions", "is_active", "ordered", "parameter_of", "search_space_of"]

_PART = re.compile(r"\[([^\[\]]*)\]")


def search_space_of(estimator: Any, X: Any = None) -> dict[str, BaseDistribution]:
    """Everything that an estimator and its parts say is worth searching.

    Wherever a registered part stands, the space holds a choice among the parts of its registry, plug-ins included, and
    what each of them says is worth searching. A class with the attribute ``searched = False`` is left out.

    Parameters
    ----------
    estimator : estimator
        A part that is a parameter, a step or a modality counts as ``<name>__<parameter>``; what only one of several
        parts has, as ``<name>[<part>]__<parameter>``.
    X : table or array, default=None
        What the estimator is fitted on: encoders that read nothing in it are left out. What reaches an estimator inside
        a pipeline is not known, so all stay.

    Returns
    -------
    dict of str to optuna distribution
        Empty if nothing has a ``search_space()``.

    Examples
    --------
    >>> from mmdls import MMDLS
    >>> space = search_space_of(MMDLS())
    >>> {"additive", "concat", "gated"} <= set(space["fusion"].choices)
    True
    >>> [name for name in space if name.startswith("fusion[gated]")]
    ['fusion[gated]__dropout', 'fusion[gated]__input_scale']
    >>> "trainer__learning_rate" in space, "image_encoder__backbone[resnet10]__width" in space
    (True, True)
    """
    unread = estimator._unread(X) if X is not None and isinstance(estimator, Composed) else ()
    return _space_of(estimator, frozenset(unread))


def _space_of(estimator: Any, decided: frozenset[str]) -> dict[str, BaseDistribution]:
    """The space of an estimator; slots of these names are decided by what it is a part of, or are not read."""
    # Of the class: a search that is searched has a parameter of this name.
    space = dict(estimator.search_space()) if hasattr(type(estimator), "search_space") else {}
    if isinstance(estimator, Composed):
        slots = estimator._slots()
        inside = decided | {name for name, slot in slots.items() if slot.default is not None}
        for name, slot in slots.items():
            if slot.used and name not in decided:
                space |= _space_in(name, slot, estimator._held(name), inside)
        return space
    found: list[str] = []
    for name, part in estimator.get_params(deep=True).items():
        # What is found inside of a part has been found through the part.
        if isinstance(part, BaseEstimator) and not any(name.startswith(f"{outer}__") for outer in found):
            found.append(name)
            space |= {f"{name}__{parameter}": values for parameter, values in _space_of(part, decided).items()}
    return space


def _space_in(name: str, slot: Slot, value: Any, decided: frozenset[str]) -> dict[str, BaseDistribution]:
    """The choice of what stands in a slot, and the spaces of all that may stand there."""
    choices = slot.choices(value)
    space: dict[str, BaseDistribution] = {}
    if len(choices) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of choices that are not plain, which a study keeps as texts
            space[name] = CategoricalDistribution(choices)
    for choice in choices:
        path = f"{name}[{name_of(choice)}]" if len(choices) > 1 else name
        part = slot.resolve(choice)
        if isinstance(part, Part):
            cls = part.name if callable(part.name) else slot.registry[part.name]
            own = dict(cls.search_space()) if hasattr(cls, "search_space") else {}
        else:
            own = {} if part is None else _space_of(part, decided)  # nothing may stand there
        space |= {f"{path}__{key}": values for key, values in own.items() if key not in slot.owned}
    return space


def conditions(space: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """The choices that a name depends on, each with the part that must be chosen."""
    found = [(name[: match.start()], match[1]) for match in _PART.finditer(name)]
    return [(choice, part) for choice, part in found if choice in space]


def parameter_of(space: Mapping[str, Any], name: str) -> str:
    """The estimator's parameter that a name of a space means."""
    for choice, part in reversed(conditions(space, name)):
        name = choice + name[len(f"{choice}[{part}]") :]
    return name


def ordered(space: Mapping[str, Any]) -> list[str]:
    """The names of a space, choices before what depends on them."""
    return sorted(space, key=lambda name: len(conditions(space, name)))


def is_active(space: Mapping[str, Any], name: str, chosen: Mapping[str, Any]) -> bool:
    """Whether a name belongs to the parts that were chosen, by name of the choice."""
    return all(choice in chosen and name_of(chosen[choice]) == part for choice, part in conditions(space, name))

"""Search spaces: distributions by the name of a parameter, and the codes by which a study stores drawn values."""

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.base import clone

from mmdls.parts import name_of
from mmdls.search._composition import conditions, is_active, ordered, parameter_of, search_space_of
from mmdls.search._identity import described

Space = dict[str, BaseDistribution] | Callable[[Any], dict[str, Any]]


def checked_space(space: Mapping[str, Any] | None, estimator: Any, X: Any = None) -> dict[str, BaseDistribution]:
    """Check that every name of a space is a parameter and every value a distribution.

    None is what the estimator and its parts say is worth searching on X.

    Raises
    ------
    ValueError
        If the space is empty or a name is no parameter.
    TypeError
        If a value is no distribution.
    """
    cls = type(estimator).__name__
    own = search_space_of(estimator, X)
    space = own if space is None else space
    if not space:
        has = "has" if own else "has no"
        raise ValueError(
            f"search_space is empty, and {cls} {has} search_space() of its own; give search_space={{parameter: "
            f"distribution}}{', or None for its own' if own else ''}."
        )
    wrong = {name: value for name, value in space.items() if not isinstance(value, BaseDistribution)}
    if wrong:
        raise TypeError(
            f"search_space needs optuna distributions, such as FloatDistribution(0, 1) of optuna; got {wrong}."
        )
    models: dict[str, Any] = {}  # parameters of the estimator with the parts that a name asks for
    unknown = []
    for name in space:
        parts = {parameter_of(space, choice): _chosen(space[choice], part) for choice, part in conditions(space, name)}
        key = repr(parts)
        if key not in models:
            models[key] = clone(estimator).set_params(**parts).get_params(deep=True)
        if parameter_of(space, name) not in models[key]:
            unknown.append(name)
    if unknown:
        known = sorted({name for each in models.values() for name in each})
        close = dict.fromkeys(near for name in unknown for near in get_close_matches(parameter_of(space, name), known))
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(f"search_space names {unknown}, which are no parameters of {cls}.{hint}")
    return dict(space)


def _chosen(distribution: Any, part: str) -> Any:
    """The choice of this name.

    Raises
    ------
    ValueError
        If there is none.
    """
    for choice in distribution.choices:
        if name_of(choice) == part:
            return choice
    raise ValueError(f"search_space asks for [{part}], which is not among the choices {distribution.choices}.")


class CodedTrial:
    """A trial for a space that is a function: categories may be any objects, as in a space that is a dict.

    Attributes
    ----------
    drawn : dict
        The drawn values by name.
    """

    def __init__(self, trial: Any):
        self._trial = trial
        self.drawn: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Draw one of the choices, which may be any objects."""
        self.drawn[name] = suggest(self._trial, name, CategoricalDistribution(choices))
        return self.drawn[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


def draw(space: Space, trial: Any) -> dict[str, Any]:
    """The parameters of a trial."""
    if callable(space):
        return space(CodedTrial(trial))
    chosen: dict[str, Any] = {}
    for name in ordered(space):
        if is_active(space, name, chosen):
            chosen[name] = suggest(trial, name, space[name])
    return {parameter_of(space, name): value for name, value in chosen.items()}


def drawn(space: Space, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """The values drawn in a finished trial, with the choices as they were given."""
    if callable(space):
        again = CodedTrial(optuna.trial.FixedTrial(trial.params))
        if trial.state == optuna.trial.TrialState.COMPLETE:
            space(again)
        return {**trial.params, **again.drawn}
    return {
        parameter_of(space, n): choice_of(space[n], value) if n in space else value for n, value in trial.params.items()
    }


def parameters_of(space: Space, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """The estimator's parameters in a trial; a space that is a function may compute them from the drawn values."""
    return draw(space, optuna.trial.FixedTrial(trial.params)) if callable(space) else drawn(space, trial)


def suggest(trial: Any, name: str, distribution: BaseDistribution) -> Any:
    """Let a trial draw from a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return choice_of(distribution, trial.suggest_categorical(name, codes_of(distribution.choices)))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    suggest_number = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return suggest_number(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def codes_of(choices: Sequence[Any]) -> tuple[Any, ...]:
    """The codes by which a study stores choices.

    Storages return lists for tuples, and samplers need choices that are hashable and distinct (1 equals True). So
    choices that are not plain or not distinct are stored as texts with their number.
    """
    plain = all(choice is None or type(choice) in (bool, int, float, str) for choice in choices)
    if plain and len(set(choices)) == len(choices):
        return tuple(choices)
    return tuple(f"{number}: {_text(choice)}" for number, choice in enumerate(choices))


def given(space: Space, estimator: Any) -> dict[str, Any]:
    """What an estimator was given and a space holds, in the codes of the study."""
    if callable(space):
        return {}
    params = estimator.get_params(deep=True)
    found: dict[str, Any] = {}
    for name in ordered(space):
        parameter = parameter_of(space, name)
        if is_active(space, name, found) and parameter in params and held(space[name], params[parameter]):
            found[name] = params[parameter]
    return {name: code_in(coded(space[name]), value) for name, value in found.items()}


def code_in(distribution: BaseDistribution, value: Any) -> Any:
    """The code of a value in a distribution of a study, made by :func:`codes_of`.

    Raises
    ------
    ValueError
        If the distribution does not contain it.
    """
    if isinstance(distribution, CategoricalDistribution):
        equal = [c for c in distribution.choices if c is value or (type(c) is type(value) and c == value)]
        codes = [c for number, c in enumerate(distribution.choices) if c == f"{number}: {_text(value)}"]
        nan = [c for c in distribution.choices if isinstance(c, float) and isinstance(value, float) and c != c != value]
        numbers = [c for c in distribution.choices if _is_number(c) and _is_number(value) and c == value]
        found = [*equal, *codes, *nan, *numbers]
        if found:
            return found[0]
    elif _is_number(value) and _within(distribution, value):
        return value
    raise ValueError(f"{value!r} is not in {distribution}")


def held(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution can draw this value."""
    try:
        code_in(coded(distribution), value)
    except ValueError:
        return False
    return True


def coded(distribution: BaseDistribution) -> BaseDistribution:
    """A distribution as a study stores it."""
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution(codes_of(distribution.choices))
    return distribution


def choices_of(space: Space) -> dict[str, tuple[Any, ...]]:
    """The choices of a space as a study stores them; they are part of its name, since Optuna cannot change them."""
    if callable(space):
        return {}
    return {n: codes_of(d.choices) for n, d in sorted(space.items()) if isinstance(d, CategoricalDistribution)}


def choice_of(distribution: BaseDistribution, code: Any) -> Any:
    """What a code stands for."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(coded(distribution).to_internal_repr(code))]
    return code


def _within(distribution: BaseDistribution, value: Any) -> bool:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return bool(distribution.low <= value <= distribution.high)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _text(choice: Any) -> str:
    try:
        return json.dumps(choice)
    except (TypeError, ValueError):
        # Texts must be equal in every process; what is printed of functions holds an address.
        return str(getattr(choice, "__qualname__", None) or described(choice))

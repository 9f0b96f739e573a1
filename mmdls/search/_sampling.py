"""Samplers: the default one, and replacements for those of Optuna that cannot be shared by several processes."""

import copy
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mmdls.search._composition import is_active, ordered
from mmdls.search._space import Space, choice_of, code_in, coded, codes_of
from mmdls.search._workers import active_trials


def _place(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> int:
    """The trial's place among those that count: one that repeats a trial whose process died has the place of that."""
    # Not study.get_trials: with some pruners it returns only a part of the trials.
    active = active_trials(study._storage.get_all_trials(study._study_id, deepcopy=False))
    numbers = [each.number for each in active]
    return numbers.index(trial.number) if trial.number in numbers else trial.number


class SeededTPE(optuna.samplers.BaseSampler):
    """TPE whose draws depend only on the seed, the trial's place and the trials before.

    Processes that share a study therefore draw different trials, and a search that is resumed draws as if it had never
    stopped.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.inner = optuna.samplers.TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        seed = int(np.random.SeedSequence([self.seed, _place(study, trial)]).generate_state(1)[0])
        self.inner = optuna.samplers.TPESampler(seed=seed)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self.inner.after_trial(study, trial, state, values)


class Cells(optuna.samplers.BaseSampler):
    """Evaluates a fixed list of points, each once, whichever process runs the trials.

    The trial in place k takes point k. Several processes, repeated trials and resumed searches therefore cover all
    points without further communication.

    Parameters
    ----------
    cells : list of dict
        Values by name of a parameter.
    """

    def __init__(self, cells: list[dict[str, Any]]):
        self.cells = cells

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        return _code(param_name, self.cells[_place(study, trial) % len(self.cells)], param_distribution)


class Fixed(optuna.samplers.PartialFixedSampler):
    """Optuna's sampler with fixed values of some parameters, extended to choices of any type."""

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        if param_name in self._fixed_params:
            return _code(param_name, self._fixed_params, param_distribution)
        return super().sample_independent(study, trial, param_name, param_distribution)


def prepared(sampler: Any, space: Space, given: Mapping[str, Any], seed: int) -> Any:
    """A copy of a sampler for one study; a sampler over a finite set becomes :class:`Cells`.

    Parameters
    ----------
    sampler : optuna sampler
    space : dict of str to optuna distribution, or callable
    given : dict
        The estimator's own values of the searched parameters, in codes; the point with these values comes first.
    seed : int
        Seeds the order of the points where the sampler has no order of its own.

    Raises
    ------
    ValueError
        If a grid and the space do not fit, or the set is not finite.
    """
    cells = _cells(sampler, space, seed)
    if cells is not None:
        return Cells(sorted(cells, key=lambda cell: cell != given))
    if isinstance(sampler, optuna.samplers.PartialFixedSampler):
        return Fixed(sampler._fixed_params, prepared(sampler._base_sampler, space, given, seed))
    return copy.deepcopy(sampler)


def decides_alone(sampler: Any) -> bool:
    """Whether no trial may be enqueued beside a sampler's own: it covers a set of points or fixes parameters."""
    return isinstance(sampler, Cells | Fixed | optuna.samplers.GridSampler | optuna.samplers.BruteForceSampler)


def _cells(sampler: Any, space: Space, seed: int) -> list[dict[str, Any]] | None:
    """The points of a sampler over a finite set, each once; None for a sampler that draws at random."""
    if isinstance(sampler, optuna.samplers.PartialFixedSampler):
        cells = _cells(sampler._base_sampler, space, seed)
        cells = cells and [{**cell, **sampler._fixed_params} for cell in cells]
    elif isinstance(sampler, optuna.samplers.GridSampler):
        cells = [dict(zip(sampler._param_names, point, strict=True)) for point in sampler._all_grids]
    elif isinstance(sampler, optuna.samplers.BruteForceSampler) and not callable(space):
        cells = _grid(space)
        cells = [cells[k] for k in np.random.default_rng(seed).permutation(len(cells))]
    else:
        return None
    if not cells or callable(space):
        return cells
    unknown = [name for name in cells[0] if name not in space]
    if unknown:
        raise ValueError(f"the sampler names {unknown}, which are not in search_space: {list(space)}.")
    points = [_point(cell, space) for cell in cells]
    return list({tuple(point.items()): point for point in points}.values())


def _grid(space: Mapping[str, BaseDistribution]) -> list[dict[str, Any]]:
    """All points of a space, in codes; a parameter of a part only where the part is chosen."""
    cells: list[dict[str, Any]] = [{}]
    for name in ordered(space):
        values = _values(name, space[name])
        cells = [
            {**cell, **more}
            for cell in cells
            for more in ([{name: value} for value in values] if is_active(space, name, _decoded(cell, space)) else [{}])
        ]
    return cells


def _point(cell: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The codes of a cell's values, of those that belong to the parts that it chooses."""
    point: dict[str, Any] = {}
    for name in ordered(space):
        if is_active(space, name, _decoded(point, space)):
            point[name] = _code(name, cell, coded(space[name]))
    return point


def _decoded(point: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    return {name: choice_of(space[name], code) for name, code in point.items()}


def _values(name: str, distribution: BaseDistribution) -> list[Any]:
    """All values of a distribution, in codes."""
    if isinstance(distribution, CategoricalDistribution):
        return list(codes_of(distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None:
        raise ValueError(
            f"search_space[{name!r}] has no step, so its values cannot be enumerated: {distribution}. Give a step, or "
            "use a sampler that draws at random."
        )
    low, high, step = (Decimal(str(value)) for value in (distribution.low, distribution.high, distribution.step))
    cls = int if isinstance(distribution, IntDistribution) else float
    return [cls(low + number * step) for number in range(int((high - low) / step) + 1)]


def _code(name: str, point: Mapping[str, Any], distribution: BaseDistribution) -> Any:
    if name not in point:
        raise ValueError(f"the sampler lacks {name!r}; it has {list(point)}.")
    try:
        return code_in(distribution, point[name])
    except ValueError as error:
        raise ValueError(f"the sampler's value of {name!r} is not in search_space: {error}.") from None

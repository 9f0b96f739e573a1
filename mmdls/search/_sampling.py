"""Samplers: the default one, and those of Optuna that need help in a study of many processes."""

import copy
import itertools
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mmdls.search._space import Space, code_in, coded, codes_of
from mmdls.search._workers import claims_of


class SeededTPE(optuna.samplers.BaseSampler):
    """TPE whose draws depend on the seed and the number of the trial only.

    So workers that share a study draw different trials, and a search that goes on draws as if it had never stopped.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.inner = optuna.samplers.TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        seed = int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0])
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
    """Goes through points one by one, each of them once, whoever runs the trials.

    The trial in place k takes point k. So processes that share a study, trials that are run again and searches that
    go on cover the points without a word to each other.

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
        # Not study.get_trials: some pruners show a sampler a part of the trials only.
        claims = claims_of(study._storage.get_all_trials(study._study_id, deepcopy=False))
        place = [claim.number for claim in claims].index(trial.number)
        return _code(param_name, self.cells[place % len(self.cells)], param_distribution)


class Fixed(optuna.samplers.PartialFixedSampler):
    """Optuna's sampler with some fixed values, for choices of any type."""

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        if param_name in self._fixed_params:
            return _code(param_name, self._fixed_params, param_distribution)
        return super().sample_independent(study, trial, param_name, param_distribution)


def prepared(sampler: Any, space: Space, given: Mapping[str, Any], seed: int) -> Any:
    """A copy of a sampler for one study; one that goes through a finite set becomes :class:`Cells`.

    Parameters
    ----------
    sampler : optuna sampler
    space : dict of str to optuna distribution, or callable
    given : dict
        What the estimator was given of the space, in codes; a point of the set that has it comes first.
    seed : int
        For the order of points of a sampler that has none of its own.

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
    """Whether a point that is put in would disturb what a sampler is to cover or to keep fixed."""
    kinds = (Cells, Fixed, optuna.samplers.GridSampler, optuna.samplers.BruteForceSampler)
    return isinstance(sampler, kinds)


def _cells(sampler: Any, space: Space, seed: int) -> list[dict[str, Any]] | None:
    """The points of a sampler that goes through a finite set, each once; None for one that draws."""
    if isinstance(sampler, optuna.samplers.PartialFixedSampler):
        cells = _cells(sampler._base_sampler, space, seed)
        cells = cells and [{**cell, **sampler._fixed_params} for cell in cells]
    elif isinstance(sampler, optuna.samplers.GridSampler):
        cells = [dict(zip(sampler._param_names, point, strict=True)) for point in sampler._all_grids]
    elif isinstance(sampler, optuna.samplers.BruteForceSampler) and not callable(space):
        values = [_values(name, distribution) for name, distribution in space.items()]
        cells = [dict(zip(space, point, strict=True)) for point in itertools.product(*values)]
        cells = [cells[k] for k in np.random.default_rng(seed).permutation(len(cells))]
    else:
        return None
    if not cells or callable(space):
        return cells
    unknown = [name for name in cells[0] if name not in space]
    if unknown:
        raise ValueError(f"the sampler names {unknown}, which are not in search_space: {list(space)}.")
    kept = {name: coded(distribution) for name, distribution in space.items()}
    points = [{name: _code(name, cell, distribution) for name, distribution in kept.items()} for cell in cells]
    return list({tuple(point.values()): point for point in points}.values())


def _values(name: str, distribution: BaseDistribution) -> list[Any]:
    """All values of a distribution, in codes."""
    if isinstance(distribution, CategoricalDistribution):
        return list(codes_of(distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None:
        raise ValueError(f"search_space[{name!r}] has no step, so it cannot be gone through: {distribution}.")
    low, high, step = (Decimal(str(value)) for value in (distribution.low, distribution.high, distribution.step))
    kind = int if isinstance(distribution, IntDistribution) else float
    return [kind(low + number * step) for number in range(int((high - low) / step) + 1)]


def _code(name: str, point: Mapping[str, Any], distribution: BaseDistribution) -> Any:
    if name not in point:
        raise ValueError(f"the sampler lacks {name!r}; it has {list(point)}.")
    try:
        return code_in(distribution, point[name])
    except ValueError as error:
        raise ValueError(f"the sampler's value of {name!r} is not in search_space: {error}.") from None

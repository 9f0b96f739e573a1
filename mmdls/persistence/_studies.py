"""Studies of Optuna as JSON: their trials, without sampler, pruner and storage."""

import json
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

__all__ = ["decode_study", "encode_study"]


def encode_study(value: Any, path: str, node: Callable[[Any, str], Any]) -> Any:
    """JSON of a study, a trial or a distribution, NotImplemented for another kind."""
    if isinstance(value, BaseDistribution):
        return {"distribution": json.loads(distribution_to_json(value))}
    if isinstance(value, FrozenTrial):
        return {
            "trial": {name: node(getattr(value, name), f"{path}.{name}") for name in _TRIAL}
            | {"state": value.state.name}
        }
    if isinstance(value, optuna.Study):
        directions = [direction.name.lower() for direction in value.directions]
        trials = [node(trial, f"{path}.trials") for trial in value.get_trials(deepcopy=False)]
        return {"study": [value.study_name, directions, trials, node(dict(value.user_attrs), f"{path}.user_attrs")]}
    return NotImplemented


def decode_study(tag: str, content: Any, value: Callable[[Any], Any]) -> Any:
    """What :func:`encode_study` wrote, NotImplemented for a tag of another kind."""
    if tag == "distribution":
        return json_to_distribution(json.dumps(content))
    if tag == "trial":
        fields = {name: value(content[name]) for name in _TRIAL}
        several = fields.pop("values")
        return FrozenTrial(
            **fields, state=TrialState[content["state"]], value=None, values=several, trial_id=fields["number"]
        )
    if tag == "study":
        name, directions, trials, attributes = content
        shown = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(study_name=name, directions=directions)
            study.add_trials([value(trial) for trial in trials])
        finally:
            optuna.logging.set_verbosity(shown)
        for key, each in value(attributes).items():
            study.set_user_attr(key, each)
        return study
    return NotImplemented


_TRIAL = (
    "number",
    "values",
    "datetime_start",
    "datetime_complete",
    "params",
    "distributions",
    "user_attrs",
    "system_attrs",
    "intermediate_values",
)

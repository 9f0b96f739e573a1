"""Which registered models the benchmark compares on a cohort, and how much each may spend."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmdls import create
from mmdls.cohort import Task, find_tasks
from mmdls.registry import models
from mmdls.zoo._inputs import lacking_inputs, unavailable

__all__ = [
    "BASELINE",
    "COMPARED",
    "HORIZONS",
    "QUICK",
    "STAND_INS",
    "Settings",
    "build",
    "lacking",
    "offered",
    "stand_in",
    "unable",
    "unanswered",
    "with_budget",
]

HORIZONS = (12, 36, 60)
BASELINE, MULTIMODAL = "clinical_linear", "mmdls"
QUICK = (BASELINE, "tables_linear", "radiomics_linear", "imaging_network", MULTIMODAL)
# Tuned models of all tasks, the baseline first, slow ones last.
COMPARED = (
    BASELINE,
    "clinical_elastic_net",
    "clinical_forest",
    "clinical_boosting",
    "radiomics_linear",
    "pet_linear",
    "clinical_pet_linear",
    "tables_linear",
    "tables_sign_weighted",
    "tables_foundation",
    "tables_images_linear",
    "imaging_network",
    "late_fusion",
    "published_network",
    "multimodal_network",
    MULTIMODAL,
)

# Networks of the same inputs, for cohorts with a task that linear models do not answer.
STAND_INS = {f"{inputs}_linear": f"{inputs}_network" for inputs in ("clinical", "tables", "radiomics")}


@dataclass(frozen=True)
class Settings:
    """How much a model may spend.

    Parameters
    ----------
    trials : int
        Optuna trials of each model and fold; the published network, whose fit takes ten times as long, gets a third.
    epochs, seed : int
    image_size, max_slices : int, default=None
        As in :class:`mmdls.SliceEncoder`; None leaves each model its own.
    journal : path, default=None
        Where finished trials are kept, so that a run that was stopped repeats none.
    """

    trials: int = 6
    epochs: int = 40
    seed: int = 0
    image_size: int | None = None
    max_slices: int | None = None
    journal: Path | None = None


def lacking(name: str, X: pd.DataFrame) -> list[str]:
    """The inputs of a registered model that a cohort lacks; a model of whatever there is needs a table or an image."""
    if not (inputs := models[name].inputs):
        absent = lacking_inputs(("tables", "images"), X)
        return absent if len(absent) == 2 else []
    return lacking_inputs(inputs, X)


def unable(name: str) -> str:
    """Why a registered model cannot be fitted on this machine; "" if it can."""
    return unavailable(create(name))


def unanswered(name: str, y: pd.DataFrame) -> list[Task]:
    """The tasks of a cohort that a registered model does not answer."""
    return [task for task in find_tasks(y).values() if task.kind not in models[name].tasks]


def stand_in(name: str, y: pd.DataFrame) -> str:
    """The model itself, or the network of its inputs where it does not answer every task of the cohort."""
    return STAND_INS.get(name, name) if unanswered(name, y) else name


def offered(X: pd.DataFrame, y: pd.DataFrame) -> list[str]:
    """The compared models whose inputs a cohort has and that answer all its tasks, stand-ins among them.

    Models that cannot be fitted on this machine are left out.
    """
    names = [stand_in(name, y) for name in COMPARED]
    return [name for name in names if not (lacking(name, X) or unanswered(name, y) or unable(name))]


def build(name: str, settings: Settings) -> Any:
    """A registered model with the budget of the benchmark.

    Parameters
    ----------
    name : str
        As :func:`mmdls.list_models` shows it.
    settings : Settings

    Returns
    -------
    estimator
        Unfitted.
    """
    trials = max(settings.trials // 3, 1) if name == "published_network" else settings.trials
    return with_budget(create(name), settings, trials)


def with_budget(model: Any, settings: Settings, trials: int | None = None) -> Any:
    """Set trials, epochs, seed, image sizes and storage of every part of a model that has such a parameter."""
    values = {
        "n_trials": settings.trials if trials is None else trials,
        "max_epochs": settings.epochs,
        "random_state": settings.seed,
        "storage": settings.journal,
    }
    sizes = {"image_size": settings.image_size, "max_slices": settings.max_slices}
    values |= {name: value for name, value in sizes.items() if value is not None}
    names = {name: name.rpartition("__")[2] for name in model.get_params(deep=True)}
    return model.set_params(**{name: values[last] for name, last in names.items() if last in values})

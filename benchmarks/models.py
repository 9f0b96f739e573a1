"""Which registered models the benchmark compares, and how much each may spend."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmdls import create
from mmdls.registry import models
from mmdls.zoo._inputs import columns_of

__all__ = ["BASELINE", "HORIZONS", "MULTIMODAL", "QUICK", "Settings", "build", "offered", "with_budget"]

HORIZONS = (12, 36, 60)
BASELINE, MULTIMODAL = "clinical_linear", "multimodal_network"
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
    "imaging_network",
    "late_fusion",
    "published_network",
    MULTIMODAL,
)


@dataclass(frozen=True)
class Settings:
    """How much a model may spend.

    Parameters
    ----------
    trials : int
        Optuna trials of each model and fold; the published network, whose fit takes ten times as long, gets a third.
    epochs, seed : int
    image_size, max_slices : int, default=None
        As in :class:`mmdls.SliceEncoder`.
    journal : path, default=None
        Where finished trials are kept, so that a run that was stopped repeats none.
    """

    trials: int = 6
    epochs: int = 40
    seed: int = 0
    image_size: int | None = None
    max_slices: int | None = None
    journal: Path | None = None


def offered(X: pd.DataFrame) -> list[str]:
    """The compared models whose inputs a cohort has."""
    return [name for name in COMPARED if all(columns_of(X, each) for each in models[name].inputs)]


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
        "image_size": settings.image_size,
        "max_slices": settings.max_slices,
        "storage": settings.journal,
    }
    names = {name: name.rpartition("__")[2] for name in model.get_params(deep=True)}
    return model.set_params(**{name: values[last] for name, last in names.items() if last in values})

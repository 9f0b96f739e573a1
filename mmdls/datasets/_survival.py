"""Outcomes of simulated patients: progression, death without it, death after it, and censoring."""

import numpy as np
import pandas as pd

from mmdls.datasets._patients import CENTRES

HORIZONS = (12, 36, 60)
MONTHS = np.arange(97.0)

# Weibull shape and scale in months of the three transitions, and the effects that multiply their hazards
_PROGRESSION = (0.95, 112.0)
_DEATH = (1.0, 480.0)
_DEATH_AFTER_PROGRESSION = (0.75, 40.0)
_CENTRE_FOLLOW_UP = np.array([1.0, 0.6, 1.2, 0.8, 1.4])


def linear_predictors(patients: pd.DataFrame) -> dict[str, np.ndarray]:
    """Log hazard ratios of the three transitions, each of shape (n_patients,)."""
    stage = patients["stage"].to_numpy()
    h = patients["image_factor"].to_numpy()
    z = patients["burden"].to_numpy()
    smoker = patients["smoker"].to_numpy() - 0.5
    chemotherapy = 0.57 - patients["immunotherapy"].to_numpy()
    male = patients["male"].to_numpy() - 0.63
    decades = (patients["age"].to_numpy() - 63.3) / 10
    return {
        "progression": np.array([-0.15, 1.25, 1.95])[stage]
        + 0.25 * z
        + 0.50 * h
        + 0.22 * smoker
        + 0.33 * chemotherapy
        + 0.08 * male
        + 0.05 * decades,
        "death": np.array([-0.1, 0.4, 0.7])[stage] + 0.10 * h + 0.35 * smoker + 0.2 * male + 0.6 * decades,
        "death_after_progression": np.array([-0.1, 0.45, 0.75])[stage]
        + 0.15 * z
        + 0.32 * h
        + 0.15 * smoker
        + 0.30 * chemotherapy
        + 0.15 * decades,
    }


def draw_times(predictors: dict[str, np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the uncensored months to progression or death, and to death, which is never earlier."""
    chance = rng.exponential(size=(3, len(predictors["progression"])))
    progression = _months(chance[0], _PROGRESSION, predictors["progression"])
    death = _months(chance[1], _DEATH, predictors["death"])
    afterwards = _months(chance[2], _DEATH_AFTER_PROGRESSION, predictors["death_after_progression"])
    return np.minimum(progression, death), np.where(progression < death, progression + afterwards, death)


def draw_follow_up(
    centre: np.ndarray, rng: np.random.Generator, censoring: float = 1.0, centre_shift: float = 0.0
) -> np.ndarray:
    """Draw the months until a patient is lost, the earlier of uniform (18, 96) and exponential (mean 300).

    ``censoring`` divides them (0: nobody is ever lost); ``centre_shift`` makes centres follow for longer or
    shorter.
    """
    months = np.minimum(rng.uniform(18, 96, len(centre)), rng.exponential(300, len(centre)))
    months *= _CENTRE_FOLLOW_UP[np.searchsorted(CENTRES, centre)] ** centre_shift
    return months / censoring if censoring else np.full(len(centre), np.inf)


def survival_curves(predictors: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """True survival functions, disease-free and overall, each (n_patients, 97) at 0, 1, ..., 96 months.

    Overall survival is the chance of having met neither event, plus that of progressing in some month and
    living on from there; the months of progression are summed.
    """
    to_progression = _cumulative_hazard(MONTHS, _PROGRESSION, predictors["progression"])
    to_death = _cumulative_hazard(MONTHS, _DEATH, predictors["death"])
    disease_free = np.exp(-to_progression - to_death)
    steps = np.diff(to_progression), np.diff(to_death)
    progressing = -np.diff(disease_free) * steps[0] / (steps[0] + steps[1])
    living_on = np.exp(
        -_cumulative_hazard(MONTHS[:-1] + 0.5, _DEATH_AFTER_PROGRESSION, predictors["death_after_progression"])
    )
    overall = disease_free.copy()
    for month in range(len(MONTHS) - 1):
        overall[:, month + 1 :] += progressing[:, [month]] * living_on[:, : len(MONTHS) - 1 - month]
    return disease_free, overall


def _months(chance: np.ndarray, weibull: tuple[float, float], predictor: np.ndarray) -> np.ndarray:
    shape, scale = weibull
    return scale * (chance * np.exp(-predictor)) ** (1 / shape)


def _cumulative_hazard(months: np.ndarray, weibull: tuple[float, float], predictor: np.ndarray) -> np.ndarray:
    shape, scale = weibull
    return np.exp(predictor)[:, None] * (months / scale) ** shape

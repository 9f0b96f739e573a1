"""Simulated patients at diagnosis: centre, smoking, histology, stage, tumour size and uptake."""

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

STAGES = ("I-II", "III", "IV")
SUBTYPES = ("LUAD", "LUSC")
CENTRES = ("A", "B", "C", "D", "E")

_CENTRE_SHARE = np.array([0.40, 0.22, 0.16, 0.12, 0.10])
_CENTRE_SUV_SCALE = np.array([1.0, 0.85, 1.2, 0.92, 1.1])
_CENTRE_STAGE_LOG_ODDS = np.array([0.0, 0.6, -0.5, -0.2, 0.4])

_STAGE_SHARE = np.array([0.355, 0.285, 0.36])
_LOG_DIAMETER = np.log([2.7, 4.4, 4.3])
_LOG_SUV = np.log([5.8, 10.8, 11.6])
_LOG_EXTENT = np.log([1.17, 2.48, 4.1])
_SPREAD = {"diameter": 0.44, "suv": 0.46, "mtv": 0.48}
_LUSC = {"diameter": 0.18, "suv": 0.42, "mtv": 0.0}
_SUV_PER_DIAMETER = 0.45
_MTV_PER_DIAMETER = 2.0


def draw_patients(n_patients: int, rng: np.random.Generator, centre_shift: float = 0.0) -> pd.DataFrame:
    """Draw all observed and latent variables of patients at diagnosis.

    Diameter, SUV and MTV depend on a common tumour burden ``z``; the ``image_factor`` is visible only in the slices.

    Parameters
    ----------
    n_patients : int
    rng : numpy.random.Generator
    centre_shift : float, default=0.0
        0 gives five equal centres, 1 their full differences in case mix and in the scale of SUV.

    Returns
    -------
    pandas.DataFrame of shape (n_patients, 19)
        Diameter in cm, MTV in mL, durations in years; ``log_suv`` is free of the scale of the centre.
    """
    centre = rng.choice(len(CENTRES), n_patients, p=_CENTRE_SHARE)
    age = np.clip(rng.normal(63.3, 9.3, n_patients), 30, 90)
    male = rng.random(n_patients) < 0.63
    smoker = rng.random(n_patients) < np.where(male, 0.78, 0.04)
    former = smoker & (rng.random(n_patients) < 0.45)
    cessation = np.where(former, np.minimum(rng.gamma(2.0, 6.0, n_patients), age - 30), 0.0)
    duration = np.minimum(rng.lognormal(np.log(35), 0.55, n_patients), age - 16 - cessation) * smoker
    lusc_prior = expit(-2.75 + 0.75 * male + 2.05 * smoker + 0.025 * (duration - 30) * smoker + 0.03 * (age - 63))
    lusc = rng.random(n_patients) < lusc_prior

    stage_prior = _stage_prior(centre, centre_shift)
    stage = (rng.random((n_patients, 1)) > stage_prior.cumsum(axis=1)[:, :2]).sum(axis=1)
    z = rng.standard_normal(n_patients)
    expected = _expected(stage, lusc)
    log_diameter = expected["diameter"] + _SPREAD["diameter"] * z
    excess = log_diameter - expected["diameter"]
    log_suv = expected["suv"] + _SUV_PER_DIAMETER * excess + _SPREAD["suv"] * rng.standard_normal(n_patients)
    log_mtv = expected["mtv"] + _MTV_PER_DIAMETER * excess + _SPREAD["mtv"] * rng.standard_normal(n_patients)
    suv_scale = _CENTRE_SUV_SCALE[centre] ** centre_shift
    suvmax = np.exp(log_suv) * suv_scale
    suvmean = suvmax * np.clip(rng.normal(0.55, 0.05, n_patients), 0.35, 0.7)
    suvpeak = suvmax * np.clip(rng.normal(0.82, 0.04, n_patients), 0.71, 0.98)
    image_factor = rng.standard_normal(n_patients)
    immunotherapy = rng.random(n_patients) < expit(0.3 - 0.01 * (age - 63) + 0.15 * (stage - 1))

    joint = _class_probability(lusc_prior, stage_prior, log_diameter, log_suv, log_mtv)
    return pd.DataFrame(
        {
            "centre": np.array(CENTRES)[centre],
            "age": age,
            "male": male,
            "smoker": smoker,
            "former": former,
            "smoking_duration": duration,
            "smoking_cessation": cessation,
            "lusc": lusc,
            "stage": stage,
            "burden": z,
            "diameter": np.exp(log_diameter),
            "log_suv": log_suv,
            "suvmax": suvmax,
            "suvmean": suvmean,
            "suvpeak": suvpeak,
            "mtv": np.exp(log_mtv),
            "image_factor": image_factor,
            "immunotherapy": immunotherapy,
            "LUSC_probability": joint[:, 1].sum(axis=1),
            **{f"{name}_probability": joint[:, :, k].sum(axis=1) for k, name in enumerate(STAGES)},
        }
    )


def _stage_prior(centre: np.ndarray, centre_shift: float) -> np.ndarray:
    """Probabilities of the three stages by patient, (n, 3)."""
    log_odds = np.log(_STAGE_SHARE) + np.outer(centre_shift * _CENTRE_STAGE_LOG_ODDS[centre], [-0.5, 0.0, 0.5])
    odds = np.exp(log_odds)
    return odds / odds.sum(axis=1, keepdims=True)


def _expected(stage: np.ndarray | int, lusc: np.ndarray | int) -> dict[str, np.ndarray]:
    """Means of log diameter, log SUVmax and log MTV of a stage and subtype."""
    diameter = _LOG_DIAMETER[stage] + _LUSC["diameter"] * lusc
    return {
        "diameter": diameter,
        "suv": _LOG_SUV[stage] + _LUSC["suv"] * lusc,
        "mtv": _LOG_EXTENT[stage] + _MTV_PER_DIAMETER * diameter + _LUSC["mtv"] * lusc,
    }


def _class_probability(lusc_prior, stage_prior, log_diameter, log_suv, log_mtv) -> np.ndarray:
    """P(subtype, stage | the whole table) by Bayes' rule, (n, 2, 3): the best without slices."""
    joint = np.empty((len(lusc_prior), 2, 3))
    for lusc in range(2):
        for stage in range(3):
            mean = _expected(stage, lusc)
            excess = log_diameter - mean["diameter"]
            joint[:, lusc, stage] = (
                (lusc_prior if lusc else 1 - lusc_prior)
                * stage_prior[:, stage]
                * norm.pdf(excess / _SPREAD["diameter"])
                * norm.pdf((log_suv - mean["suv"] - _SUV_PER_DIAMETER * excess) / _SPREAD["suv"])
                * norm.pdf((log_mtv - mean["mtv"] - _MTV_PER_DIAMETER * excess) / _SPREAD["mtv"])
            )
    return joint / joint.sum(axis=(1, 2), keepdims=True)

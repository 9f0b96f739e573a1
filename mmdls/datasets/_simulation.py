"""Simulated patients with lung cancer whose truth is known."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from mmdls.datasets._drawing import draw_slices
from mmdls.datasets._folders import PET_COLUMNS, load_cohort, write_cohort
from mmdls.datasets._patients import STAGES, SUBTYPES, draw_patients
from mmdls.datasets._radiomics import MEASURED, radiomics
from mmdls.datasets._survival import HORIZONS, draw_follow_up, draw_times, linear_predictors, survival_curves

_MODALITIES = ("clinical", "pet", "radiomics", "lesion", "lung")

_DESCR = """\
Simulated patients with non-small cell lung cancer
--------------------------------------------------
{n_patients} simulated patients of five centres. Diameter, SUV and MTV depend on a common tumour burden. An image
factor multiplies the hazards of progression and death, and is visible only in grain and margin of the lesion's
slices. Progression, death, and death after progression have Weibull hazards (an illness-death model), so that
disease-free survival never ends after death. Times are months, rounded up to a tenth. `truth` holds variables that
no model may use. Nothing here is evidence about real patients: it shows how close a model comes to the known truth.
"""


_LABELS = {
    "clinical_age": "Age, years",
    "clinical_sex": "Sex",
    "clinical_smoking_status": "Smoking",
    "clinical_smoking_duration": "Smoked for, years",
    "clinical_smoking_cessation": "Stopped smoking, years ago",
    "clinical_diameter": "Diameter of the lesion, cm",
    "pet_suvmax": "SUVmax",
    "pet_suvmean": "SUVmean",
    "pet_suvpeak": "SUVpeak",
    "pet_tlg": "Total lesion glycolysis, SUV x mL",
    "pet_mtv": "Metabolic tumour volume, mL",
    "centre": "Centre",
    "treatment": "Treatment",
    "subtype": "Subtype",
    "stage": "Stage",
}


def make_nsclc_cohort(
    n_patients: int = 500,
    *,
    image_signal: float = 1.0,
    n_slices: int | tuple[int, int] = (4, 8),
    image_size: int = 32,
    n_radiomics: int = 32,
    masks: bool = False,
    missing: float | Mapping[str, float] = 0.0,
    missing_values: float = 0.0,
    centre_shift: float = 0.0,
    censoring: float = 1.0,
    folder: str | PathLike | None = None,
    return_X_y: bool = False,
    random_state: int | np.random.Generator | np.random.RandomState | None = None,
) -> Bunch | tuple[pd.DataFrame, pd.DataFrame]:
    """Simulate a multimodal, multi-centre cohort of patients with non-small cell lung cancer.

    With one seed, patients and outcomes are the same for all values of ``image_signal``, ``n_slices``,
    ``image_size``, ``n_radiomics``, ``masks``, ``missing``, ``missing_values`` and ``folder``.

    Parameters
    ----------
    n_patients : int, default=500
    image_signal : float, default=1.0
        Correlation, 0 to 1, between the prognostic image factor and the lesion's grain and margin. At 0 the
        slices look alike and hold no information about the factor, which still changes survival.
    n_slices : int or (int, int), default=(4, 8)
        Slices per patient, or their lowest and highest number; the same for the lesion and the lung.
    image_size : int, default=32
        Height and width of a slice in pixels.
    n_radiomics : int, default=32
        Radiomics columns (the published model has 128): grey histogram and area of the drawn lesion, then
        noisy correlates of diameter and SUV. No column depends on the image factor.
    masks : bool, default=False
        Add ``lung_mask`` and ``lesion_mask``, the pixels of both in ``lung_image``.
    missing : float or dict of str to float, default=0.0
        Fraction of patients who lack a whole modality, at random: one number for each of "pet", "radiomics",
        "lesion" and "lung", or a dictionary by modality, which may include "clinical".
    missing_values : float, default=0.0
        Fraction of single clinical and PET values that are missing, more often in older patients. Age is never
        missing.
    centre_shift : float, default=0.0
        Size of the differences between centres; at 1 they are large: SUV scale (0.85 to 1.2), grey noise, case
        mix, length of follow-up.
    censoring : float, default=1.0
        Rate of censoring; 0 follows everybody to death.
    folder : path-like, default=None
        Write the cohort there in the published layout, and return it as :func:`load_cohort` reads it: image
        cells are then folders of PNG slices. Needs Pillow. The truth is not written.
    return_X_y : bool, default=False
        Return ``(data, target)`` only.
    random_state : int, Generator, RandomState or None, default=None

    Returns
    -------
    Bunch or (X, y)
        data : DataFrame of shape (n_patients, n_columns)
            The six published ``clinical_*`` columns (age and smoking in years, ``clinical_diameter`` in cm),
            five ``pet_*`` (``pet_mtv`` in mL, ``pet_tlg`` = ``pet_suvmean`` x ``pet_mtv``), ``radiomics_*``,
            ``lesion_image`` and ``lung_image`` (uint8 arrays ``(S, H, W)`` or folders), ``centre``,
            ``treatment``.
        target : DataFrame of shape (n_patients, 6)
            ``subtype``, ``stage`` (ordered), ``dfs_time``, ``dfs_event``, ``os_time``, ``os_event``; months.
        groups : Series
            The centre of each patient.
        truth : DataFrame
            ``dfs_risk`` and ``os_risk``: minus the true expected event-free months out of 96, given all
            covariates and the image factor, the score of an oracle. ``dfs_survival_12`` ...
            ``os_survival_60``: true survival probabilities. ``dfs_time``, ``os_time``: uncensored.
            ``progression``, ``death``, ``death_after_progression``: linear predictors. ``image_factor``,
            ``burden``. ``LUSC_probability``, ``I-II_probability`` ...: Bayes-optimal given the complete
            tables (the slices add to the subtype's).
        radiomics_names : tuple of str
            What the first radiomics columns are.
        labels : dict of str to str
            Readable names of columns and outcomes, with units, for :func:`mmdls.report.report`.
        DESCR : str
            What the tables hold.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of its range.

    References
    ----------
    .. [1] M. Meller, J. Beyersmann, K. Rufibach, Joint modeling of progression-free and overall survival and
       computation of correlation measures, Statistics in Medicine, 2019.
    .. [2] H.-J. Im et al., Prognostic value of volumetric parameters of 18F-FDG PET in non-small-cell lung
       cancer: a meta-analysis, European Journal of Nuclear Medicine and Molecular Imaging, 2015.

    Examples
    --------
    >>> from mmdls.datasets import make_nsclc_cohort
    >>> X, y = make_nsclc_cohort(60, n_slices=3, return_X_y=True, random_state=0)
    >>> X["lesion_image"].iloc[0].shape
    (3, 32, 32)
    >>> bool((y["dfs_time"] <= y["os_time"]).all())
    True
    """
    lowest, highest = _check_n_slices(n_slices)
    _check_at_least("n_patients", n_patients, 1)
    _check_at_least("image_size", image_size, 8)
    _check_at_least("n_radiomics", n_radiomics, 0)
    _check_fraction("image_signal", image_signal)
    _check_fraction("missing_values", missing_values)
    for name, value in (("censoring", censoring), ("centre_shift", centre_shift)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a number of 0 or more; got {value!r}.")
    rates = _check_missing(missing)

    streams = as_generator(random_state).spawn(6)
    patients_rng, outcomes_rng, factor_rng, slices_rng, radiomics_rng, missing_rng = streams
    patients = draw_patients(n_patients, patients_rng, centre_shift)
    patients.index = pd.Index([f"P{i:05d}" for i in range(1, n_patients + 1)], name="patient_id", dtype="str")
    target, truth = _outcomes(patients, outcomes_rng, censoring, centre_shift)

    shown = image_signal * patients["image_factor"].to_numpy()
    shown = shown + np.sqrt(1 - image_signal**2) * factor_rng.standard_normal(n_patients)
    counts = factor_rng.integers(lowest, highest, n_patients, endpoint=True)
    slices = draw_slices(patients, shown, counts, image_size, slices_rng, centre_shift)
    features = radiomics(
        n_radiomics,
        slices["lesion_image"],
        slices.pop("core"),
        counts,
        np.log(patients["diameter"].to_numpy()),
        patients["log_suv"].to_numpy(),
        radiomics_rng,
    )
    if not masks:
        del slices["lung_mask"], slices["lesion_mask"]
    data = _tables(patients, features)
    for name, pixels in slices.items():
        bags = pd.Series(index=data.index, dtype=object)
        bags[:] = np.split(pixels, np.cumsum(counts)[:-1])
        data[name] = bags
    data["centre"] = patients["centre"]
    data["treatment"] = np.where(patients["immunotherapy"], "immunotherapy", "chemotherapy")
    _remove(data, rates, missing_values, missing_rng)

    cohort = Bunch(data=data, target=target, groups=data["centre"])
    if folder is not None:
        write_cohort(folder, data, target)
        cohort = load_cohort(folder)
    if return_X_y:
        return cohort.data, cohort.target
    names = {"radiomics_names": MEASURED[:n_radiomics], "labels": dict(_LABELS)}
    cohort.update(truth=truth, DESCR=_DESCR.format(n_patients=n_patients), **names)
    return cohort


def _outcomes(
    patients: pd.DataFrame, rng: np.random.Generator, censoring: float, centre_shift: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The observed, censored outcomes, and the true ones."""
    predictors = linear_predictors(patients)
    dfs_time, os_time = draw_times(predictors, rng)
    lost = draw_follow_up(patients["centre"].to_numpy(), rng, censoring, centre_shift)
    dfs_curve, os_curve = survival_curves(predictors)
    target = pd.DataFrame(
        {
            "subtype": pd.Categorical.from_codes(patients["lusc"].astype(int), SUBTYPES),
            "stage": pd.Categorical.from_codes(patients["stage"], STAGES, ordered=True),
            "dfs_time": _in_tenths(np.minimum(dfs_time, lost)),
            "dfs_event": dfs_time <= lost,
            "os_time": _in_tenths(np.minimum(os_time, lost)),
            "os_event": os_time <= lost,
        },
        index=patients.index,
    )
    truth = pd.DataFrame({"dfs_time": dfs_time, "os_time": os_time} | predictors, index=patients.index)
    for name, curve in (("dfs", dfs_curve), ("os", os_curve)):
        truth[f"{name}_risk"] = -np.trapezoid(curve, axis=1)
        for month in HORIZONS:
            truth[f"{name}_survival_{month}"] = curve[:, month]
    truth[["image_factor", "burden"]] = patients[["image_factor", "burden"]]
    for label in (SUBTYPES[1], *STAGES):
        truth[f"{label}_probability"] = patients[f"{label}_probability"]
    return target, truth


def _in_tenths(months: np.ndarray) -> np.ndarray:
    """Months rounded up, so that ties occur, no time is zero, and the order of two times stays."""
    return np.ceil(months * 10) / 10


def _tables(patients: pd.DataFrame, features: np.ndarray) -> pd.DataFrame:
    smoking = np.select([patients["former"], patients["smoker"]], ["former", "current"], "never")
    columns: dict[str, Any] = {
        "clinical_age": patients["age"].round(1),
        "clinical_sex": np.where(patients["male"], "male", "female"),
        "clinical_smoking_status": smoking,
        "clinical_smoking_duration": patients["smoking_duration"].round(1),
        "clinical_smoking_cessation": patients["smoking_cessation"].round(1),
        "clinical_diameter": patients["diameter"].round(2),
    }
    pet = patients[["suvmax", "suvmean", "suvpeak"]].assign(
        tlg=patients["suvmean"] * patients["mtv"], mtv=patients["mtv"]
    )
    columns |= {name: pet[name.removeprefix("pet_")] for name in PET_COLUMNS}
    columns |= {f"radiomics_{k:03d}": features[:, k] for k in range(features.shape[1])}
    return pd.DataFrame(columns, index=patients.index)


def _remove(data: pd.DataFrame, rates: dict[str, float], missing_values: float, rng: np.random.Generator) -> None:
    """Take away whole modalities and single values, in place."""
    age = data["clinical_age"].rank(pct=True).to_numpy()
    for column in data.columns:
        if column.startswith(("clinical_", "pet_")) and column != "clinical_age":
            gone = rng.random(len(data)) < missing_values * (0.5 + age)
            data.loc[gone, column] = np.nan
    for name in _MODALITIES:
        gone = rng.random(len(data)) < rates.get(name, 0.0)
        for column in data.columns:
            if column == f"{name}_image" or (name == "lung" and column.endswith("_mask")):
                data.loc[gone, column] = None
            elif column.endswith("_mask"):
                continue
            elif column.startswith(f"{name}_"):
                data.loc[gone, column] = np.nan


def as_generator(random_state: Any) -> np.random.Generator:
    """A generator from any of the ways to give one."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31, size=4))
    return np.random.default_rng(random_state)


def _check_n_slices(n_slices: int | tuple[int, int]) -> tuple[int, int]:
    given: Any = n_slices
    pair = (given, given) if np.ndim(given) == 0 else tuple(given)
    whole = len(pair) == 2 and all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in pair)
    if not whole or not 1 <= pair[0] <= pair[1]:
        raise ValueError(
            "n_slices must be a number of 1 or more, or a pair (lowest, highest) of such numbers, as in 6 or "
            f"(4, 8); got {n_slices!r}."
        )
    return int(pair[0]), int(pair[1])


def _check_at_least(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number of {least} or more; got {value!r} ({type(value).__name__}).")
    if value < least:
        raise ValueError(f"{name} must be {least} or more; got {value}.")


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1; got {value!r}.")


def _check_missing(missing: float | Mapping[str, float]) -> dict[str, float]:
    rates = dict(missing) if isinstance(missing, Mapping) else dict.fromkeys(_MODALITIES[1:], missing)
    unknown = sorted(set(rates) - set(_MODALITIES))
    if unknown:
        raise KeyError(f"missing names {unknown}, which are no modalities; choose from {list(_MODALITIES)}.")
    for name, rate in rates.items():
        _check_fraction(f"missing[{name!r}]", rate)
    return rates

"""Real cohorts for benchmarks, as tables."""

import os
from os import PathLike
from pathlib import Path

import pandas as pd
from sklearn.utils import Bunch

from mmdls.cohort import check_cohort

__all__ = ["load_r01"]

DAYS_PER_MONTH = 30.4375

_STAGE_GROUPS = {
    "IA": "I-II",
    "IB": "I-II",
    "IIA": "I-II",
    "IIB": "I-II",
    "IIIA": "III",
    "IIIB": "III",
    "IV": "IV",
}
_SMOKING = {"Nonsmoker": "never", "Former": "former", "Current": "current"}

# Columns that are neither features nor outcomes, and why
LEFT_OUT = {
    "histology": "defines the subtype",
    "pT": "defines the stage",
    "pN": "defines the stage",
    "pM": "defines the stage",
    "egfr": "measured on the resected tumour, and tells the subtype",
    "kras": "measured on the resected tumour, and tells the subtype",
    "quit_year_shifted": "a shifted calendar year; the years since quitting are a feature",
    "recurrence": "part of the disease-free outcome",
    "reported_time_to_death": "the overall outcome itself, if more than 3 days off in 16 of 63 deaths",
    "has_ct_slices": "says which images are in this copy of the data, nothing about the patient",
}

_DESCR = """\
TCIA NSCLC Radiogenomics (Bakr et al., 2018, doi 10.7937/K9/TCIA.2017.7hs46erv), CC BY 3.0
------------------------------------------------------------------------------------------
{n} operated patients, {n_images} of them with 9 or 10 CT slices (256 x 256) and lung masks; no lesion masks,
no PET. Time zero is the day of surgery; disease-free survival ends with recurrence or death. Subtype:
histologies other than adenocarcinoma and squamous cell carcinoma are unknown. Stage (AJCC 7): carcinoma in
situ (stage 0) and stages that were not collected are unknown. Years since quitting are 0 for those who never
smoked or still do, and where the dates make them negative.

Left out of the features:
{left_out}
"""


def load_r01(
    data_dir: str | PathLike | None = None, *, invalid: str = "raise", return_X_y: bool = False
) -> Bunch | tuple[pd.DataFrame, pd.DataFrame]:
    """Load the cohort NSCLC Radiogenomics: 211 operated patients, CT slices of 102 of them.

    Two patients have a follow-up time before surgery: both times of one, the disease-free time of the other.
    The cohort is refused for them unless it is said what becomes of them.

    Parameters
    ----------
    data_dir : path-like, default=None
        The folder that holds ``r01``; by default the environment variable ``MMDLS_DATA``.
    invalid : {"raise", "missing", "drop"}, default="raise"
        What becomes of negative follow-up times: ``"missing"`` keeps the patients, without those outcomes; ``"drop"``
        leaves the patients out, and lists them in ``dropped``.
    return_X_y : bool, default=False
        Return ``(data, target)`` only.

    Returns
    -------
    Bunch or (X, y)
        data : DataFrame
            ``clinical_age``, ``clinical_sex``, ``clinical_smoking_status``, ``clinical_pack_years``,
            ``clinical_smoking_cessation`` (years), ``ct_image`` and ``lung_mask`` (folders, or None),
            ``collection``.
        target : DataFrame
            ``subtype``, ``stage`` (ordered), ``dfs_time``, ``dfs_event``, ``os_time``, ``os_event``; months.
        groups : Series
            The part of the collection, "AMC" or "R01". Only the second has images here.
        dropped : DataFrame
            The rows of the clinical table that were left out.
        left_out : dict of str to str
            Columns that are no features, and why.
        DESCR : str

    Raises
    ------
    FileNotFoundError
        If the data are not there.
    ValueError
        If a follow-up time is negative and ``invalid`` is ``"raise"``, or ``invalid`` is none of the three.
    """
    if invalid not in ("raise", "missing", "drop"):
        raise ValueError(f"invalid must be 'raise', 'missing' or 'drop'; got {invalid!r}.")
    root = _find(data_dir)
    table = pd.read_csv(root / "clinical.csv", index_col="case_id").rename_axis("patient_id")
    negative = (table[["os_days_from_surgery", "dfs_days_from_surgery"]] < 0).any(axis=1)
    if negative.any() and invalid == "raise":
        raise ValueError(
            f"the patients {table.index[negative].tolist()} have a negative follow-up time: they would "
            "have died or relapsed before surgery. invalid='missing' keeps them without these outcomes; invalid='drop' "
            "leaves them out, and the result lists them."
        )
    left_out = negative & (invalid == "drop")
    dropped, table = table[left_out], table[~left_out]

    data, target = _features(table, root), _outcomes(table)
    check_cohort(data, target)
    if return_X_y:
        return data, target
    reasons = "\n".join(f"  {column}: {reason}" for column, reason in LEFT_OUT.items())
    return Bunch(
        data=data,
        target=target,
        groups=data["collection"],
        dropped=dropped,
        left_out=dict(LEFT_OUT),
        DESCR=_DESCR.format(n=len(data), n_images=int(data["ct_image"].notna().sum()), left_out=reasons),
    )


def _find(data_dir: str | PathLike | None) -> Path:
    if data_dir is None:
        data_dir = os.environ.get("MMDLS_DATA")
    if not data_dir:
        raise FileNotFoundError("no data folder: set the environment variable MMDLS_DATA, or give data_dir.")
    root = Path(data_dir) / "r01"
    if not (root / "clinical.csv").is_file():
        raise FileNotFoundError(f"there is no 'r01/clinical.csv' in {str(data_dir)!r}.")
    return root


def _features(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    former = table["smoking_status"] == "Former"
    data = pd.DataFrame(
        {
            "clinical_age": table["age"].astype(float),
            "clinical_sex": table["sex"].str.lower(),
            "clinical_smoking_status": table["smoking_status"].map(_SMOKING),
            "clinical_pack_years": table["pack_years"].mask(table["smoking_status"] == "Nonsmoker", 0.0),
            "clinical_smoking_cessation": table["years_since_quit_at_ct"].clip(lower=0).where(former, 0.0),
        }
    )
    for column, part in (("ct_image", "ct"), ("lung_mask", "lung_mask")):
        folders = [
            _slices(root / "images" / patient / part) if there else None
            for patient, there in table["has_ct_slices"].items()
        ]
        data[column] = pd.Series(folders, index=table.index, dtype=object)
    data["collection"] = table.index.str[:3]
    return data


def _slices(folder: Path) -> str:
    if not folder.is_dir():
        raise FileNotFoundError(f"the clinical table promises slices in {str(folder)!r}, which is not there.")
    return str(folder)


def _outcomes(table: pd.DataFrame) -> pd.DataFrame:
    stage = table["stage_ajcc7"].map(_STAGE_GROUPS)
    outcomes = pd.DataFrame(
        {
            "subtype": pd.Categorical(table["subtype"], ["LUAD", "LUSC"]),
            "stage": pd.Categorical(stage, ["I-II", "III", "IV"], ordered=True),
            "dfs_time": table["dfs_days_from_surgery"] / DAYS_PER_MONTH,
            "dfs_event": table["dfs_event"].astype(bool),
            "os_time": table["os_days_from_surgery"] / DAYS_PER_MONTH,
            "os_event": table["os_event"].astype(bool),
        },
        index=table.index,
    )
    for endpoint in ("dfs", "os"):
        known = outcomes[f"{endpoint}_time"] >= 0
        if not known.all():
            outcomes[f"{endpoint}_time"] = outcomes[f"{endpoint}_time"].where(known)
            outcomes[f"{endpoint}_event"] = outcomes[f"{endpoint}_event"].astype("boolean").where(known)
    return outcomes

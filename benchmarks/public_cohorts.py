"""Small cohorts as pairs ``(X, y)``: public tables, simulated patients, and a reader for one's own.

``COHORTS`` maps a name to a function without arguments. Times are months. Features are what was known at time zero.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sksurv import datasets

from benchmarks.cohorts import DAYS_PER_MONTH, load_r01
from mmdls.cohort import check_cohort, read_cohort
from mmdls.datasets import load_cohort, make_nsclc_cohort

__all__ = ["COHORTS", "TABLES", "own_cohort"]

Tables = tuple[pd.DataFrame, pd.DataFrame]


def own_cohort(path: str | os.PathLike) -> Tables:
    """A cohort from a file or folder.

    Parameters
    ----------
    path : path-like
        A CSV or Excel file with a column ``patient_id`` and the column names of :mod:`mmdls.cohort`, times in months; a
        pickle of ``(X, y)``, for which any other table can be read by :func:`mmdls.cohort.read_cohort`; or a folder for
        :func:`mmdls.datasets.load_cohort`.

    Returns
    -------
    X, y : pandas.DataFrame
    """
    path = Path(path)
    if path.is_dir():
        X, y = load_cohort(path, return_X_y=True)
    elif path.suffix in (".pkl", ".pickle"):
        X, y = pd.read_pickle(path)
    else:
        X, y = read_cohort(path, id="patient_id", units="months")
    check_cohort(X, y)
    return X, y


def _cohort(features: pd.DataFrame, y: dict[str, Sequence], block: str = "clinical") -> Tables:
    index = pd.Index([f"p{k:04d}" for k in range(len(features))], name="patient_id")
    X = features.set_axis(index).add_prefix(f"{block}_")
    categories = {c: X[c].astype(object) for c in X if not pd.api.types.is_numeric_dtype(X[c])}
    return X.assign(**categories), pd.DataFrame({name: np.asarray(column) for name, column in y.items()}, index)


def _endpoint(name: str, days: pd.Series, event: pd.Series) -> dict[str, Sequence]:
    return {f"{name}_time": np.asarray(days) / DAYS_PER_MONTH, f"{name}_event": np.asarray(event).astype(bool)}


def _of_r(name: str) -> pd.DataFrame:
    """A table of R's package survival."""
    folder = os.environ.get("MMDLS_DATA")
    if not folder:
        raise FileNotFoundError("no data folder: set the environment variable MMDLS_DATA.")
    return pd.read_csv(Path(folder) / "golden_survival" / "r_survival" / f"{name}.csv")


def _r01() -> Tables:
    """Operated lung cancer, without images."""
    X, y = load_r01(invalid="drop", return_X_y=True)
    return X.drop(columns=["ct_image", "lung_mask"]), y


def _lung() -> Tables:
    """Advanced lung cancer."""
    table = _of_r("lung").rename(columns=lambda c: c.replace(".", "_"))
    features = table.drop(columns=["inst", "time", "status"])
    return _cohort(features, _endpoint("os", table["time"], table["status"] == 2))


def _veteran() -> Tables:
    """Lung cancer, trial of chemotherapy."""
    table = _of_r("veteran")
    return _cohort(table.drop(columns=["time", "status"]), _endpoint("os", table["time"], table["status"]))


def _ovarian() -> Tables:
    """Ovarian cancer, trial of two treatments."""
    table = _of_r("ovarian").rename(columns=lambda c: c.replace(".", "_"))
    return _cohort(table.drop(columns=["futime", "fustat"]), _endpoint("os", table["futime"], table["fustat"]))


def _rotterdam(n_patients: int) -> Tables:
    """Breast cancer, tumour bank; some of 2,982 patients."""
    table = _of_r("rotterdam").sample(n_patients, random_state=0)
    relapsed = table["recur"] == 1
    dfs = _endpoint("dfs", table["rtime"].where(relapsed, table["dtime"]), relapsed | (table["death"] == 1))
    features = table.drop(columns=["pid", "rtime", "recur", "dtime", "death"])
    return _cohort(features, dfs | _endpoint("os", table["dtime"], table["death"]))


def _whas500() -> Tables:
    """Myocardial infarction."""
    X, y = datasets.load_whas500()
    # The stay in hospital is not known on the first day, and ends with the deaths there.
    return _cohort(X.drop(columns="los").astype(float), _endpoint("os", y["lenfol"], y["fstat"]))


def _gbsg2() -> Tables:
    """Breast cancer with positive nodes, trial of hormones; R's table gbsg has the same patients."""
    X, y = datasets.load_gbsg2()
    return _cohort(X, _endpoint("dfs", y["time"], y["cens"]))


def _gse7390() -> Tables:
    """Breast cancer without positive nodes, 4 clinical variables and 76 genes; distant metastasis."""
    X, y = datasets.load_breast_cancer()
    endpoint = _endpoint("metastasis", y["t.tdm"], y["e.tdm"])
    clinical, target = _cohort(X[["age", "er", "grade", "size"]].replace({"grade": {"unkown": None}}), endpoint)
    genes, _ = _cohort(X.filter(regex="^X2"), {}, "genes")
    return clinical.join(genes), target


def _aids() -> Tables:
    """Trial in HIV infection; 96 events in 1,151 patients."""
    X, y = datasets.load_aids()
    # Both columns name the arm; they differ in three patients.
    X = X.drop(columns="txgrp").astype({c: float for c in ("hemophil", "karnof", "sex", "strat2", "tx")})
    named = {c: c + X[c].astype(str) for c in ("ivdrug", "raceth")}
    return _cohort(X.assign(**named), _endpoint("aids", y["time"], y["censor"]))


def _simulated(n_patients: int, image_signal: float) -> Tables:
    """Simulated lung cancer with small images, which tell of survival or do not."""
    X, y = make_nsclc_cohort(
        n_patients, image_signal=image_signal, n_slices=3, image_size=32, return_X_y=True, random_state=0
    )
    return X, y


TABLES: dict[str, Callable[[], Tables]] = {
    "ovarian": _ovarian,
    "veteran": _veteran,
    "rotterdam200": partial(_rotterdam, 200),
    "r01": _r01,
    "lung": _lung,
    "rotterdam400": partial(_rotterdam, 400),
    "whas500": _whas500,
    "gbsg2": _gbsg2,
    "aids": _aids,
    "gse7390": _gse7390,
}
_SIMULATED = {
    f"simulated{n}{suffix}": partial(_simulated, n, signal)
    for n in (100, 200, 400)
    for suffix, signal in (("", 1.0), ("_silent", 0.0))
}
COHORTS = TABLES | _SIMULATED

"""What it is worth to learn from patients who lack modalities.

``python -m benchmarks.missing_modalities`` simulates cohorts of 450 patients, who lack each modality with a chance of
30 %, independently, and 600 others, likewise. The same model learns from all patients as they are, from the complete
ones alone, and from inputs in which what is missing was replaced by the mean of the training patients (of images the
mean image, of categories the most frequent one), at prediction too. The gains are those of each cohort, so that
intervals over cohorts hold the chance of patients and of training. Images are small, and ensembles have three members,
so that it takes minutes.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.intervals import over_cohorts
from mmdls import MMDLS, evaluate
from mmdls._files import whole_file
from mmdls.cohort import find_tasks, modalities
from mmdls.datasets import make_nsclc_cohort
from mmdls.zoo._compare import of_main_metric

__all__ = ["MODALITIES", "imputed", "main_metrics", "measure", "summarise"]

MODALITIES = ("clinical", "pet", "radiomics", "lesion", "lung")


def measure(
    seed: int, *, n_patients: int = 450, n_test: int = 600, missing: float = 0.3, model: Any = None
) -> pd.DataFrame:
    """The metric of each task by each way, in one simulated cohort.

    Parameters
    ----------
    seed : int
    n_patients, n_test : int, default=450 and 600
    missing : float, default=0.3
        Chance that a patient lacks a modality, for each of the five.
    model : estimator, default=None
        None means ``MMDLS(n_members=3)``.

    Returns
    -------
    pandas.DataFrame
        Columns seed, way, n (patients learned from), task, value.
    """
    X, y = make_nsclc_cohort(
        n_patients + n_test,
        n_slices=1,
        image_size=16,
        missing=dict.fromkeys(MODALITIES, missing),
        return_X_y=True,
        random_state=seed,
    )
    X, y = X.drop(columns=["centre", "treatment"]), y[X.notna().any(axis=1)]
    X = X.loc[y.index]
    train, test = X[:n_patients], X[n_patients:]
    complete = train[np.all([train[columns].notna().all(axis=1) for columns in modalities(X).values()], axis=0)]
    ways = {
        "as they are": (train, test),
        "complete cases": (complete, test),
        "mean imputed": (imputed(train, train), imputed(test, train)),
    }
    rows = []
    for way, (learned, asked) in ways.items():
        own = MMDLS(n_members=3, random_state=seed) if model is None else model
        fitted = own.fit(learned, y.loc[learned.index])
        found = main_metrics(fitted, asked, y.loc[asked.index])
        rows += [(seed, way, len(learned), task, value) for task, value in found.items()]
    return pd.DataFrame(rows, columns=["seed", "way", "n", "task", "value"])


def main_metrics(model: Any, X: pd.DataFrame, y: pd.DataFrame) -> pd.Series:
    """The main metric of a fitted model on other patients, by task."""
    table = evaluate(model, X, y, horizons=(), n_resamples=0)
    return table[of_main_metric(table, find_tasks(y))].set_index("task")["value"]


def imputed(X: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """The table with every missing cell replaced by the mean, the mean image, or the most frequent category.

    Parameters
    ----------
    X, reference : pandas.DataFrame
        The means are those of the reference.
    """
    filled = X.copy()
    for column in X:
        known = reference[column].dropna()
        if column.endswith("_image"):
            mean = np.mean([image.mean(axis=0) for image in known], axis=0).round().astype(np.uint8)[None]
            filled[column] = [mean if image is None else image for image in X[column]]
        else:
            mean = known.mean() if known.dtype.kind in "fiu" else known.mode().iloc[0]
            filled[column] = X[column].fillna(mean)
    return filled


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over each other way with its interval over cohorts, by task and for the mean over tasks.

    Parameters
    ----------
    found : pandas.DataFrame
        Of several seeds.
    """
    table = found.pivot_table(index=["seed", "way"], columns="task", values="value")
    table["mean of tasks"] = table.mean(axis=1)
    rows = []
    for other in ("complete cases", "mean imputed"):
        gain = table.xs("as they are", level="way") - table.xs(other, level="way")
        for task in gain:
            rows.append((other, task, *over_cohorts(gain[task]), len(gain)))
    return pd.DataFrame(rows, columns=["against", "task", "gain", "low", "high", "cohorts"])


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, help="a CSV file for the metric of each task, way and cohort")
    settings = parser.parse_args(argv)
    parts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(settings.seeds):
            parts.append(measure(seed))
            print(parts[-1].pivot_table(index="way", columns="task", values="value").round(3), flush=True)
    found = pd.concat(parts)
    print(found.groupby("way")[["n"]].mean().to_string())
    print(summarise(found).to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if settings.out is not None:
        with whole_file(settings.out) as path:
            found.round(4).to_csv(path, index=False)


if __name__ == "__main__":
    main()

"""Is the order of modalities by their Shapley values that of the truth? Simulated patients with images.

``python -m benchmarks.importance`` asks ``MMDLS`` of what clinical variables, PET, slices of the lesion and a block of
noise are worth to it, in cohorts of 300 patients. The oracle is the same question to a Cox regression with splines that
has learned from thousands of patients who were never censored, one regression a subset, and reads in place of the
slices what they show: the image factor, the size and the uptake of the lesion.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from mmdls import MMDLS, ClinicalCox, Trainer
from mmdls._files import whole_file
from mmdls.datasets import make_nsclc_cohort
from mmdls.explain import modality_importance

__all__ = ["measure", "oracle", "summarise"]

_TASKS = ["dfs", "os"]


def _blocks(data: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Clinical variables and PET, and two columns of noise."""
    noise = np.random.default_rng(seed).normal(size=(len(data), 2))
    return data.filter(regex="^clinical_|^pet_").assign(noise_a=noise[:, 0], noise_b=noise[:, 1])


def oracle(n_patients: int = 3000, seed: int = 1000) -> pd.DataFrame:
    """Shapley values of the C-index of each endpoint by someone who knows what slices show.

    Parameters
    ----------
    n_patients : int, default=3000
    seed : int, default=1000
        Of the simulation.

    Returns
    -------
    pandas.DataFrame
        Columns task, modality, oracle.
    """
    cohort = make_nsclc_cohort(n_patients, n_slices=1, image_size=8, n_radiomics=0, random_state=seed)
    X = _blocks(cohort.data, seed).assign(
        lesion_factor=cohort.truth["image_factor"],
        lesion_size=np.log(cohort.data["clinical_diameter"]),
        lesion_uptake=np.log(cohort.data["pet_suvmax"]),
    )
    parts = []
    for task in _TASKS:
        y = pd.DataFrame({f"{task}_time": cohort.truth[f"{task}_time"].clip(lower=0.1), f"{task}_event": True})
        model = ClinicalCox(columns="all", endpoint=task)
        parts.append(modality_importance(model, X, y, cv=2, refit=True, n_resamples=0).cohort)
    found = pd.concat(parts, ignore_index=True).rename(columns={"value": "oracle"})
    return found[["task", "modality", "oracle"]]


def measure(
    seed: int, *, n_patients: int = 300, slices: int = 2, image_size: int = 32, epochs: int = 40
) -> pd.DataFrame:
    """Shapley values of the modalities of one simulated cohort.

    Parameters
    ----------
    seed : int
    n_patients, slices, image_size : int, default=300, 2 and 32
    epochs : int, default=40
        Of the training of one network with its linear part.

    Returns
    -------
    pandas.DataFrame
        Columns seed, task, modality, value, low, high.
    """
    data, y = make_nsclc_cohort(n_patients, n_slices=slices, image_size=image_size, return_X_y=True, random_state=seed)
    X = _blocks(data, seed).assign(lesion_image=data["lesion_image"])
    y = y[[f"{task}_{part}" for task in _TASKS for part in ("time", "event")]]
    model = MMDLS(n_members=1, trainer=Trainer(max_epochs=epochs), random_state=seed)
    found = modality_importance(model, X, y, cv=3, n_resamples=200).cohort
    return found.assign(seed=seed)[["seed", "task", "modality", "value", "low", "high"]]


def summarise(found: pd.DataFrame, truth: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What modalities are worth on average, and how often their order is the oracle's.

    Parameters
    ----------
    found : pandas.DataFrame
        Of several seeds.
    truth : pandas.DataFrame
        As :func:`oracle` gives it.

    Returns
    -------
    values : pandas.DataFrame
        Columns task, modality, oracle, value, sd (over cohorts), covers_0 (share of the cohorts whose interval does).
    orders : pandas.DataFrame
        By task: cohorts, same (order from the first to the last), pairs (share of the pairs that stand in the
        oracle's order), mean (whether the order of the mean values is the oracle's).
    """
    found = found[found["modality"] != "all"].reset_index(drop=True)
    found["covers_0"] = (found["low"] <= 0) & (found["high"] >= 0)
    groups = found.groupby(["task", "modality"], sort=False)
    values = groups.agg(value=("value", "mean"), sd=("value", "std"), covers_0=("covers_0", "mean")).reset_index()
    values = truth.merge(values, on=["task", "modality"])
    rows = []
    for task, own in found.merge(truth, on=["task", "modality"]).groupby("task", sort=False):
        right = own.groupby("seed").apply(lambda one: _pairs(one["value"], one["oracle"]), include_groups=False)
        mean = values[values["task"] == task]
        same_mean = _pairs(mean["value"], mean["oracle"]) == 1
        rows.append((task, len(right), int((right == 1).sum()), right.mean(), same_mean))
    return values, pd.DataFrame(rows, columns=["task", "cohorts", "same", "pairs", "mean"])


def _pairs(a: pd.Series, b: pd.Series) -> float:
    """The share of pairs that stand in one order in both."""
    first, second = np.triu_indices(len(a), 1)
    a, b = a.to_numpy(), b.to_numpy()
    return float(np.mean((a[first] - a[second]) * (b[first] - b[second]) > 0))


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write the values of every cohort."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.importance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=6, help="how many cohorts")
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--out", type=Path, help="a CSV file for the values of each cohort")
    settings = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth, parts = oracle(), []
        for seed in range(settings.seeds):
            parts.append(measure(seed, n_patients=settings.patients))
            for table in summarise(pd.concat(parts), truth):
                print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"), flush=True)
    if settings.out is not None:
        with whole_file(settings.out) as path:
            pd.concat(parts).merge(truth, on=["task", "modality"]).round(4).to_csv(path, index=False)


if __name__ == "__main__":
    main()

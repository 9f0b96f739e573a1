"""Whether more modalities ever hurt ``MMDLS()``: noise must cost nearly nothing, and what informs must not cost.

``python -m benchmarks.more_modalities`` simulates 20 cohorts of 300 patients and 1,000 others and lets the defaults
learn with and without a modality: 500 radiomics of pure noise, the images of other patients, the patients' own images.
Each law allows a loss of .005. Differences are those within a cohort; the test patients of one cohort leave an
uncertainty of their own, so the mean over cohorts stands beside the count. It takes about an hour on two cores.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.intervals import over_cohorts
from benchmarks.missing_modalities import main_metrics
from mmdls import MMDLS
from mmdls._files import whole_file
from mmdls.cohort import modalities
from mmdls.datasets import make_nsclc_cohort

__all__ = ["ALLOWED", "LAWS", "inputs_of", "measure", "summarise"]

# The inputs with a modality, and those without.
LAWS = {
    "500 noise radiomics": ("clinical, PET, noise", "clinical, PET"),
    "images of other patients": ("tables, others' images", "tables"),
    "own images": ("tables, images", "tables"),
}
ALLOWED = 0.005


def measure(seed: int, *, n_patients: int = 300, n_test: int = 1000, model: Any = None) -> pd.DataFrame:
    """The metric of each task with each set of inputs, in one simulated cohort.

    Parameters
    ----------
    seed : int
    n_patients, n_test : int, default=300 and 1000
    model : estimator, default=None
        None means ``MMDLS()``.

    Returns
    -------
    pandas.DataFrame
        Columns seed, inputs, task, value.
    """
    X, y = make_nsclc_cohort(n_patients + n_test, n_slices=(3, 6), return_X_y=True, random_state=seed)
    rows = []
    for name, inputs in inputs_of(X, n_patients, np.random.default_rng(seed)).items():
        own = MMDLS(random_state=seed) if model is None else model
        fitted = own.fit(inputs[:n_patients], y[:n_patients])
        found = main_metrics(fitted, inputs[n_patients:], y[n_patients:])
        rows += [(seed, name, task, value) for task, value in found.items()]
    return pd.DataFrame(rows, columns=["seed", "inputs", "task", "value"])


def inputs_of(X: pd.DataFrame, n_patients: int, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The sets of inputs by name; images change places among the first patients and among the others."""
    columns = modalities(X)
    images = [*columns["lesion"], *columns["lung"]]
    few = X[[*columns["clinical"], *columns["pet"]]]
    tables = few.join(X[columns["radiomics"]])
    noise = pd.DataFrame(rng.normal(size=(len(X), 500)), index=X.index).add_prefix("radiomics_noise_")
    place = np.concatenate([rng.permutation(n_patients), n_patients + rng.permutation(len(X) - n_patients)])
    others = X[images].iloc[place].set_axis(X.index, axis=0)
    return {
        "clinical, PET": few,
        "clinical, PET, noise": few.join(noise),
        "tables": tables,
        "tables, others' images": tables.join(others),
        "tables, images": tables.join(X[images]),
    }


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """For each law and task, in how many cohorts it holds, and the mean difference with its interval over cohorts.

    Parameters
    ----------
    found : pandas.DataFrame
        Of several seeds.
    """
    table = found.pivot_table(index=["seed", "inputs"], columns="task", values="value")
    table["mean of tasks"] = table.mean(axis=1)
    rows = []
    for law, (more, fewer) in LAWS.items():
        gain = table.xs(more, level="inputs") - table.xs(fewer, level="inputs")
        for task in gain:
            holds = int((gain[task] >= -ALLOWED).sum())
            rows.append((law, task, holds, len(gain), *over_cohorts(gain[task]), gain[task].min()))
    return pd.DataFrame(rows, columns=["added", "task", "holds", "cohorts", "difference", "low", "high", "worst"])


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 20), metavar=("FIRST", "END"))
    parser.add_argument("--out", type=Path, help="a CSV file for the metric of each task, set of inputs and cohort")
    settings = parser.parse_args(argv)
    parts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(*settings.seeds):
            parts.append(measure(seed))
            print(parts[-1].pivot_table(index="inputs", columns="task", values="value").round(3), flush=True)
            if settings.out is not None:  # a run that is stopped leaves what it has
                with whole_file(settings.out) as path:
                    pd.concat(parts).round(4).to_csv(path, index=False)
    print(summarise(pd.concat(parts)).to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()

"""Scores of predictions for right-censored outcomes, compared with the known truth of a simulated cohort.

``python -m benchmarks.known_truth`` prints, for each horizon, the scores of the same predictions on the uncensored
outcomes, and on the censored ones when patients censored before the horizon count as events, are left out, or are
replaced by inverse-probability weights.
"""

import argparse

import numpy as np
import pandas as pd

from mmdls.cohort import survival_target
from mmdls.datasets import make_nsclc_cohort
from mmdls.metrics import (
    auc_score,
    brier_score,
    cumulative_dynamic_auc,
    horizon_labels,
    kaplan_meier,
    step_values,
)

__all__ = ["measure"]


def measure(n_patients: int = 10_000, endpoint: str = "os", random_state: int = 0) -> pd.DataFrame:
    """Mean risk, Brier score and AUC of the true survival probabilities, by horizon and treatment of censoring.

    Parameters
    ----------
    n_patients : int, default=10_000
    endpoint : {"dfs", "os"}, default="os"
    random_state : int, default=0

    Returns
    -------
    pandas.DataFrame
        Rows by horizon and treatment of censoring; columns observed_risk, brier, auc.
    """
    cohort = make_nsclc_cohort(n_patients, n_slices=1, image_size=8, n_radiomics=1, random_state=random_state)
    y = survival_target(cohort.target, endpoint)
    rows = []
    for horizon in (12, 36, 60):
        survival = cohort.truth[f"{endpoint}_survival_{horizon}"].to_numpy()
        died = (cohort.truth[f"{endpoint}_time"] <= horizon).to_numpy()
        known = horizon_labels(y["event"], y["time"], horizon)
        ways = {
            "truth": died.astype(float),
            "censored = event": (y["time"] <= horizon).astype(float),
            "left out": known,
        }
        for way, label in ways.items():
            there = ~np.isnan(label)
            row = label[there].mean(), np.mean((1 - survival - label)[there] ** 2)
            rows.append((horizon, way, *row, auc_score(label[there].astype(int), 1 - survival[there])))
        observed = 1 - step_values(*kaplan_meier(y["event"], y["time"]), horizon)
        brier, auc = brier_score(y, y, survival, horizon), cumulative_dynamic_auc(y, y, 1 - survival, horizon)
        rows.append((horizon, "weighted", float(observed), brier, auc))
    return pd.DataFrame(rows, columns=["horizon", "censoring", "observed_risk", "brier", "auc"])


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=10_000)
    parser.add_argument("--endpoint", choices=("dfs", "os"), default="os")
    settings = parser.parse_args(argv)
    print(measure(settings.patients, settings.endpoint).to_string(index=False, float_format=lambda v: f"{v:.3f}"))


if __name__ == "__main__":
    main()

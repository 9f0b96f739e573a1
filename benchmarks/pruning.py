"""The time that pruning saves in a search, and its effect on the score of the best model.

``python -m benchmarks.pruning`` searches a multimodal model on the tables of simulated patients by cross-validation.
All searches run the same trials in the same order until one is stopped: without pruning, with pruning after folds,
after epochs, and both (the default of :class:`~mmdls.search.OptunaSearch`). For each search it prints the processor
time, as a fraction of the search without pruning, and the score of the refitted best model on new patients.
"""

import argparse
import time
from pathlib import Path

import optuna
import pandas as pd
from tqdm.auto import tqdm

from mmdls import MMDLS, Trainer
from mmdls._files import whole_file
from mmdls.datasets import make_nsclc_cohort
from mmdls.model_selection import CohortKFold
from mmdls.search import OptunaSearch

__all__ = ["STRATEGIES", "measure"]

_NEVER = optuna.pruners.NopPruner()
_MEDIAN = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=10, n_min_trials=5)
STRATEGIES = {
    "nothing": {"pruner": _NEVER, "epoch_pruner": _NEVER},
    "after folds": {"epoch_pruner": _NEVER},
    "after epochs": {"pruner": _NEVER},
    "both (default)": {},
    "after epochs, worse half": {"pruner": _NEVER, "epoch_pruner": _MEDIAN},
}


def measure(
    n_patients: int = 400,
    n_test: int = 1000,
    n_trials: int = 30,
    seeds: tuple[int, ...] = (0, 1, 2),
    max_epochs: int = 150,
) -> pd.DataFrame:
    """Search with each kind of pruning.

    Parameters
    ----------
    n_patients, n_test : int
        Patients for the search, and new patients for the score of the best model.
    n_trials : int, default=30
    seeds : tuple of int, default=(0, 1, 2)
        Seeds of cohorts and searches.
    max_epochs : int, default=150

    Returns
    -------
    pandas.DataFrame
        One row per seed and strategy: stopped trials, cv_score and test_score (mean over tasks of AUC and C-index),
        processor seconds, and these as a fraction of the search without pruning.
    """
    rows = []
    for seed in tqdm(seeds, unit="seed"):
        cohort = make_nsclc_cohort(n_patients + n_test, n_slices=1, image_size=8, random_state=seed)
        X = cohort.data[[c for c in cohort.data if c.startswith(("clinical_", "pet_", "radiomics_"))]]
        y, learned, new = cohort.target, slice(0, n_patients), slice(n_patients, None)
        for strategy, pruners in tqdm(STRATEGIES.items(), unit="search", leave=False):
            search = OptunaSearch(
                MMDLS(trainer=Trainer(max_epochs=max_epochs), random_state=seed),
                cv=CohortKFold(3, random_state=seed),
                n_trials=n_trials,
                random_state=seed,
                refit=False,
                **pruners,
            )
            start = time.process_time()
            search.fit(X[learned], y[learned])
            seconds = time.process_time() - start
            best = MMDLS(trainer=Trainer(max_epochs=max_epochs), random_state=seed).set_params(**search.best_params_)
            test_score = best.fit(X[learned], y[learned]).score(X[new], y[new])
            stopped = (pd.Series(search.cv_results_["state"]) == "PRUNED").sum()
            rows.append((seed, strategy, int(stopped), search.best_score_, test_score, seconds))
    table = pd.DataFrame(rows, columns=["seed", "pruned", "stopped", "cv_score", "test_score", "seconds"])
    whole = table[table["pruned"] == "nothing"].set_index("seed")["seconds"]
    return table.assign(fraction=table["seconds"] / table["seed"].map(whole))


def main(argv: list[str] | None = None) -> None:
    """Print one row a search and the mean over seeds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning", description=__doc__.partition("\n")[0])
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--test-patients", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3, help="how many cohorts")
    parser.add_argument("--out", type=Path, default=None, help="a CSV file for the rows")
    options = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = measure(
        options.patients, options.test_patients, options.trials, tuple(range(options.seeds)), options.epochs
    )
    if options.out is not None:
        with whole_file(options.out) as path:
            table.to_csv(path, index=False)
    print(table.round(3).to_string(index=False))
    mean = table.drop(columns="seed").groupby("pruned", sort=False).mean()
    print("\nmean over cohorts\n" + mean.round(3).to_string())


if __name__ == "__main__":
    main()

"""Does the multimodal default, as users get it, keep up with simple models on small cohorts, tables above all?

``python -m benchmarks.small_cohorts`` predicts every patient of every cohort out of fold, by ``MMDLS()`` and by tuned
simple models on the same repeated folds. One file a cohort, model and repeat is kept, so that a run goes on where it
was, and a changed default is compared with simple models that are not run again::

    python -m benchmarks.small_cohorts --rerun mmdls                       # after a change of the code
    python -m benchmarks.small_cohorts --default mmdls "wide=mmdls:hidden_features=128"   # beside the present one
    python -m benchmarks.small_cohorts --cohorts mine --cohort mine=PATH   # see benchmarks.public_cohorts.own_cohort
"""

import argparse
import ast
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
import pandas as pd
from sklearn.base import BaseEstimator
from tqdm.auto import tqdm

from benchmarks.models import lacking
from benchmarks.public_cohorts import COHORTS, TABLES, own_cohort
from benchmarks.small_tables import markdown, show, tabulate
from mmdls import create
from mmdls._files import whole_file
from mmdls.cohort import find_tasks
from mmdls.evaluation._predict import time_grid
from mmdls.metrics import kaplan_meier, step_values
from mmdls.model_selection import CohortKFold
from mmdls.report import data_hash, image_hash
from mmdls.zoo._folds import fit_fold, for_all_tasks
from mmdls.zoo._inputs import columns_of, unavailable

__all__ = ["FLOOR", "SIMPLE", "Unit", "WithoutFeatures", "horizons_of", "main", "plan", "run_unit"]

FLOOR = "floor"
SIMPLE = (
    "clinical_linear",
    "tables_linear",
    "tables_elastic_net",
    "tables_forest",
    "tables_boosting",
    "tables_sign_weighted",
)


class WithoutFeatures(BaseEstimator):
    """The same for every patient: Kaplan-Meier curves of endpoints, shares of classes; other tasks are not answered."""

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "WithoutFeatures":
        """Keep the outcomes of the training rows."""
        self.y_ = y
        self.tasks_ = {
            name: task for name, task in find_tasks(y).items() if task.has_classes or task.estimator_type == "survival"
        }
        return self

    def predict_tasks(self, X: pd.DataFrame, times: np.ndarray) -> dict[str, pd.DataFrame]:
        """Predictions of every task, as models of the library make them."""
        tables = {}
        for name, task in self.tasks_.items():
            if task.has_classes:
                row = self.y_[name].value_counts(normalize=True).reindex(list(task.classes), fill_value=0.0)
            else:
                outcome = task.outcome(self.y_)
                outcome = outcome[task.known(outcome)]
                survival = step_values(*kaplan_meier(outcome["event"], outcome["time"]), times)
                row = pd.Series([0.0, *np.where(times <= outcome["time"].max(), survival, np.nan)], ["risk", *times])
            tables[name] = pd.DataFrame([row.to_numpy()] * len(X), X.index, list(row.index))
        return tables


@dataclass(frozen=True)
class Unit:
    """What is done at once and kept in one file: one model on the folds of one repeat of one cohort.

    Parameters
    ----------
    cohort : str
    load : callable
        Returns ``X, y``.
    model : str
        ``[label=]name[:parameter=value]...``; the name is one of :mod:`mmdls.zoo`, or "floor".
    n_folds, repeat : int
    seed : int, default=0
        The model's ``random_state``. With another than 0 only the first fold is done.
    """

    cohort: str
    load: Callable[[], tuple[pd.DataFrame, pd.DataFrame]]
    model: str
    n_folds: int
    repeat: int
    seed: int = 0

    @property
    def label(self) -> str:
        """What tables and files call the model."""
        first = self.model.partition(":")[0]
        return first.partition("=")[0]

    @property
    def recipe(self) -> str:
        """The registered name."""
        return self.model.partition(":")[0].rpartition("=")[2]

    def build(self) -> Any:
        """The model, unfitted."""
        if self.recipe == FLOOR:
            return WithoutFeatures()
        model = create(self.recipe)
        for text in self.model.split(":")[1:]:
            name, _, value = text.partition("=")
            model.set_params(**{name: _literal(value)})
        seeds = [name for name in model.get_params(deep=True) if name.rpartition("__")[2] == "random_state"]
        return for_all_tasks(model.set_params(**dict.fromkeys(seeds, self.seed)))

    def path(self, out: Path) -> Path:
        """Where it is kept."""
        seed = f"-seed{self.seed}" if self.seed else ""
        return out / "units" / self.cohort / f"{self.label}-{self.repeat}{seed}.joblib"

    def splits(self, X: pd.DataFrame, y: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
        """Training and test rows, the same for every model."""
        found = list(CohortKFold(self.n_folds, random_state=self.repeat).split(X, y))
        return found[:1] if self.seed else found


def horizons_of(y: pd.DataFrame) -> dict[str, float]:
    """The median time of the events of each endpoint; "last", until when curves are scored: 80 % of all follow-up."""
    outcomes = {name: task.outcome(y) for name, task in find_tasks(y).items() if task.is_censored}
    medians = {name: np.nanmedian(each["time"][each["event"] > 0]) for name, each in outcomes.items()}
    last = {"last": max(np.nanquantile(each["time"], 0.8) for each in outcomes.values())} if outcomes else {}
    return {name: round(float(time), 2) for name, time in {**medians, **last}.items()}


def run_unit(unit: Unit, out: Path, identity: str) -> tuple[Unit, str]:
    """Fit and predict all folds, and keep the predictions; returns what went wrong, "" for nothing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y = unit.load()
    horizons, splits = horizons_of(y), unit.splits(X, y)
    fits, seconds = [], []
    try:
        model = unit.build()
        for k, split in enumerate(splits):
            start = time.process_time()  # of the processor, so that other programs on the machine do not count
            fits.append(fit_fold(unit.label, k, model, X, y, split, times=time_grid(tuple(horizons.values()))))
            seconds.append(time.process_time() - start)
    except RuntimeError as error:  # one model's failure on one cohort must not take the others'
        return unit, str(error)
    folds = pd.concat([pd.Series(k, X.index[test]) for k, (_, test) in enumerate(splits)])
    kept = {
        "identity": identity,
        "model": unit.model,
        "folds": folds,
        "horizons": horizons,
        "predictions": {
            name: pd.concat([fit.predictions[name].drop(columns="group", errors="ignore") for fit in fits])
            for name in fits[0].predictions
        },
        "seconds": seconds,
        "chosen": [fit.chosen for fit in fits],
        "messages": [fit.messages for fit in fits],
    }
    path = unit.path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial_path:
        joblib.dump(kept, partial_path, compress=3)
    return unit, ""


def plan(
    cohorts: Mapping[str, Callable],
    defaults: Sequence[str],
    simple: Sequence[str],
    folds: int,
    repeats: int,
    seeds: int,
) -> tuple[list[Unit], dict[str, tuple[pd.DataFrame, str]]]:
    """All units, and of every cohort its outcomes and what identifies it; models whose inputs it lacks are left out."""
    units, known = [], {}
    for cohort, load in cohorts.items():
        X, y = load()
        known[cohort] = y, joblib.hash([data_hash(X), image_hash(X), data_hash(y), folds])
        for repeat in range(repeats):
            for model in dict.fromkeys([FLOOR, *simple, *defaults]):
                unit = Unit(cohort, load, model, folds, repeat)
                if _fits(unit.recipe, X, simple):
                    units.append(unit)
        units += [Unit(cohort, load, model, folds, 0, seed) for model in defaults for seed in range(1, seeds)]
    return units, known


def run(units: Sequence[Unit], known: Mapping[str, tuple[Any, str]], out: Path, jobs: int) -> list[tuple[Unit, str]]:
    """Do the units that are not kept yet; returns those that failed."""
    left = [unit for unit in units if not unit.path(out).exists()]
    failed = []
    parallel = joblib.Parallel(n_jobs=min(jobs, max(len(left), 1)), return_as="generator_unordered")
    with tqdm(total=len(left), desc="cohorts x models x repeats", unit="unit", file=sys.stderr) as bar:
        try:
            for unit, error in parallel(joblib.delayed(run_unit)(unit, out, known[unit.cohort][1]) for unit in left):
                bar.set_postfix_str(f"{unit.cohort}, {unit.label}")
                bar.update()
                failed += [(unit, error)] if error else []
        except KeyboardInterrupt:
            print("\nInterrupted: what is finished is kept, and the tables are of that.")
    return failed


def read(units: Sequence[Unit], known: Mapping[str, tuple[Any, str]], out: Path) -> list[dict[str, Any]]:
    """What is kept of the units."""
    found = []
    for unit in units:
        path = unit.path(out)
        if path.exists():
            kept = joblib.load(path)
            if kept["identity"] != known[unit.cohort][1] or kept["model"] != unit.model:
                raise SystemExit(
                    f"{path} is of another cohort, number of folds or model ({kept['model']}, not {unit.model}). "
                    f"Choose another --out or label, or replace it by --rerun {unit.label}."
                )
            found.append({**kept, "cohort": unit.cohort, "label": unit.label, "repeat": unit.repeat, "seed": unit.seed})
    return found


def _fits(recipe: str, X: pd.DataFrame, models: Sequence[str]) -> bool:
    """Whether the cohort has a model's inputs, and it differs from the same model of all tables."""
    if recipe == FLOOR:
        return True
    same = columns_of(X, "clinical") == columns_of(X, "tables") and recipe.startswith("clinical_")
    if same and recipe.replace("clinical_", "tables_") in models:
        return False
    return not lacking(recipe, X)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _names(text: str, cohorts: Mapping[str, Any]) -> list[str]:
    groups = {"tables": list(TABLES), "all": list(cohorts)}
    names = [name for part in text.split(",") for name in groups.get(part, [part])]
    unknown = [name for name in names if name not in cohorts]
    if unknown:
        raise SystemExit(f"--cohorts: there is no {', '.join(unknown)}; there are tables, all, {', '.join(cohorts)}.")
    return list(dict.fromkeys(names))


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.small_cohorts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cohorts", default="all", help="names separated by commas, 'tables' or 'all' (default)")
    parser.add_argument("--cohort", action="append", default=[], metavar="NAME=PATH", help="a cohort of your own")
    parser.add_argument(
        "--default", nargs="+", default=["mmdls"], help="[label=]name[:parameter=value]..., what is judged"
    )
    parser.add_argument("--models", nargs="*", default=list(SIMPLE), help="the simple models, in the same form")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3, help="values of random_state of the default, in one fold")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--rerun", nargs="+", default=[], metavar="LABEL", help="models whose kept results are replaced"
    )
    parser.add_argument("--out", type=Path, default=Path("results/small_cohorts"))
    options = parser.parse_args(argv)

    own = dict(text.split("=", 1) for text in options.cohort)
    cohorts = COHORTS | {name: partial(own_cohort, path) for name, path in own.items()}
    cohorts = {name: cohorts[name] for name in _names(options.cohorts, cohorts)}
    wanted = [Unit("", dict, model, 2, 0) for model in options.models]
    idle = {unit: why for unit in wanted if (why := unavailable(unit.build()))}
    simple = [unit.model for unit in wanted if unit not in idle]
    units, known = plan(cohorts, options.default, simple, options.folds, options.repeats, options.seeds)
    for unit in units:
        if unit.label in options.rerun:
            unit.path(options.out).unlink(missing_ok=True)
    for unit, why in idle.items():
        print(f"Not compared: {unit.label}, since {why}.")
    failed = run(units, known, options.out, options.jobs)
    found = read(units, known, options.out)
    if not found:
        raise SystemExit("nothing is finished yet, so there are no tables.")
    defaults = [unit.label for unit in (Unit("", dict, model, 2, 0) for model in options.default)]
    tables = tabulate(found, {name: y for name, (y, _) in known.items()}, defaults, FLOOR)
    for name, table in tables.items():
        with whole_file(options.out / f"{name}.csv") as path:
            table.to_csv(path, index=False)
    text = show(tables, defaults, FLOOR)
    with whole_file(options.out / "tables.md") as path:
        path.write_text("\n\n".join(f"**{title}**\n\n{markdown(table)}" for title, table in text.items()) + "\n")
    for title, table in text.items():
        print(f"\n{title}\n{table.to_string(line_width=100)}")
    for unit, error in failed:
        print(f"\nFAILED {unit.cohort}, repeat {unit.repeat}: {error}")
    print(f"\nTables are in {options.out}/ (CSV, tables.md). The same command goes on where this one was.")


if __name__ == "__main__":
    main()

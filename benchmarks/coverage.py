"""How often conformal sets and bounds hold, over many simulated cohorts.

``python -m benchmarks.coverage`` draws cohorts, calibrates on 300 patients of each, and counts on 300 others how often
sets hold the true label and lower bounds are outlived by the true, uncensored time. The models are fast ones of
scikit-learn and scikit-survival on clinical and PET variables; what holds does not depend on how good they are. Every
draw that is finished is kept in ``--out``, and the same command goes on where it was; after a change of the code, take
another ``--out``.
"""

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sksurv.linear_model import CoxPHSurvivalAnalysis
from tqdm.auto import tqdm

from benchmarks.small_tables import markdown
from mmdls._files import whole_file
from mmdls.datasets import make_nsclc_cohort
from mmdls.uncertainty import ConformalPredictor

__all__ = ["measure", "show", "summarise"]

_LEVEL = 0.9
_LABELS, _TIMES = ["subtype", "stage"], ["dfs_time", "dfs_event", "os_time", "os_event"]
_SETS: dict[str, dict[str, Any]] = {
    f"{method} {score}": {"method": method, "score": score}
    for method, score in (("split", "lac"), ("cross", "lac"), ("cross", "aps"), ("cross", "randomised_aps"))
}
_BOUNDS: dict[str, dict[str, Any]] = {"split": {"method": "split"}, "cross": {"method": "cross"}}


def measure(draw: int, *, n_patients: int = 300, n_test: int = 300) -> pd.DataFrame:
    """Coverage in one simulated cohort without, and in one with, differences between centres.

    Parameters
    ----------
    draw : int
        The seed of the simulation.
    n_patients, n_test : int, default=300

    Returns
    -------
    pandas.DataFrame
        Columns centres, what, task, group (``"all"`` or a centre), coverage, size (classes of a set, months of
        a bound).
    """
    parts = []
    for centres, shift in (("equal", 0.0), ("shifted", 1.0)):
        cohort = make_nsclc_cohort(
            n_patients + n_test, n_slices=1, image_size=8, n_radiomics=0, centre_shift=shift, random_state=draw
        )
        fitted, tested = np.arange(n_patients), np.arange(n_patients, n_patients + n_test)
        variants = {"": {}} if not shift else {"": {}, ", by centre": {"by": "centre"}}
        for what, options in variants.items():
            for row in _covered(cohort, fitted, tested, options, everything=not shift):
                if shift or row[2] == "all":
                    parts.append((centres, row[0] + what, *row[1:]))
        if shift:
            # Another hospital: whoever calibrates is from A to D, and the level is asked of E.
            new = (cohort.groups == "E").to_numpy()
            for row in _covered(cohort, np.flatnonzero(~new)[:n_patients], np.flatnonzero(new), {}, everything=False):
                parts += [("new", *row)] if row[2] == "all" else []
    return pd.DataFrame(parts, columns=["centres", "what", "task", "group", "coverage", "size"])


def _covered(
    cohort: Any, fitted: np.ndarray, tested: np.ndarray, options: dict[str, Any], *, everything: bool
) -> Iterator[tuple]:
    """What, task, group, coverage and size."""
    X, y, truth = cohort.data, cohort.target, cohort.truth
    numbers = [column for column in X if column.startswith(("clinical_", "pet_")) and X[column].dtype.kind == "f"]
    X = X[numbers].apply(lambda column: (column - column.mean()) / column.std()).assign(centre=cohort.groups)
    read = make_column_transformer(("passthrough", numbers))
    for model, columns, variants in (
        (LogisticRegression(max_iter=1000), _LABELS, _SETS if everything else {"cross lac": _SETS["cross lac"]}),
        (CoxPHSurvivalAnalysis(alpha=1.0), _TIMES, _BOUNDS if everything else {"cross": _BOUNDS["cross"]}),
    ):
        for what, variant in variants.items():
            conformal = ConformalPredictor(
                make_pipeline(read, model), confidence_level=_LEVEL, random_state=0, **variant, **options
            )
            conformal.fit(X.iloc[fitted], y[columns].iloc[fitted])
            found = {}
            if columns is _LABELS:
                for task, table in conformal.predict_sets(X.iloc[tested]).items():
                    codes = y[task].iloc[tested].cat.codes.to_numpy()
                    found[task] = table.to_numpy()[np.arange(len(tested)), codes], table.sum(axis=1).to_numpy()
            else:
                for task, bound in conformal.predict_lower_bounds(X.iloc[tested]).items():
                    found[task] = (truth[f"{task}_time"].iloc[tested] >= bound).to_numpy(), bound.to_numpy()
            centre = cohort.groups.iloc[tested].to_numpy()
            for task, (held, size) in found.items():
                for group in ("all", *np.unique(centre)):
                    rows = (centre == group) | (group == "all")
                    yield what, task, group, held[rows].mean(), size[rows].mean()


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Mean coverage over draws with its standard error, and how far it is from the level.

    Parameters
    ----------
    found : pandas.DataFrame
        Of several draws.

    Returns
    -------
    pandas.DataFrame
        ``within``: whether the mean lies within two points of the level.
    """
    groups = found.groupby(["centres", "what", "task", "group"], sort=False)
    table = groups.agg(
        coverage=("coverage", "mean"), se=("coverage", "sem"), sd=("coverage", "std"), size=("size", "mean")
    ).reset_index()
    return table.assign(within=(table["coverage"] - _LEVEL).abs() <= 0.02)


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The summary as people read it: coverage with its standard error, one table for each relation of the centres.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`summarise` gives it.
    """
    text = [f"{mean:.3f} ({se:.3f})" for mean, se in table[["coverage", "se"]].to_numpy()]
    table = table.assign(coverage=text, sd=table["sd"].map("{:.3f}".format), size=table["size"].map("{:.2f}".format))
    own = {centres: part.drop(columns="centres") for centres, part in table.groupby("centres", sort=False)}
    return {
        "Centres alike": own["equal"].set_index(["what", "task"])[["coverage", "sd", "size"]],
        "Centres that differ": own["shifted"].pivot(index=["what", "task"], columns="group", values="coverage"),
        "A centre that was not there": own["new"].set_index(["what", "task"])[["coverage"]],
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("results/coverage"), help="a folder")
    settings = parser.parse_args(argv)
    settings.out.mkdir(parents=True, exist_ok=True)
    draws = settings.out / "draws.csv"
    parts = [own for _, own in pd.read_csv(draws).groupby("draw")] if draws.exists() else []
    done = {int(own["draw"].iloc[0]) for own in parts}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small centres
        for draw in tqdm([draw for draw in range(settings.draws) if draw not in done], unit="draw"):
            parts.append(measure(draw).assign(draw=draw))
            with whole_file(draws) as path:
                pd.concat(parts).to_csv(path, index=False)
    table = summarise(pd.concat(parts))
    text = "\n\n".join(f"**{title}**\n\n{markdown(own)}" for title, own in show(table).items())
    print(
        f"{text}\n\n{len(parts)} draws; {int((~table['within']).sum())} of {len(table)} rows are not within two points."
    )
    with whole_file(settings.out / "table.csv") as path:
        table.round(4).to_csv(path, index=False)
    with whole_file(settings.out / "tables.md") as path:
        path.write_text(text + "\n")


if __name__ == "__main__":
    main()

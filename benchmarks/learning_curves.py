"""How each model improves with the number of patients it learns from, and what limits it: encoder, labels or patients.

``python -m benchmarks.learning_curves`` trains the benchmarked models on nested parts of a simulated cohort and tests
all of them on the same further patients. Two curves know more than any model may: a Cox model of the clinical and PET
variables *and the true image factor* (what a perfect image encoder would allow at that number of patients), and the
oracle, which knows every patient's true risk. The distance from a model to the first is what its encoder misses, the
distance from the first to the oracle is what too few patients and outcomes cost.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.designs import Split
from benchmarks.models import BASELINE, MULTIMODAL, Settings
from benchmarks.runs import begin, manifest, run, unfinished
from benchmarks.tables import survival_scores
from mmdls._files import whole_file
from mmdls.cohort import find_tasks
from mmdls.datasets import make_nsclc_cohort

__all__ = ["PERFECT", "draw", "learning_curves"]

MODELS = (BASELINE, "clinical_pet_linear", "imaging_network", MULTIMODAL)
PERFECT = "perfect encoder"


def nested_splits(sizes: list[int], n_test: int) -> list[Split]:
    """The first patients of the cohort, more and more of them; always the same last ones are left out."""
    total = max(sizes) + n_test
    return [Split(str(n), 0, np.arange(n), np.arange(max(sizes), total)) for n in sizes]


def learning_curves(
    sizes: list[int],
    n_test: int,
    settings: Settings,
    out: Path,
    *,
    models: tuple[str, ...] = MODELS,
    image_signal: float = 1.0,
    workers: int = 2,
    n_resamples: int = 500,
) -> pd.DataFrame:
    """One row an endpoint, model and number of patients: C-index, interval, share of the oracle's gain over chance.

    What is finished is stored in ``out`` and not run again.
    """
    cohort = make_nsclc_cohort(
        max(sizes) + n_test, n_slices=(3, 6), image_size=32, image_signal=image_signal, random_state=settings.seed
    )
    X, y, splits = cohort.data, cohort.target, nested_splits(sizes, n_test)
    begin(out, manifest(X, y, splits, settings), fresh=False)
    answers = run(list(models), X, y, splits, settings, out, workers)
    # In a table of its own, so that no other model meets the truth.
    told = X[[c for c in X.columns if c.startswith(("clinical_", "pet_"))]]
    told = told.assign(clinical_image_factor=cohort.truth["image_factor"])
    (out / "told").mkdir(exist_ok=True)
    if not unfinished(models, splits, out):  # or somebody has pressed Ctrl-C
        for told_answers in run(["clinical_pet_linear"], told, y, splits, settings, out / "told", workers).values():
            answers[PERFECT] = told_answers

    rows = []
    test = X.index[splits[0].test]
    for endpoint in [task.name for task in find_tasks(y).values() if task.estimator_type == "survival"]:
        best = survival_scores(endpoint, cohort.truth.loc[test, f"{endpoint}_risk"], y, n_resamples)
        for name, tables in answers.items():
            for size in sizes:
                table = tables[endpoint]
                table = table[table["fold"] == str(size)]
                if len(table):
                    value, low, high = survival_scores(endpoint, table["risk"], y, n_resamples)
                    rows.append((endpoint, name, size, value, low, high, best[0], (value - 0.5) / (best[0] - 0.5)))
    columns = ["task", "model", "patients", "concordance_index", "low", "high", "oracle", "of_the_oracle"]
    return pd.DataFrame(rows, columns=columns)


def draw(table: pd.DataFrame, path: Path) -> None:
    """The curves, one panel an endpoint."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    endpoints = list(dict.fromkeys(table["task"]))
    size = (5.6 * len(endpoints), 4.4)
    figure, axes = plt.subplots(1, len(endpoints), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for ax, endpoint in zip(axes[0], endpoints, strict=True):
        own = table[table["task"] == endpoint]
        for name, curve in own.groupby("model", sort=False):
            style = {"color": "0.35", "linestyle": "--"} if name == PERFECT else {}
            (line,) = ax.plot(curve["patients"], curve["concordance_index"], marker="o", label=name, **style)
            ax.fill_between(curve["patients"], curve["low"], curve["high"], color=line.get_color(), alpha=0.08, lw=0)
        ax.axhline(own["oracle"].iloc[0], color="0.2", linestyle=":", label="oracle")
        ax.set_xscale("log")
        steps = sorted(set(own["patients"]))
        ax.set_xticks(steps, [f"{step:,}" for step in steps])
        ax.minorticks_off()
        ax.set(xlabel="patients to learn from", title=endpoint.upper())
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("C-index of the same further patients")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=len(labels))
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120)
    plt.close(figure)


def show(table: pd.DataFrame) -> str:
    """C-index by model and number of patients."""
    lines = []
    for endpoint, own in table.groupby("task", sort=False):
        wide = own.pivot(index="model", columns="patients", values="concordance_index")
        wide = wide.loc[list(dict.fromkeys(own["model"]))].rename_axis(index=None, columns=None)
        lines.append(f"{endpoint.upper()}, C-index by patients to learn from; oracle {own['oracle'].iloc[0]:.3f}")
        lines.append(wide.to_string(float_format=lambda value: f"{value:.3f}"))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning_curves", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200, 400, 1000, 2000, 4000])
    parser.add_argument("--test-patients", type=int, default=1000)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--image-signal", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=3, help="Optuna trials of each model and size")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/learning_curves"))
    options = parser.parse_args(argv)
    start = time.perf_counter()
    table = learning_curves(
        sorted(options.sizes),
        options.test_patients,
        Settings(options.trials, options.epochs, options.seed),
        options.out,
        models=tuple(options.models),
        image_signal=options.image_signal,
        workers=options.workers,
    )
    if table.empty:
        return
    with whole_file(options.out / "learning_curves.csv") as path:
        table.to_csv(path, index=False)
    draw(table, options.out / "learning_curves.png")
    print(show(table))
    print(f"\n{(time.perf_counter() - start) / 60:.1f} minutes. Table and figure are in {options.out}/")


if __name__ == "__main__":
    main()

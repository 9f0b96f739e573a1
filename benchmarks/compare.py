"""The main job: does a multimodal model predict better than clinical variables or images alone?

``python -m benchmarks.compare`` runs it on a simulated cohort whose truth is known, ``--cohort r01`` on 211 real
patients, ``--cohort PATH`` on a folder in the published layout. Each arm is tuned with a small Optuna budget on the
training rows of each fold only; what is printed, stored and drawn are predictions for patients that no part of the
fold's models has seen.
"""

import argparse
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tqdm.auto import tqdm

from benchmarks.cohorts import load_r01
from mmdls.cohort import find_tasks, modalities, survival_target
from mmdls.datasets import load_cohort, make_nsclc_cohort
from mmdls.estimators import MMDLS, ClinicalCox, RadiomicsCox, SliceEncoder, TabularEncoder
from mmdls.evaluation import compare, evaluate_predictions
from mmdls.metrics import UndefinedMetricWarning, auc_score, concordance_index
from mmdls.model_selection import CohortKFold, stratified_holdout

HORIZONS = (12, 36, 60)
BASELINE = "clinical-only"
SHOWN = {"concordance_index": "C-index", "auc": "AUC"}


@dataclass(frozen=True)
class Settings:
    """What one run of the benchmark does.

    Parameters
    ----------
    folds, trials, epochs, seed : int
    strides : tuple of int
        Of the two convolutions of the image encoder.
    """

    folds: int = 3
    trials: int = 6
    epochs: int = 40
    seed: int = 0
    strides: tuple[int, int] = (2, 2)
    max_slices: int | None = None
    image_size: int | None = None


class Classical:
    """Cox regression for every endpoint and logistic regression for every class task, on some blocks of numbers."""

    def __init__(self, blocks: tuple[str, ...], cox: Any, settings: Settings):
        self.blocks, self.cox, self.settings = blocks, cox, settings

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "Classical":
        """Tune the two penalties inside the training rows, then fit on all of them."""
        self.columns = [column for block in self.blocks for column in modalities(X)[block]]
        self.tasks = find_tasks(y)
        study = _study(self.settings)
        for alpha in (1.0, 100.0):
            study.enqueue_trial({"alpha": alpha, "C": 1 / alpha})
        inner = list(CohortKFold(3, random_state=self.settings.seed).split(X, y))

        def objective(trial: optuna.Trial) -> float:
            parameters = {
                "alpha": trial.suggest_float("alpha", 1e-1, 1e4, log=True),
                "C": trial.suggest_float("C", 1e-4, 1e1, log=True),
            }
            scores = []
            for train, test in inner:
                self._fit(X.iloc[train], y.iloc[train], **parameters)
                scores.append(_mean_score(self.predict(X.iloc[test]), y.iloc[test], self.tasks))
            return float(np.nanmean(scores))

        study.optimize(objective, n_trials=max(self.settings.trials, 2))
        self.best = study.best_params
        return self._fit(X, y, **self.best)

    def _fit(self, X: pd.DataFrame, y: pd.DataFrame, alpha: float, C: float) -> "Classical":
        self.models = {}
        for task in self.tasks.values():
            if task.kind == "survival":
                model = self.cox(blocks=self.blocks, endpoint=task.name, alpha=alpha)
                self.models[task.name] = model.fit(X, y)
            else:
                known = y[task.name].notna().to_numpy()
                model = make_pipeline(TabularEncoder(), LogisticRegression(C=C, max_iter=2000))
                model.fit(X.loc[known, self.columns], y.loc[known, task.name].astype(str))
                self.models[task.name] = model
        return self

    def predict(self, X: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Risks, survival at the horizons, risk groups and class probabilities, one table a task."""
        answers = {}
        for name, model in self.models.items():
            if self.tasks[name].kind == "survival":
                answers[name] = _survival_answers(model, X)
            else:
                answers[name] = pd.DataFrame(model.predict_proba(X[self.columns]), X.index, model.classes_)
        return answers


class Deep:
    """MMDLS on some modalities.

    Fusion and heads are tuned on slice embeddings that were learned once, on part of the training rows, and scored on
    the rest of them; the best setting is then trained end to end on all training rows.
    """

    def __init__(self, settings: Settings, images_only: bool):
        self.settings, self.images_only = settings, images_only

    def fit(self, X: pd.DataFrame, y: pd.DataFrame) -> "Deep":
        """Tune inside the training rows, then fit on all of them."""
        X = self._columns(X)
        self.tasks = find_tasks(y)
        kept, held = stratified_holdout(y, 0.3, random_state=self.settings.seed)
        first = self._model().fit(X.iloc[kept], y.iloc[kept])
        tables = [_embedded(first, X.iloc[rows]) for rows in (kept, held)]
        study = _study(self.settings)
        space = {
            "hidden_features": optuna.distributions.CategoricalDistribution([32, 64]),
            "dropout": optuna.distributions.FloatDistribution(0.1, 0.6),
            "weight_decay": optuna.distributions.FloatDistribution(1e-2, 1.0, log=True),
        }
        study.enqueue_trial({"hidden_features": 64, "dropout": 0.2, "weight_decay": 0.1})
        for _ in range(self.settings.trials):
            trial = study.ask(space)
            try:
                model = self._model(**trial.params).fit(tables[0], y.iloc[kept])
                study.tell(trial, _mean_score(_deep_answers(model, tables[1]), y.iloc[held], self.tasks))
            except FloatingPointError:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self.best = study.best_params
        self.model = self._model(**self.best).fit(X, y)
        return self

    def predict(self, X: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Risks, survival at the horizons, risk groups and class probabilities, one table a task."""
        return _deep_answers(self.model, self._columns(X))

    def _columns(self, X: pd.DataFrame) -> pd.DataFrame:
        if not self.images_only:
            return X
        return X[[c for c in X.columns if str(c).endswith("_image")]]

    def _model(self, **parameters: Any) -> MMDLS:
        encoder = SliceEncoder(
            backbone_params={"channels": (16, 32), "strides": self.settings.strides},
            max_slices=self.settings.max_slices,
            image_size=self.settings.image_size,
        )
        return MMDLS(
            image_encoder=encoder,
            batch_size=64,
            max_epochs=self.settings.epochs,
            patience=None,
            random_state=self.settings.seed,
            **{"dropout": 0.2, "weight_decay": 0.1} | parameters,
        )


def arms(X: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    """The arms that a cohort's modalities allow, by name."""
    found = modalities(X)
    possible: dict[str, Any] = {BASELINE: Classical(("clinical",), ClinicalCox, settings)}
    if "radiomics" in found:
        possible["radiomics Cox"] = Classical(("radiomics",), RadiomicsCox, settings)
    possible["imaging-only"] = Deep(settings, images_only=True)
    possible["multimodal"] = Deep(settings, images_only=False)
    return possible


def run_fold(
    name: str, fold: int, X: pd.DataFrame, y: pd.DataFrame, train: np.ndarray, test: np.ndarray, settings: Settings
) -> tuple[str, int, dict[str, pd.DataFrame], dict[str, Any], float]:
    """Tune and fit one arm on one fold's training rows and predict its test rows."""
    start = time.perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ patients have none of the modalities")
        warnings.filterwarnings("ignore", "the columns .* have no value in any")
        arm = arms(X, settings)[name].fit(X.iloc[train], y.iloc[train])
        answers = arm.predict(X.iloc[test])
    return name, fold, answers, arm.best, time.perf_counter() - start


def run(
    X: pd.DataFrame, y: pd.DataFrame, groups: Any, settings: Settings, out: Path, workers: int = 2
) -> dict[str, dict[str, pd.DataFrame]]:
    """Run every arm on every fold; each finished one is stored at once, so an interrupted run keeps what it has.

    Returns
    -------
    dict of str to dict of str to pandas.DataFrame
        For each arm and task, the out-of-fold answers of the patients of its finished folds.
    """
    splitter = CohortKFold(settings.folds, random_state=settings.seed)
    folds = list(splitter.split(X, y))
    jobs = [(name, fold) for fold in range(len(folds)) for name in reversed(arms(X, settings))]
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")
    work = (joblib.delayed(run_fold)(name, fold, X, y, *folds[fold], settings) for name, fold in jobs)
    answers: dict[str, dict[str, list[pd.DataFrame]]] = {}
    chosen = []
    (out / "folds").mkdir(parents=True, exist_ok=True)
    try:
        with tqdm(total=len(jobs), desc="folds x arms", unit="fit", file=sys.stderr) as bar:
            for name, fold, found, best, seconds in parallel(work):
                for task, table in found.items():
                    table = table.rename_axis("patient")
                    table.insert(0, "fold", fold)
                    path = out / "folds" / f"{name.replace(' ', '_')}-{task}-{fold}.csv"
                    table.to_csv(path)
                    answers.setdefault(name, {}).setdefault(task, []).append(table)
                chosen.append({"arm": name, "fold": fold, "seconds": round(seconds, 1), **best})
                pd.DataFrame(chosen).to_csv(out / "chosen.csv", index=False)
                bar.set_postfix_str(f"{name}, fold {fold + 1}: {seconds:.0f} s")
                bar.update()
    except KeyboardInterrupt:
        done = sorted({(row["arm"], row["fold"]) for row in chosen})
        print(f"\nInterrupted. {len(done)} of {len(jobs)} fits are finished and stored in {out / 'folds'}.")
    return {name: {task: pd.concat(parts) for task, parts in tables.items()} for name, tables in answers.items()}


def folds_of(answers: dict[str, dict[str, pd.DataFrame]], y: pd.DataFrame) -> pd.Series:
    """The fold that each patient was left out in, for all patients of ``y``; NaN if no fold of theirs is finished."""
    fold = pd.concat([table["fold"] for tables in answers.values() for table in tables.values()])
    return fold[~fold.index.duplicated()].reindex(y.index)


def tabulate(answers: dict[str, dict[str, pd.DataFrame]], y: pd.DataFrame, n_resamples: int = 1000) -> pd.DataFrame:
    """One row an arm and task: the metric with its interval, and the difference to clinical-only.

    Each metric is a mean over folds, since risks of different folds come from different models.
    """
    rows = []
    tasks = find_tasks(y)
    options = {"horizons": (), "n_resamples": n_resamples, "folds": folds_of(answers, y), "random_state": 0}
    for name, tables in answers.items():
        predictions = _as_predictions(tables, tasks)
        scores = evaluate_predictions(predictions, y, **options)
        scores = scores[scores["metric"].isin(SHOWN)]
        if name != BASELINE and BASELINE in answers:
            baseline = _as_predictions(answers[BASELINE], tasks)
            differences = compare(predictions, baseline, y, metrics=list(SHOWN), **options).set_index("task")
        for row in scores.itertuples():
            new = {"task": row.task, "arm": name, "metric": row.metric, "value": row.value, "low": row.low}
            new |= {"high": row.high, "n": row.n, "n_events": row.n_events}
            if name != BASELINE and BASELINE in answers and row.task in differences.index:
                other = differences.loc[row.task]
                new |= {"difference": other["difference"], "difference_low": other["low"]}
                new |= {"difference_high": other["high"], "p": other["p"]}
            rows.append(new)
    table = pd.DataFrame(rows)
    order = {task: i for i, task in enumerate(reversed(list(tasks)))}
    return table.sort_values("task", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def show(table: pd.DataFrame) -> str:
    """The table as text that fits a terminal of 80 columns."""
    lines = [f"{'task':8} {'arm':13} {'':7} {'value [95% interval]':22} against {BASELINE}"]
    previous = None
    for row in table.to_dict("records"):
        label = SHOWN[row["metric"]]
        line = f"{row['task'] if row['task'] != previous else '':8} {row['arm']:13} {label:7} "
        line += f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        if np.isfinite(row.get("difference", np.nan)):
            line += f"   {row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        lines.append(line)
        previous = row["task"]
    return "\n".join(lines)


def draw(answers: dict[str, dict[str, pd.DataFrame]], y: pd.DataFrame, task: str, path: Path) -> None:
    """Kaplan-Meier curves by the risk groups that each arm learned on its training folds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from mmdls.plotting import kaplan_meier

    shown = [name for name in answers if task in answers[name]]
    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.6 * columns, 5.2 * rows), squeeze=False)
    for ax in axes.ravel()[len(shown) :]:
        ax.remove()
    for ax, name in zip(axes.ravel(), shown, strict=False):
        table = answers[name][task]
        outcome = survival_target(y.loc[table.index], task)
        known = ~np.isnan(outcome["time"])
        kaplan_meier(
            outcome["event"][known],
            outcome["time"][known],
            table["group"].to_numpy()[known],
            labels={0: "low risk", 1: "middle", 2: "high risk"},
            ax=ax,
        )
        ax.set_title(f"{name}: {task.upper()}")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--cohort", default="simulated", help="'simulated', 'r01', or a folder (default: simulated)")
    parser.add_argument("--patients", type=int, default=450, help="patients of the simulated cohort")
    parser.add_argument("--image-signal", type=float, default=1.0, help="0: the images know nothing (simulated)")
    parser.add_argument("--folds", type=int, default=Settings.folds)
    parser.add_argument("--trials", type=int, default=Settings.trials, help="Optuna trials of each arm and fold")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"), help="where tables and the figure go")
    options = parser.parse_args(argv)

    start = time.perf_counter()
    oracle = None
    settings = Settings(options.folds, options.trials, options.epochs, options.seed)
    if options.cohort == "simulated":
        cohort = make_nsclc_cohort(
            options.patients,
            image_signal=options.image_signal,
            n_slices=(3, 6),
            image_size=32,
            random_state=options.seed,
        )
        oracle = cohort.truth
    elif options.cohort == "r01":
        cohort = load_r01(drop_invalid=True)
        settings = Settings(options.folds, options.trials, options.epochs, options.seed, image_size=64)
    else:
        cohort = load_cohort(options.cohort)
        settings = Settings(options.folds, options.trials, options.epochs, options.seed, image_size=64, max_slices=16)
    X, y = cohort.data, cohort.target
    X = X.drop(columns=[c for c in X.columns if str(c).endswith("_mask")])
    events = ", ".join(
        f"{int(y[f'{t.name}_event'].sum())} {t.name.upper()} events"
        for t in find_tasks(y).values()
        if t.kind == "survival"
    )
    print(f"{options.cohort}: {len(X)} patients, {events}; modalities: {', '.join(modalities(X))}")
    answers = run(X, y, cohort.groups, settings, options.out, options.workers)
    if not answers:
        return
    answers = {name: answers[name] for name in arms(X, settings) if name in answers}
    table = tabulate(answers, y)
    table.to_csv(options.out / "metrics.csv", index=False)
    _per_patient(answers).to_csv(options.out / "predictions.csv")
    print("\n" + show(table))
    if oracle is not None:
        risks = {task: oracle[f"{task}_risk"] for task in ("os", "dfs")}
        for row in evaluate_predictions(risks, y, horizons=(), n_resamples=0, folds=folds_of(answers, y)).itertuples():
            if row.metric in SHOWN:
                print(f"{row.task:8} {'oracle':13} {SHOWN[row.metric]:7} {row.value:.3f}   (knows the truth)")
    last = [task.name for task in find_tasks(y).values() if task.kind == "survival"][-1]
    draw(answers, y, last, options.out / "kaplan_meier.png")
    minutes = (time.perf_counter() - start) / 60
    print(f"\n{minutes:.1f} minutes. Tables, predictions and kaplan_meier.png are in {options.out}/")


def _study(settings: Settings) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=settings.seed))


def _survival_answers(model: Any, X: pd.DataFrame, *task: str) -> pd.DataFrame:
    """Risk on the scale of the training risks, its group, and survival at the horizons."""
    functions = model.predict_survival_function(X, *task)
    risk = model.predict(X)
    table = pd.DataFrame({"risk": risk[task[0]] if task else risk}, index=X.index)
    table["group"] = model.predict_risk_group(X, *task)
    for horizon in HORIZONS:
        table[f"survival_{horizon}"] = [float(f(min(horizon, f.domain[1] or np.inf, f.x[-1]))) for f in functions]
    return table


def _deep_answers(model: MMDLS, X: pd.DataFrame) -> dict[str, pd.DataFrame]:
    answers = {}
    for task in model.tasks_.values():
        if task.kind == "survival":
            answers[task.name] = _survival_answers(model, X, task.name)
        else:
            classes = [str(c) for c in task.classes]
            answers[task.name] = pd.DataFrame(model.predict_proba(X, task.name), X.index, classes)
    return answers


def _embedded(model: MMDLS, X: pd.DataFrame) -> pd.DataFrame:
    """The same patients with each image column replaced by what the fitted encoder sees in it."""
    parts = [X.drop(columns=[c for c in X.columns if str(c).endswith(("_image", "_mask"))])]
    for _, encoder, columns in model.modalities_:
        if isinstance(encoder, SliceEncoder):
            parts.append(pd.DataFrame(encoder.transform(X[columns]), X.index, encoder.get_feature_names_out()))
    return pd.concat(parts, axis=1)


def _as_predictions(tables: dict[str, pd.DataFrame], tasks: dict[str, Any]) -> dict[str, Any]:
    """What :func:`mmdls.evaluation.evaluate_predictions` reads."""
    predictions = {}
    for task, table in tables.items():
        if tasks[task].kind == "survival":
            predictions[task] = table["risk"]
        else:
            predictions[task] = table[[str(c) for c in tasks[task].classes]].set_axis(list(tasks[task].classes), axis=1)
    return predictions


def _mean_score(answers: dict[str, pd.DataFrame], y: pd.DataFrame, tasks: dict[str, Any]) -> float:
    """Mean C-index and AUC over the tasks; what is undefined is left out."""
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for name, table in answers.items():
            if tasks[name].kind == "survival":
                outcome = survival_target(y, name)
                known = ~np.isnan(outcome["time"])
                risk = table["risk"].to_numpy()[known]
                scores.append(concordance_index(outcome["event"][known], outcome["time"][known], risk))
            else:
                known = y[name].notna().to_numpy()
                codes = pd.Categorical(y[name], categories=tasks[name].classes).codes[known]
                scores.append(auc_score(codes, table[[str(c) for c in tasks[name].classes]].to_numpy()[known]))
    return float(np.nanmean(scores))


def _per_patient(answers: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    parts = {
        f"{name}/{task}": table.drop(columns="fold")
        for name, tables in answers.items()
        for task, table in tables.items()
    }
    wide = pd.concat(parts, axis=1)
    wide.columns = [f"{arm}/{column}" for arm, column in wide.columns]
    wide.insert(0, "fold", next(iter(next(iter(answers.values())).values()))["fold"])
    return wide


if __name__ == "__main__":
    main()

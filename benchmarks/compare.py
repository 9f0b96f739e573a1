"""The main job: does a multimodal model predict better than clinical variables or images alone?

``python -m benchmarks.compare`` runs it on a simulated cohort whose truth is known, ``--cohort r01`` on 209 real
patients, ``--cohort PATH`` on a folder in the published layout. Each arm is tuned with the same number of Optuna trials
on the training rows of each fold only; what is printed, stored and drawn are predictions for patients that no part of
the fold's models has seen. A run that was stopped, or killed, goes on where it was.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
import pandas as pd
from sklearn.model_selection import LeaveOneGroupOut
from tqdm.auto import tqdm

import mmdls
from benchmarks import controls
from benchmarks.arms import BASELINE, Settings, offered
from benchmarks.cohorts import load_r01
from mmdls.audit import audit_folds, audit_tables
from mmdls.cohort import find_tasks, modalities, survival_target
from mmdls.datasets import load_cohort, make_nsclc_cohort
from mmdls.evaluation import compare, evaluate_predictions
from mmdls.metrics import UndefinedMetricWarning
from mmdls.model_selection import CohortKFold
from mmdls.report import data_hash, report

SHOWN = {"concordance_index": "C-index", "auc": "AUC"}
QUICK = (BASELINE, "radiomics Cox", "imaging-only", "multimodal")


@dataclass(frozen=True)
class Split:
    """One division of the patients: what is trained on, and who is left out."""

    name: str
    repeat: int
    train: np.ndarray
    test: np.ndarray


def folds_of_patients(X: pd.DataFrame, y: pd.DataFrame, n_folds: int, n_repeats: int, seed: int) -> Iterator[Split]:
    """Repeated folds, stratified by events, stage and centre as far as numbers allow."""
    on = [task for task in ("os", "stage", "dfs", "subtype") if task in find_tasks(y)]
    on = (on or list(find_tasks(y))) + (["centre"] if "centre" in X.columns else [])
    for repeat in range(n_repeats):
        splitter = CohortKFold(n_folds, on=on, random_state=seed + repeat)
        for fold, (train, test) in enumerate(splitter.split(X, y)):
            yield Split(f"{repeat}.{fold}", repeat, train, test)


def centres_left_out(centres: pd.Series) -> Iterator[Split]:
    """Each centre is left out once."""
    for train, test in LeaveOneGroupOut().split(centres, groups=centres):
        yield Split(f"without-{centres.iloc[test[0]]}", 0, train, test)


def run_fold(
    name: str, split: Split, X: pd.DataFrame, y: pd.DataFrame, settings: Settings, folder: Path | None = None
) -> tuple[str, Split, dict[str, pd.DataFrame], dict[str, Any]]:
    """Tune and fit one arm on one split's training rows, predict the rows left out, and store both.

    What is stored appears all at once, so that a killed run leaves whole folders only.
    """
    start = time.perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arm = (offered(X, settings) | controls.offered(X, settings))[name]()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ patients have none of the modalities")
        warnings.filterwarnings("ignore", "the columns .* have no value in any")
        warnings.filterwarnings("ignore", "cross-validation chose a penalty")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # of a score in a small part held out
        arm.fit(X.iloc[split.train], y.iloc[split.train])
        answers = arm.predict(X.iloc[split.test])
    note = {"seconds": round(time.perf_counter() - start, 1), **arm.chosen}
    answers = {task: table.rename_axis("patient") for task, table in answers.items()}
    for table in answers.values():
        table.insert(0, "fold", split.name)
    if folder is not None:
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        for task, table in answers.items():
            table.to_csv(unfinished / f"{task}.csv")
        (unfinished / "chosen.json").write_text(json.dumps(note, default=str))
        os.replace(unfinished, folder)
    return name, split, answers, note


def stored(folder: Path, index: pd.Index) -> tuple[dict[str, pd.DataFrame], dict[str, Any]] | None:
    """What a finished fold left behind, or None."""
    if not (folder / "chosen.json").exists():
        return None
    answers = {}
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype={"patient": str, "fold": str}).set_index("patient")
        answers[path.stem] = table.set_axis(table.index.map(dict(zip(index.astype(str), index, strict=True))))
        answers[path.stem].index.name = "patient"
    return answers, json.loads((folder / "chosen.json").read_text())


def run(
    names: list[str],
    X: pd.DataFrame,
    y: pd.DataFrame,
    splits: list[Split],
    settings: Settings,
    out: Path,
    workers: int = 2,
) -> dict[str, dict[str, pd.DataFrame]]:
    """Run every arm on every split; what is stored already is read, what finishes is stored at once.

    Returns
    -------
    dict of str to dict of str to pandas.DataFrame
        For each arm and task, the answers for the patients left out in the splits that are finished.
    """
    jobs, answers, chosen = [], {}, []

    def keep(name: str, split: Split, found: Mapping[str, pd.DataFrame], note: Mapping[str, Any]) -> None:
        for task, table in found.items():
            answers.setdefault(name, {}).setdefault(task, []).append(table.assign(repeat=split.repeat))
        chosen.append({"arm": name, "fold": split.name, **note})
        pd.DataFrame(chosen).to_csv(out / "chosen.csv", index=False)

    (out / "trials").mkdir(parents=True, exist_ok=True)
    for split in splits:
        for name in reversed(names):
            label = f"{name.replace(' ', '_')}-{split.name}"
            known = stored(out / "folds" / label, X.index)
            if known is not None:
                keep(name, split, *known)
            else:
                own = replace(settings, journal=out / "trials" / f"{label}.log")
                jobs.append((name, split, X, y, own, out / "folds" / label))
    if chosen:
        print(f"{len(chosen)} of {len(splits) * len(names)} fits were finished before; {len(jobs)} are left.")
    parallel = joblib.Parallel(n_jobs=min(workers, max(len(jobs), 1)), return_as="generator_unordered")
    try:
        with tqdm(total=len(jobs), desc="folds x arms", unit="fit", file=sys.stderr) as bar:
            for name, split, found, note in parallel(joblib.delayed(run_fold)(*job) for job in jobs):
                keep(name, split, found, note)
                bar.set_postfix_str(f"{name}, fold {split.name}: {note['seconds']:.0f} s")
                bar.update()
    except KeyboardInterrupt:
        print(f"\nInterrupted. {len(chosen)} of {len(splits) * len(names)} fits are finished and stored in {out}.")
        print("The same command goes on from here.")
    in_order = {name: answers[name] for name in names if name in answers}
    return {name: {task: pd.concat(parts) for task, parts in tables.items()} for name, tables in in_order.items()}


def tabulate(
    answers: dict[str, dict[str, pd.DataFrame]], y: pd.DataFrame, n_resamples: int = 1000, baseline: str = BASELINE
) -> pd.DataFrame:
    """One row an arm and task: the metric with its interval, and the difference to the baseline.

    Each metric is a mean over folds, since risks of different folds come from different models, and over repeats; an
    interval is that of one repeat, on average.
    """
    rows, tasks = [], find_tasks(y)
    for name, tables in answers.items():
        repeats = sorted(set.intersection(*(set(table["repeat"]) for table in tables.values())))
        found, differences = [], []
        for repeat in repeats:
            predictions, folds = _predictions(tables, tasks, repeat, y)
            options = {"horizons": (), "n_resamples": n_resamples, "folds": folds, "random_state": repeat}
            found.append(evaluate_predictions(predictions, y, **options))
            if name != baseline and baseline in answers:
                other, _ = _predictions(answers[baseline], tasks, repeat, y)
                differences.append(compare(predictions, other, y, metrics=list(SHOWN), **options))
        scores = _mean(found, ["value", "low", "high"])
        against = _mean(differences, ["difference", "low", "high", "p"]).set_index("task") if differences else None
        for row in scores[scores["metric"].isin(SHOWN)].itertuples():
            new = {"task": row.task, "arm": name, "metric": row.metric, "value": row.value, "low": row.low}
            new |= {"high": row.high, "n": row.n, "n_events": row.n_events}
            if against is not None and row.task in against.index:
                other = against.loc[row.task]
                new |= {"difference": other["difference"], "difference_low": other["low"]}
                new |= {"difference_high": other["high"], "p": other["p"]}
            rows.append(new)
    table = pd.DataFrame(rows)
    order = {task: i for i, task in enumerate(reversed(list(tasks)))}
    return table.sort_values("task", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def show(table: pd.DataFrame, baseline: str = BASELINE) -> str:
    """The table as text that fits a terminal of 80 columns."""
    width = max(13, table["arm"].str.len().max())
    lines = [f"{'task':8} {'arm':{width}} {'':7} {'value [95% interval]':22} against {baseline}"]
    previous = None
    for row in table.to_dict("records"):
        label = SHOWN[row["metric"]]
        line = f"{row['task'] if row['task'] != previous else '':8} {row['arm']:{width}} {label:7} "
        line += f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        if np.isfinite(row.get("difference", np.nan)):
            line += f"   {row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        lines.append(line)
        previous = row["task"]
    return "\n".join(lines)


def draw(answers: dict[str, dict[str, pd.DataFrame]], y: pd.DataFrame, task: str, path: Path) -> None:
    """Kaplan-Meier curves by the risk groups that each arm learned on its training folds, of the first repeat."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from mmdls.plotting import kaplan_meier

    shown = [name for name in answers if task in answers[name]]
    columns = min(len(shown), 2 if len(shown) <= 4 else 3)
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.6 * columns, 5.2 * rows), squeeze=False)
    for ax in axes.ravel()[len(shown) :]:
        ax.remove()
    for ax, name in zip(axes.ravel(), shown, strict=False):
        table = answers[name][task]
        table = table[table["repeat"] == table["repeat"].min()]
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


def gain_over_chance(table: pd.DataFrame, oracle: Mapping[str, float]) -> pd.DataFrame:
    """Which share of the oracle's gain over chance, and over the baseline, each arm reaches."""
    rows = []
    for row in table[table["task"].isin(oracle)].itertuples():
        best = oracle[row.task]
        base = table[(table["task"] == row.task) & (table["arm"] == BASELINE)]["value"]
        above = (row.value - base.iloc[0]) / (best - base.iloc[0]) if len(base) else np.nan
        rows.append((row.task, row.arm, (row.value - 0.5) / (best - 0.5), above))
    return pd.DataFrame(rows, columns=["task", "arm", "of_the_oracle", "of_the_gap_to_the_oracle"])


def manifest(X: pd.DataFrame, y: pd.DataFrame, splits: list[Split], settings: Settings) -> dict[str, Any]:
    """What decides the numbers of a run: data, splits, budget, code and versions."""
    source = hashlib.sha256()
    for folder in (Path(mmdls.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            source.update(path.read_bytes())
    packages = ("torch", "scikit-learn", "scikit-survival", "skorch", "optuna", "numpy", "pandas")
    return {
        "patients": len(X),
        "data": {"X": data_hash(X), "y": data_hash(y)},
        "splits": joblib.hash([(split.name, split.train, split.test) for split in splits]),
        "settings": {name: str(value) for name, value in asdict(replace(settings, journal=None)).items()},
        "source": source.hexdigest(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def begin(out: Path, identity: dict[str, Any], fresh: bool) -> None:
    """Take the folder for this run: go on with one of the same identity, refuse another one's."""
    path = out / "manifest.json"
    if fresh and path.exists():
        shutil.rmtree(out)
    if path.exists():
        before = json.loads(path.read_text())
        differs = [name for name in identity if before.get(name) != identity[name]]
        if differs:
            raise SystemExit(
                f"{out} holds another run: {', '.join(differs)} differ. Choose another --out, or replace it by --fresh."
            )
        return
    if (out / "folds").exists():
        raise SystemExit(f"{out} holds folds of an unknown run; choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**identity, "begun": time.strftime("%Y-%m-%d %H:%M:%S")}, indent=1))


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--cohort", default="simulated", help="'simulated', 'r01', or a folder (default: simulated)")
    parser.add_argument("--arms", default="quick", help="'quick', 'all', or names separated by commas")
    parser.add_argument("--controls", action="store_true", help="add arms that must not, or need not, be beaten")
    parser.add_argument("--design", choices=("folds", "centres"), default="folds", help="who is left out")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--trials", type=int, default=6, help="Optuna trials of each arm and fold")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="where everything goes (default: results/<run>)")
    parser.add_argument("--fresh", action="store_true", help="replace what --out holds")
    parser.add_argument("--report", action="store_true", help="write report.html with every metric and figure")
    simulated = parser.add_argument_group("simulated cohort")
    simulated.add_argument("--patients", type=int, default=450)
    simulated.add_argument("--image-signal", type=float, default=1.0, help="0: the images know nothing")
    simulated.add_argument("--missing", type=float, default=0.0, help="share of patients without a modality")
    simulated.add_argument("--centre-shift", type=float, default=0.0, help="how far centres differ")
    options = parser.parse_args(argv)

    start = time.perf_counter()
    settings = Settings(options.trials, options.epochs, options.seed)
    oracle = None
    if options.cohort == "simulated":
        cohort = make_nsclc_cohort(
            options.patients,
            image_signal=options.image_signal,
            missing=options.missing,
            centre_shift=options.centre_shift,
            n_slices=(3, 6),
            image_size=32,
            random_state=options.seed,
        )
        oracle = cohort.truth
    elif options.cohort == "r01":
        cohort, settings = load_r01(drop_invalid=True), replace(settings, image_size=64)
    else:
        cohort, settings = load_cohort(options.cohort), replace(settings, image_size=64, max_slices=16)
    X, y = cohort.data, cohort.target
    X = X.drop(columns=[c for c in X.columns if str(c).endswith("_mask")])
    if options.design == "centres":
        if cohort.groups is None or cohort.groups.nunique() < 2:
            raise SystemExit(f"--design centres needs a column 'centre' with two centres at least in {options.cohort}.")
        splits = list(centres_left_out(cohort.groups))
    else:
        splits = list(folds_of_patients(X, y, options.folds, options.repeats, options.seed))

    arms = offered(X, settings)
    names = list(arms) if options.arms == "all" else [name for name in QUICK if name in arms]
    if options.arms not in ("all", "quick"):
        names = [name.strip() for name in options.arms.split(",")]
        unknown = [name for name in names if name not in arms]
        if unknown:
            raise SystemExit(f"no arms {unknown} for this cohort; there are {list(arms)}.")
    if options.controls:
        names += [name for name in controls.offered(X, settings)]

    identity = manifest(X, y, splits, settings)
    short = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    label = options.cohort if options.cohort in ("simulated", "r01") else Path(options.cohort).name
    out = options.out or Path("results") / f"{label}-{short}"
    begin(out, identity, options.fresh)

    events = ", ".join(
        f"{int(y[f'{t.name}_event'].sum())} {t.name.upper()} events"
        for t in find_tasks(y).values()
        if t.kind == "survival"
    )
    print(f"{options.cohort}: {len(X)} patients, {events}; modalities: {', '.join(modalities(X))}")
    findings = pd.concat([audit_tables(X, y), audit_folds([(s.train, s.test) for s in splits if s.repeat == 0], X)])
    findings.to_csv(out / "audit.csv", index=False)
    for finding in findings[~findings["passed"]].itertuples():
        print(f"AUDIT {finding.check}: {finding.detail}")

    answers = run(names, X, y, splits, settings, out, options.workers)
    if not answers:
        return
    table = tabulate(answers, y)
    table.to_csv(out / "metrics.csv", index=False)
    per_patient(answers).to_csv(out / "predictions.csv")
    print("\n" + show(table))
    if oracle is not None:
        best = _of_the_oracle(oracle, answers, y)
        for task, value in best.items():
            print(f"{task:8} {'oracle':13} C-index {value:.3f}   (knows the truth)")
        gain_over_chance(table, best).to_csv(out / "efficiency.csv", index=False)
    last = [task.name for task in find_tasks(y).values() if task.kind == "survival"][-1]
    draw({name: answers[name] for name in answers if name not in controls.NAMES}, y, last, out / "kaplan_meier.png")
    if options.report:
        _report(answers, X, y, identity, out / "report.html")
    minutes = (time.perf_counter() - start) / 60
    print(f"\n{minutes:.1f} minutes. Tables, predictions and kaplan_meier.png are in {out}/")


def per_patient(answers: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    """Every answer of every arm for every patient, one row a patient and repeat."""
    parts = {}
    for name, tables in answers.items():
        for task, table in tables.items():
            table = table.set_index("repeat", append=True).drop(columns="fold")
            parts |= {f"{name}/{task}/{column}": table[column] for column in table}
    wide = pd.DataFrame(parts)
    first = next(iter(next(iter(answers.values())).values()))
    wide.insert(0, "fold", first.set_index("repeat", append=True)["fold"])
    return wide.reset_index("repeat")


def _predictions(
    tables: Mapping[str, pd.DataFrame], tasks: Mapping[str, Any], repeat: int, y: pd.DataFrame
) -> tuple[dict[str, Any], pd.Series]:
    """What :func:`mmdls.evaluation.evaluate_predictions` reads, of one repeat, and each patient's fold."""
    predictions, folds = {}, pd.Series(None, index=y.index, dtype=object)
    for task, table in tables.items():
        table = table[table["repeat"] == repeat]
        folds[table.index] = table["fold"]
        if tasks[task].kind == "survival":
            numbers = [c for c in table if c.startswith("survival_")]
            curves = table[numbers].set_axis([float(c.removeprefix("survival_")) for c in numbers], axis=1)
            predictions[task] = pd.concat([table[["risk"]], curves], axis=1)
        else:
            predictions[task] = table[[str(c) for c in tasks[task].classes]].set_axis(list(tasks[task].classes), axis=1)
    return predictions, folds


def _mean(tables: list[pd.DataFrame], numbers: list[str]) -> pd.DataFrame:
    """Tables of the same rows as one, with the means of some columns."""
    first = tables[0].copy()
    first[numbers] = np.mean([table[numbers].to_numpy(dtype=float) for table in tables], axis=0)
    return first


def _of_the_oracle(
    truth: pd.DataFrame, answers: dict[str, dict[str, pd.DataFrame]], y: pd.DataFrame
) -> dict[str, float]:
    """C-index of the true risks, by endpoint, inside the same folds."""
    tables = next(iter(answers.values()))
    _, folds = _predictions(tables, find_tasks(y), 0, y)
    known = folds.notna()
    risks = {task: truth.loc[known, f"{task}_risk"] for task in ("os", "dfs")}
    scores = evaluate_predictions(risks, y, horizons=(), n_resamples=0, folds=folds)
    scores = scores[scores["metric"] == "concordance_index"]
    return dict(zip(scores["task"], scores["value"], strict=True))


def _report(answers: dict, X: pd.DataFrame, y: pd.DataFrame, identity: dict[str, Any], path: Path) -> None:
    tasks = find_tasks(y)
    models, folds = {}, None
    for name, tables in answers.items():
        models[name], folds = _predictions(tables, tasks, 0, y)
        for task, table in tables.items():
            if "group" in table:
                first = table[table["repeat"] == 0]
                groups = pd.Categorical.from_codes(first["group"], ["low", "middle", "high"], ordered=True)
                models[name][task]["group"] = groups
    report(models, X, y, path, settings=identity, folds=folds, title="Clinical, imaging and multimodal models")


if __name__ == "__main__":
    main()

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
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import optuna
import pandas as pd
from tqdm.auto import tqdm

import mmdls
from benchmarks import controls
from benchmarks.arms import BASELINE, Settings, offered
from benchmarks.cohorts import load_r01
from benchmarks.designs import Split, centres_left_out, external_patients, folds_of_patients
from benchmarks.tables import (
    against_others,
    draw,
    gain_over_chance,
    oracle_scores,
    per_patient,
    show,
    show_against,
    tabulate,
    write_report,
)
from mmdls.audit import audit_folds, audit_tables
from mmdls.cohort import find_tasks, modalities
from mmdls.datasets import load_cohort, make_nsclc_cohort
from mmdls.metrics import UndefinedMetricWarning
from mmdls.report import data_hash

QUICK = (BASELINE, "radiomics Cox", "imaging-only", "multimodal")


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
        try:
            os.replace(unfinished, folder)
        except OSError:
            if not (folder / "chosen.json").exists():
                raise
            # A worker that outlived a killed run was faster.
            shutil.rmtree(unfinished)
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
            label = f"{name}-{split.name}".replace(" ", "_").replace("/", "_")
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
    _write_whole(path, {**identity, "begun": time.strftime("%Y-%m-%d %H:%M:%S")})


def finish(out: Path, minutes: float) -> None:
    """Add to the manifest when the tables were written, what all fits took, and how long this call ran."""
    path = out / "manifest.json"
    spent = pd.read_csv(out / "chosen.csv")["seconds"].sum() / 60
    times = {"minutes_of_all_fits": round(spent, 1), "minutes_of_the_last_call": round(minutes, 1)}
    facts = {**json.loads(path.read_text()), "finished": time.strftime("%Y-%m-%d %H:%M:%S"), **times}
    _write_whole(path, facts)


def _write_whole(path: Path, facts: dict[str, Any]) -> None:
    """Write a file that is never seen half written, whenever the process is killed."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text(json.dumps(facts, indent=1))
    os.replace(unfinished, path)


def load(options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series | None, Any, Settings]:
    """The cohort: features, outcomes, centres, the truth if it is known, and what its images allow."""
    settings, truth = Settings(options.trials, options.epochs, options.seed), None
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
        truth = cohort.truth
    elif options.cohort == "r01":
        cohort, settings = load_r01(drop_invalid=True), replace(settings, image_size=64)
    else:
        cohort, settings = load_cohort(options.cohort), replace(settings, image_size=64, max_slices=16)
    return _without_masks(cohort.data), cohort.target, cohort.groups, truth, settings


def divide(
    options: argparse.Namespace, X: pd.DataFrame, y: pd.DataFrame, centres: pd.Series | None
) -> tuple[pd.DataFrame, pd.DataFrame, list[Split]]:
    """Who is left out; a cohort from another folder is added to the tables."""
    outside = None if options.external is None else str(options.external)
    if outside is not None and Path(outside).is_dir():
        other = load_cohort(outside)
        twice = X.index.intersection(other.data.index)
        if len(twice):
            raise SystemExit(
                f"{outside} and {options.cohort} share the ids {list(twice[:5])}; one of them must change."
            )
        X, y = pd.concat([X, _without_masks(other.data)]), pd.concat([y, other.target])
        return X, y, external_patients(pd.Series(X.index.isin(other.data.index), X.index))
    if outside is None and options.design == "folds":
        return X, y, list(folds_of_patients(X, y, options.folds, options.repeats, options.seed))
    if centres is None or centres.nunique() < 2:
        raise SystemExit(f"that needs a column 'centre' with two centres at least in {options.cohort}.")
    if outside is None:
        return X, y, list(centres_left_out(centres))
    names = centres.astype(str)
    if outside not in set(names):
        raise SystemExit(f"--external {outside} is neither a folder nor one of the centres {sorted(set(names))}.")
    return X, y, external_patients(names == outside)


def count_as_known(names: list[str], X: pd.DataFrame, y: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Outcomes and columns that are known when the prediction is made become clinical features of all arms."""
    for name in names:
        if name not in y and name not in X:
            raise SystemExit(f"--known {name}: there is no such column; there are {[*y.columns, *X.columns][:30]}.")
        y, column = (y.drop(columns=name), y[name]) if name in y else (y, X[name])
        column = column.astype(object).where(column.notna(), None)
        X = X.drop(columns=name, errors="ignore").assign(**{f"clinical_{name}": column})
    return X, y


def _without_masks(X: pd.DataFrame) -> pd.DataFrame:
    return X.drop(columns=[c for c in X.columns if str(c).endswith("_mask")])


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--cohort", default="simulated", help="'simulated', 'r01', or a folder (default: simulated)")
    parser.add_argument("--arms", default="quick", help="'quick', 'all', or names separated by commas")
    parser.add_argument("--champion", default="multimodal", help="the arm that is held against each other one")
    parser.add_argument("--controls", action="store_true", help="add control arms, and try out whether an arm peeks")
    parser.add_argument("--design", choices=("folds", "centres"), default="folds", help="who is left out")
    parser.add_argument("--external", help="a folder, or a centre, that is never trained on and is predicted once")
    parser.add_argument(
        "--known", nargs="+", default=[], help="columns that count as known, as in --known stage treatment"
    )
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
    X, y, centres, oracle, settings = load(options)
    X, y, splits = divide(options, X, y, centres)
    X, y = count_as_known(options.known, X, y)

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
    findings = [audit_tables(X, y), audit_folds([(s.train, s.test) for s in splits], X)]
    if options.controls:
        tried = [name for name in names if name not in ("published", *controls.NAMES)]
        findings.append(controls.audit_arms(tried, X, y, splits[0].train, splits[0].test, settings, options.workers))
    findings = pd.concat(findings)
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
        best = oracle_scores(oracle, answers, y)
        for task, value in best.items():
            print(f"{task:8} {'oracle':13} C-index {value:.3f}   (knows the truth)")
        gain_over_chance(table, best).to_csv(out / "efficiency.csv", index=False)
    rivals = {name: answers[name] for name in answers if name not in controls.NAMES}
    if options.champion in rivals and len(rivals) > 1:
        against = against_others(rivals, y, options.champion)
        against.to_csv(out / "against.csv", index=False)
        if len(rivals) > len(QUICK):
            print("\n" + show_against(against))
    last = [task.name for task in find_tasks(y).values() if task.kind == "survival"][-1]
    draw(rivals, y, last, out / "kaplan_meier.png")
    if options.report:
        write_report(answers, X, y, identity, out / "report.html")
    minutes = (time.perf_counter() - start) / 60
    finish(out, minutes)
    print(f"\n{minutes:.1f} minutes. Tables, predictions and kaplan_meier.png are in {out}/")


if __name__ == "__main__":
    main()

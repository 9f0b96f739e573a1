"""The main job: does a multimodal model predict better than clinical variables or images alone?

``python -m benchmarks.compare`` runs it on a simulated cohort whose truth is known, ``--cohort r01`` on 209 real
patients, ``--cohort PATH`` on a folder in the published layout. The models are those of :mod:`mmdls.zoo`, each tuned
with the same number of Optuna trials on the training rows of each fold only; what is printed, stored and drawn are
predictions for patients that no part of the fold's models has seen. A run that was stopped, or killed, goes on where it
was. :func:`mmdls.compare_models` does the same in a session, without a folder and shares.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from textwrap import fill
from typing import Any

import joblib
import pandas as pd

from benchmarks import controls
from benchmarks.cohorts import load_r01
from benchmarks.designs import Split, centres_left_out, external_patients, folds_of_patients
from benchmarks.models import (
    BASELINE,
    COMPARED,
    MULTIMODAL,
    QUICK,
    STAND_INS,
    Settings,
    lacking,
    offered,
    stand_in,
    unable,
    unanswered,
)
from benchmarks.runs import begin, finish, manifest, run, unfinished
from benchmarks.tables import (
    against_others,
    draw,
    gain_over_chance,
    per_patient,
    show,
    show_against,
    show_controls,
    show_oracle,
    tabulate,
    write_report,
)
from mmdls._files import whole_file
from mmdls.audit import audit_folds, audit_tables
from mmdls.cohort import Task, find_tasks, modalities
from mmdls.datasets import load_cohort, make_nsclc_cohort
from mmdls.registry import models as registered


def load(
    options: argparse.Namespace,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series | None, Any, Mapping[str, str], Settings]:
    """The cohort: features, outcomes, centres, the truth and readable names if known, and what its images allow."""
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
        cohort, settings = load_r01(invalid="drop"), replace(settings, image_size=64)
    else:
        cohort, settings = load_cohort(options.cohort), replace(settings, image_size=64, max_slices=16)
    labels = cohort.get("labels", {})
    return _without_masks(cohort.data), cohort.target, cohort.groups, truth, labels, settings


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
        unknown = y.drop(columns=options.known, errors="ignore")
        return X, y, list(folds_of_patients(X, unknown, options.folds, options.repeats, options.seed))
    if centres is None or centres.nunique() < 2:
        raise SystemExit(f"that needs a column 'centre' with two centres at least in {options.cohort}.")
    if outside is None:
        return X, y, list(centres_left_out(centres))
    names = centres.astype(str)
    if outside not in set(names):
        raise SystemExit(f"--external {outside} is neither a folder nor one of the centres {sorted(set(names))}.")
    return X, y, external_patients(names == outside)


def count_as_known(names: list[str], X: pd.DataFrame, y: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Outcomes and columns that are known when the prediction is made become clinical features of all models."""
    for name in names:
        if name not in y and name not in X:
            raise SystemExit(f"--known {name}: there is no such column; there are {[*y.columns, *X.columns][:30]}.")
        y, column = (y.drop(columns=name), y[name]) if name in y else (y, X[name])
        column = column.astype(object).where(column.notna(), None)
        X = X.drop(columns=name, errors="ignore").assign(**{f"clinical_{name}": column})
    return X, y


def chosen(models: str, X: pd.DataFrame, y: pd.DataFrame) -> list[str]:
    """The names of the models to compare; one that lacks inputs, or does not answer every task, is refused."""
    able = offered(X, y)
    if models in ("all", "quick"):
        wanted = QUICK if models == "quick" else COMPARED
        silent = [name for name in wanted if not lacking(name, X) and unanswered(name, y)]
        if silent:
            shown = [f"{name} ({STAND_INS[name]} stands in)" if name in STAND_INS else name for name in silent]
            print(fill(f"Not compared, since they do not answer every task: {', '.join(shown)}.", 100))
        for name in wanted:
            if not lacking(name, X) and (why := unable(name)):
                print(fill(f"Not compared: {name}, since {why}.", 100))
        names = [name for name in (stand_in(each, y) for each in wanted) if name in able]
        if not names:
            raise SystemExit(f"no model reads this cohort and answers all of {_named(find_tasks(y).values())}.")
        return names
    names = [name.strip() for name in models.split(",")]
    for name in names:
        if name not in registered:
            close = get_close_matches(name, list(registered), n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}? " if close else ""
            raise SystemExit(f"no model is called {name}; {hint}mmdls.list_models() lists them.")
        if gone := lacking(name, X):
            raise SystemExit(f"{name} needs {' and '.join(gone)}, which this cohort lacks; it allows {able}.")
        if why := unable(name):
            raise SystemExit(f"{name} cannot be fitted here: {why}.")
        if open_tasks := unanswered(name, y):
            columns = [column for task in open_tasks for column in task.columns]
            raise SystemExit(
                f"{name} does not answer {_named(open_tasks)}, and models are compared on every task of the cohort. "
                f"Choose among {able}, or take {columns} out of the cohort."
            )
    return names


def _named(tasks: Iterable[Task]) -> str:
    return ", ".join(f"{task.name!r} ({task.about})" for task in tasks)


def _without_masks(X: pd.DataFrame) -> pd.DataFrame:
    return X.drop(columns=[c for c in X.columns if str(c).endswith("_mask")])


def _share(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise argparse.ArgumentTypeError(f"it must look like 2/5, the second of five shares; got {text!r}.")
    return int(i), int(n)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--cohort", default="simulated", help="'simulated', 'r01', or a folder (default: simulated)")
    parser.add_argument("--models", default="quick", help="'quick', 'all', or names separated by commas")
    parser.add_argument(
        "--reference",
        help="the model that each other one is compared with (default: the network of everything, else the last)",
    )
    parser.add_argument(
        "--controls",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="control models, and a test of whether a model leaks (default: yes)",
    )
    parser.add_argument("--design", choices=("folds", "centres"), default="folds", help="who is left out")
    parser.add_argument("--external", help="a folder, or a centre, that is never trained on and is predicted once")
    parser.add_argument(
        "--known", nargs="+", default=[], help="columns that count as known, as in --known stage treatment"
    )
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--trials", type=int, default=6, help="Optuna trials of each model and fold")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--share", type=_share, metavar="I/N", help="do the I-th of N shares of the fits, no tables")
    parser.add_argument("--out", type=Path, default=None, help="where everything goes (default: results/<run>)")
    parser.add_argument("--fresh", action="store_true", help="replace what --out holds")
    parser.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write report.html with every metric and figure (default: yes)",
    )
    simulated = parser.add_argument_group("simulated cohort")
    simulated.add_argument("--patients", type=int, default=450)
    simulated.add_argument("--image-signal", type=float, default=1.0, help="0: the images know nothing")
    simulated.add_argument("--missing", type=float, default=0.0, help="share of patients without a modality")
    simulated.add_argument("--centre-shift", type=float, default=0.0, help="how far centres differ")
    options = parser.parse_args(argv)
    if options.share and options.fresh:
        parser.error("--fresh would delete what other shares have done; delete the folder once, before them.")

    start = time.perf_counter()
    X, y, centres, oracle, labels, settings = load(options)
    X, y, splits = divide(options, X, y, centres)
    X, y = count_as_known(options.known, X, y)

    names = chosen(options.models, X, y)
    reference = options.reference or (MULTIMODAL if MULTIMODAL in names else names[-1])
    if reference not in names:
        raise SystemExit(f"--reference {reference} is none of the models {names}; add it to --models.")
    baseline, tasks = stand_in(BASELINE, y), find_tasks(y)
    if options.controls:
        names += controls.offered(X)

    identity = manifest(X, y, splits, settings)
    short = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    label = options.cohort if options.cohort in ("simulated", "r01") else Path(options.cohort).name
    out = options.out or Path("results") / f"{label}-{short}"
    begin(out, identity, options.fresh)

    print(f"{options.cohort}: {len(X)} patients; modalities: {', '.join(modalities(X))}")
    for task in tasks.values():
        print(f"{task.name}: {task.count(task.outcome(y))}")
    findings = [audit_tables(X, y), audit_folds([(s.train, s.test) for s in splits], X)]
    if options.controls and (options.share is None or options.share[0] == 1):
        tried = [name for name in names if name not in ("published_network", *controls.NAMES)]
        # A quick look at every model in every run; a harder search for leaks is one call of audit_procedure.
        few = {"n_permutations": 2, "n_halves": 1}
        rows = splits[0].train, splits[0].test
        findings.append(controls.audit_models(tried, X, y, *rows, settings, options.workers, **few))
    findings = pd.concat(findings)
    if options.share is None:
        with whole_file(out / "audit.csv") as path:
            findings.to_csv(path, index=False)
    for finding in findings[~findings["passed"]].itertuples():
        print(f"AUDIT {finding.check}: {finding.detail}")

    answers = run(names, X, y, splits, settings, out, options.workers, options.share or (1, 1))
    if options.share is not None:
        left, total = unfinished(names, splits, out), len(names) * len(splits)
        print(f"Share {options.share[0]} of {options.share[1]}: {total - left} of {total} fits are stored in {out}/.")
        print("When all are, the same command without --share writes the tables.")
        return
    if not answers:
        return
    compared = {name: answers[name] for name in answers if name not in controls.NAMES}
    reports = []
    if options.report and compared and not unfinished(names, splits, out):
        # Written by another process while this one makes the tables; with one worker, after them.
        aside = joblib.Parallel(n_jobs=min(options.workers, 2), return_as="generator")
        reports = aside([joblib.delayed(write_report)(compared, X, y, identity, out / "report.html", labels)])
    table = tabulate(answers, y, baseline=baseline)
    with whole_file(out / "metrics.csv") as path:
        table.to_csv(path, index=False)
    with whole_file(out / "predictions.csv") as path:
        per_patient(answers).to_csv(path)
    is_control = table["model"].isin(controls.NAMES)
    if not is_control.all():
        print("\n" + show(table[~is_control], baseline))
    if oracle is not None:
        efficiency = gain_over_chance(answers, y, oracle)
        with whole_file(out / "efficiency.csv") as path:
            efficiency.to_csv(path, index=False)
        print(show_oracle(efficiency, reference))
    if is_control.any():
        print("\n" + show_controls(table[is_control], {task.name: task.chance_level for task in tasks.values()}))
    if reference in compared and len(compared) > 1:
        against = against_others(compared, y, reference)
        with whole_file(out / "against.csv") as path:
            against.to_csv(path, index=False)
        if len(compared) > len(QUICK):
            print("\n" + show_against(against))
    endpoints = [name for name in tasks if any("group" in tables[name] for tables in compared.values())]
    written = ["tables", "predictions"]
    if endpoints:
        draw(compared, y, endpoints[-1], out / "kaplan_meier.png")
        written.append("kaplan_meier.png")
    written += ["report.html" for _ in reports]  # or the error of that process
    minutes = (time.perf_counter() - start) / 60
    finish(out, minutes)
    print(f"\n{minutes:.1f} minutes. In {out}/ are {', '.join(written)}.")
    if "report.html" in written:
        print(f"Open in a browser: {(out / 'report.html').absolute()}")


if __name__ == "__main__":
    main()

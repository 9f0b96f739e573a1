"""Time and memory of large tables: many patients, many columns. Each line is measured in a process of its own.

``python -m benchmarks.scale`` measures all lines, ``python -m benchmarks.scale evaluate epoch`` some of them; the
table goes to ``benchmarks/results/scale.md`` with ``--write``.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pandas as pd

from mmdls._files import whole_file

RESULTS = Path(__file__).parent / "results" / "scale.md"


_INTRODUCTION = """# Scale

By `python -m benchmarks.scale --write` ({machine}, {processors} processors, other programs beside it), one thread,
each line once, in a process of its own. Peak is that of the process; before is what it held before the measured step,
libraries included. `evaluate`: risks of one endpoint and 200 resamples, `curves` with survival at 12, 36 and 60
months. `report`: two models, 200 resamples. `survival-function`: at three times. `epochs`: 200 columns, one member,
five epochs and all else that `fit` does. Estimators: patients x columns, `fit` and `predict` (or `transform`);
`MMDLS` has five members and two tasks.

"""


def cohort(n_patients: int, n_columns: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Numbers, the first five of which shorten survival; about half of the patients are censored."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(n_patients, n_columns)).astype(np.float32)
    time = rng.exponential(30 * np.exp(-0.4 * table[:, :5].sum(axis=1)))
    end = rng.uniform(5, 90, n_patients)
    X = pd.DataFrame(table, columns=[f"radiomics_{i}" for i in range(n_columns)])
    return X, pd.DataFrame({"os_time": np.minimum(time, end), "os_event": (time <= end).astype(float)})


def _evaluate(n_patients: int) -> Callable[[], object]:
    from mmdls.evaluation import evaluate_predictions

    X, y = cohort(n_patients, 5)
    risk = X.sum(axis=1)
    return lambda: evaluate_predictions({"os": risk}, y, n_resamples=200, random_state=0)


def _evaluate_curves(n_patients: int) -> Callable[[], object]:
    from mmdls import ClinicalCox, evaluate

    X, y = cohort(n_patients, 20)
    X.columns = [f"clinical_{i}" for i in range(20)]
    model = ClinicalCox(endpoint="os").fit(X.iloc[:2000], y.iloc[:2000])
    return lambda: evaluate(model, X, y, n_resamples=200, random_state=0)


def _report(n_patients: int) -> Callable[[], object]:
    import matplotlib.pyplot  # noqa: F401

    from mmdls import ClinicalCox
    from mmdls.report import report

    X, y = cohort(n_patients, 20)
    X.columns = [f"clinical_{i}" for i in range(20)]
    X["centre"] = np.resize(["A", "B", "C"], n_patients)
    few = ClinicalCox(columns=[f"clinical_{i}" for i in range(3)], endpoint="os").fit(X.iloc[:2000], y.iloc[:2000])
    models = {"few": few, "all": ClinicalCox(endpoint="os").fit(X.iloc[:2000], y.iloc[:2000])}
    return lambda: f"{len(report(models, X, y, n_resamples=200)) / 2**20:.1f} MB of HTML"


def _survival_function(n_patients: int) -> Callable[[], object]:
    from mmdls import MMDLS, Trainer

    X, y = cohort(n_patients, 20)
    model = MMDLS(n_members=1, trainer=Trainer(max_epochs=1), random_state=0).fit(X, y)
    return lambda: model.predict_survival_function(X, "os", times=[12, 36, 60], return_array=True)


def _epoch(n_patients: int) -> Callable[[], object]:
    from mmdls import MMDLS, Trainer

    X, y = cohort(n_patients, 200)

    def fit() -> str:
        model = MMDLS(n_members=1, trainer=Trainer(max_epochs=5), random_state=0).fit(X, y)
        return f"{model.history_['dur'].median():.2f} s an epoch"

    return fit


def _columns(name: str, n_patients: int, n_columns: int) -> Callable[[], object]:
    import mmdls

    estimator = getattr(mmdls, name)  # imported before the time is taken
    X, y = cohort(n_patients, n_columns)
    label = y["os_event"].map({0.0: "no", 1.0: "yes"}).rename("label")
    work: dict[str, Callable[[], object]] = {
        "TabularEncoder": lambda: estimator().fit(X).transform(X),
        "StabilityFilter": lambda: estimator(repeats=[X, X + 0.1]).fit(X).transform(X),
        "ComBat": lambda: estimator().fit_transform(X, site=np.arange(n_patients) % 3),
        "SignWeightedClassifier": lambda: estimator(random_state=0).fit(X, label).predict(X),
        "MMDLS": lambda: estimator(random_state=0).fit(X, y.assign(label=label)).predict(X),
        "MultimodalClassifier": lambda: estimator(random_state=0).fit(X, label).predict(X),
        "MultimodalSurvival": lambda: estimator(endpoint="os", random_state=0).fit(X, y).predict(X),
    }
    return work.get(name, lambda: estimator(endpoint="os", columns="radiomics").fit(X, y).predict(X))


LINES: dict[str, Callable[[], Callable[[], object]]] = {
    **{f"evaluate-{n}": lambda n=n: _evaluate(n) for n in (20_000, 50_000)},
    **{f"evaluate-curves-{n}": lambda n=n: _evaluate_curves(n) for n in (20_000, 50_000)},
    **{f"report-{n}": lambda n=n: _report(n) for n in (10_000, 50_000)},
    **{f"survival-function-{n}": lambda n=n: _survival_function(n) for n in (12_000, 50_000)},
    **{f"epochs-{n}": lambda n=n: _epoch(n) for n in (20_000, 50_000)},
    **{
        f"{name}-{n}x{p}": lambda name=name, n=n, p=p: _columns(name, n, p)
        for name in (
            "TabularEncoder",
            "StabilityFilter",
            "ComBat",
            "ClinicalCox",
            "RadiomicsCox",
            "CoxNet",
            "SurvivalForest",
            "SurvivalBoosting",
            "SignWeightedBagging",
            "SignWeightedClassifier",
            "MMDLS",
            "MultimodalSurvival",
            "MultimodalClassifier",
        )
        for n, p in ((300, 5_000), (50, 20_000))
    },
}


def measure(line: str) -> None:
    """Print seconds by the clock, seconds of the processor, and the peak of memory in MiB beyond the imports."""
    import torch._dynamo  # noqa: F401  (the first optimiser of a process imports it)

    import mmdls.estimators  # noqa: F401

    work = LINES[line]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock, processor = perf_counter(), process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        note = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{perf_counter() - clock:.1f} {process_time() - processor:.1f} {peak / 1024:.0f} {before / 1024:.0f}")
    print(note if isinstance(note, str) else "")


def main() -> None:
    """Measure the lines whose names hold one of the given words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of names of lines")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for a line")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/scale.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(given.one)
        return
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    rows = [
        "| line | seconds | seconds of the processor | peak, MiB | before, MiB | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for line in LINES:
        if given.words and not any(word in line for word in given.words):
            continue
        command = [sys.executable, "-m", "benchmarks.scale", "--one", line]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=given.timeout, env=environment)
            numbers, _, note = done.stdout.partition("\n")
            found = [*numbers.split(), note.strip()] if numbers else ["", "", "", "", done.stderr.strip()[-80:]]
        except subprocess.TimeoutExpired:
            found = [f"> {given.timeout:.0f}", "", "", "", ""]
        rows.append(f"| {line} | {' | '.join(found)} |")
        print(rows[-1], flush=True)
    if given.write:
        text = _INTRODUCTION.format(machine=platform.machine(), processors=os.cpu_count())
        with whole_file(RESULTS) as path:
            path.write_text(text + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()

"""Every registered part in the place of the default one, at one fixed budget, on simulated patients.

``python -m benchmarks.zoo`` fits one network of ``MMDLS`` on cohorts whose images tell something, whose images tell
nothing, and with 30 % of the modalities missing. All combinations would be too many fits; two designs are run instead:

* ``alone``: one part is changed, all others are the defaults;
* ``among others``: one part is changed where all others were drawn at random, the same ones for every part of a cohort,
  in the scenarios of ``--among-others``. A part whose gain depends on its company differs between the two designs.

Both compare a part with the default in the same place, cohort, seed and company; intervals are those of such
differences over cohorts. Networks have no linear part beside them, which would answer most of what tables tell,
whatever the parts. A part whose training takes more than ``--slowest`` times that of the default is named and not run.

A candidate for a new default is asked again in the model that users get, task by task::

    python -m benchmarks.zoo --places fusion=cross_attention --members 5 --epochs 40 --linear --by-task --among-others

Parts are those of the registries, plug-ins included. A cell that is finished is kept, and the same command goes on
where it was; after a change of the code, take another ``--out`` or ``--fresh``.
"""

import argparse
import signal
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from benchmarks.intervals import over_cohorts
from benchmarks.missing_modalities import MODALITIES
from benchmarks.runs import begin
from benchmarks.small_tables import LOSSES, markdown
from mmdls import MMDLS, Trainer, evaluate
from mmdls._files import whole_file
from mmdls.cohort import find_tasks
from mmdls.datasets import make_nsclc_cohort
from mmdls.parts import Composed, name_of
from mmdls.registry import Registry
from mmdls.zoo._compare import of_main_metric

__all__ = ["SCENARIOS", "Budget", "Cell", "alternatives", "contrasts", "design", "measure", "slow_parts", "summary"]

SCENARIOS: dict[str, dict[str, Any]] = {
    "signal in images": {},
    "no signal in images": {"image_signal": 0.0},
    "30 % missing": {"missing": dict.fromkeys(MODALITIES, 0.3)},
}
_KEY = ["scenario", "seed", "design", "parts"]
_TIMED = {"patients": 100, "test_patients": 0, "epochs": 3}


@dataclass(frozen=True)
class Budget:
    """What every cell is given.

    Parameters
    ----------
    patients, test_patients : int
        To learn from, and new ones.
    slices, image_size : int
        Slices of lesion and of lung each, pixels of a side.
    epochs, members : int
        Of the training; networks that are averaged.
    linear : bool, default=False
        Whether the linear part stands beside the networks.
    """

    patients: int = 300
    test_patients: int = 500
    slices: int = 2
    image_size: int = 32
    epochs: int = 12
    members: int = 1
    linear: bool = False


@dataclass(frozen=True)
class Cell:
    """One fit: the parts that are not the defaults, in one simulated cohort.

    Parameters
    ----------
    scenario : str
        One of :data:`SCENARIOS`.
    seed : int
        Of the patients and of the network.
    design : str
        ``"alone"`` or ``"among others"``.
    parts : tuple of (str, str)
        Parameters and names of parts, sorted.
    """

    scenario: str
    seed: int
    design: str
    parts: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What it is called in the file of rows."""
        return self.scenario, self.seed, self.design, ", ".join(f"{slot}={name}" for slot, name in self.parts)


def alternatives(model: Composed, prefix: str = "") -> dict[str, list[str]]:
    """The parameters of a model in which registered parts stand, each with the default's name first, then the others.

    Parameters
    ----------
    model : MMDLS or another estimator with slots
    prefix : str, default=""
        Of the names of parameters.

    Examples
    --------
    >>> found = alternatives(MMDLS())
    >>> found["fusion"][0], found["image_encoder__pooling"][0]
    ('gated', 'mean')
    """
    found: dict[str, list[str]] = {}
    for name, slot in model._slots().items():
        value = model._held(name)
        part = slot.resolve(value)
        if isinstance(slot.registry, Registry):
            names = {_name(choice): None for choice in [value, *slot.choices(value, every=True)]}
            found[prefix + name] = list(names)
        if isinstance(part, Composed):
            found |= alternatives(part, f"{prefix}{name}__")
    return {name: names for name, names in found.items() if len(names) > 1}


def _name(choice: Any) -> str:
    return "none" if choice is None else name_of(choice)


def design(
    places: Mapping[str, list[str]], scenarios: Iterable[str], seeds: int, among_others: Iterable[str] = ()
) -> Iterator[Cell]:
    """All cells, seed by seed, so that what a stopped run has finished can be compared.

    Parameters
    ----------
    places : dict of str to list of str
        As :func:`alternatives` gives it.
    scenarios, among_others : iterable of str
        Of the first design, and of both.
    seeds : int
        How many cohorts.
    """
    for seed in range(seeds):
        for scenario in scenarios:
            yield Cell(scenario, seed, "alone")
            for slot, (_, *others) in places.items():
                for name in others:
                    yield Cell(scenario, seed, "alone", ((slot, name),))
        rng = np.random.default_rng(seed)
        # Parts of an encoder are drawn, and the encoder that has them stays.
        inner = {s: names for s, names in places.items() if not any(each.startswith(f"{s}__") for each in places)}
        company = {slot: str(rng.choice(names)) for slot, names in inner.items()}
        parts = {_told(places, company | {slot: name}): None for slot, names in inner.items() for name in names}
        for scenario in among_others:
            for chosen in parts:
                yield Cell(scenario, seed, "among others", chosen)


def _told(places: Mapping[str, list[str]], chosen: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The parts that are not the defaults."""
    return tuple(sorted((slot, name) for slot, name in chosen.items() if name != places[slot][0]))


@lru_cache(1)
def _cohort(scenario: str, seed: int, n: int, slices: int, image_size: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_nsclc_cohort(
        n, n_slices=slices, image_size=image_size, return_X_y=True, random_state=seed, **SCENARIOS[scenario]
    )


def _fitted(cell: Cell, budget: Budget) -> tuple[MMDLS, float, pd.DataFrame, pd.DataFrame]:
    """The model, the processor seconds of its fit, and the new patients."""
    n = budget.patients
    X, y = _cohort(cell.scenario, cell.seed, n + budget.test_patients, budget.slices, budget.image_size)
    model = MMDLS(n_members=budget.members, trainer=Trainer(max_epochs=budget.epochs), random_state=cell.seed)
    model.set_params(table_encoder__linear=budget.linear, **dict(cell.parts))
    start = time.process_time()
    model.fit(X[:n], y[:n])
    return model, time.process_time() - start, X[n:], y[n:]


def measure(cell: Cell, budget: Budget) -> dict[str, float]:
    """Fit one cell, and ask new patients.

    Returns
    -------
    dict of str to float
        ``seconds`` of the processor, the main metric of each task, their mean, and ``error``: the mean over tasks of
        the Brier score, integrated of endpoints. Of each task also ``<task> error``, and ``<task> log loss``, the
        negative log likelihood of a patient.
    """
    model, seconds, X, y = _fitted(cell, budget)
    table = evaluate(model, X, y, n_resamples=0)
    main = table[of_main_metric(table, find_tasks(y))].set_index("task")["value"]
    ends = table["horizon"].isna() | table["metric"].str.startswith("integrated")
    losses = table[table["metric"].isin(LOSSES) & ends].groupby("task")["value"].first()
    surprise = table.set_index(["metric", "task"])["value"]
    surprise = pd.concat([surprise["log_loss"], -surprise["log_likelihood"]])
    own = main.to_dict() | losses.add_suffix(" error").to_dict() | surprise.add_suffix(" log loss").to_dict()
    return {"seconds": seconds, **own, "mean": main.mean(), "error": losses.mean()}


def slow_parts(places: Mapping[str, list[str]], budget: Budget, most: float) -> set[tuple[str, str]]:
    """The parts with which a short training takes more than ``most`` times as long as with the default."""
    few = Budget(**asdict(budget) | _TIMED)

    def fit(*parts: tuple[str, str]) -> float:
        return _fitted(Cell(next(iter(SCENARIOS)), 0, "alone", parts), few)[1]

    fit()  # the first fit of a process takes longer
    limit, found = most * fit(), set()
    for part in ((slot, name) for slot, (_, *others) in places.items() for name in others):
        try:
            with _at_most(limit):
                fit(part)
        except TimeoutError:
            found.add(part)
    return found


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError once the processor has worked for so long."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def contrasts(found: pd.DataFrame, places: Mapping[str, list[str]]) -> pd.DataFrame:
    """Each part minus the default in its place, in the same company and cohort.

    Parameters
    ----------
    found : pandas.DataFrame
        One row a cell, as :func:`main` keeps them.
    places : dict of str to list of str

    Returns
    -------
    pandas.DataFrame
        Columns scenario, design, slot, part, seed, mean, error (differences), times (ratio of seconds).
    """
    values = found.assign(parts=found["parts"].fillna("")).set_index(_KEY)[["mean", "error", "seconds"]]
    kept = {key: row for key, *row in zip(values.index, *values.to_numpy().T, strict=True)}
    rows = []
    for (scenario, seed, kind, text), (mean, error, seconds) in kept.items():
        chosen = dict(each.split("=", 1) for each in text.split(", ") if each)
        for slot in chosen:
            rest = Cell(scenario, seed, kind, tuple(sorted((s, n) for s, n in chosen.items() if s != slot)))
            if rest.key in kept and slot in places:
                base = kept[rest.key]
                difference = mean - base[0], error - base[1], seconds / base[2]
                rows.append((scenario, kind, slot, chosen[slot], seed, *difference))
    return pd.DataFrame(rows, columns=["scenario", "design", "slot", "part", "seed", "mean", "error", "times"])


def summary(differences: pd.DataFrame, places: Mapping[str, list[str]]) -> pd.DataFrame:
    """Mean differences over cohorts with their intervals, by scenario, design and part, in the order of places.

    Parameters
    ----------
    differences : pandas.DataFrame
        As :func:`contrasts` gives them.
    places : dict of str to list of str

    Returns
    -------
    pandas.DataFrame
        Columns scenario, design, slot, part, cohorts, gain, low, high (of the mean metric), error, error_low,
        error_high, times.
    """
    order = {(slot, name): i for i, (slot, name) in enumerate((s, n) for s, names in places.items() for n in names)}
    rows = []
    for key, own in differences.groupby(["scenario", "design", "slot", "part"], sort=False):
        rows.append((*key, len(own), *over_cohorts(own["mean"]), *over_cohorts(own["error"]), own["times"].median()))
    columns = "scenario design slot part cohorts gain low high error error_low error_high times".split()
    table = pd.DataFrame(rows, columns=columns)
    place = [order.get(each, len(order)) for each in zip(table["slot"], table["part"], strict=True)]
    return table.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)


def by_measure(found: pd.DataFrame, places: Mapping[str, list[str]]) -> pd.DataFrame:
    """The summary of each measure of each task by itself.

    Parameters
    ----------
    found : pandas.DataFrame
        One row a cell, as :func:`main` keeps them.
    places : dict of str to list of str

    Returns
    -------
    pandas.DataFrame
        Columns scenario, design, slot, part, measure, gain, low, high.
    """
    measures = [name for name in found if name not in (*_KEY, "seconds", "mean", "error")]
    parts = [
        summary(contrasts(found.assign(mean=found[name]), places), places).assign(measure=name) for name in measures
    ]
    columns = ["scenario", "design", "slot", "part", "measure", "gain", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _cells(own: pd.DataFrame, name: str, low: str, high: str) -> list[str]:
    rows = own[[name, low, high]].to_numpy()
    return [f"{v:+.3f} [{a:+.3f}, {b:+.3f}]{'*' if a > 0 or b < 0 else ''}" for v, a, b in rows]


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The summary as people read it, one table a scenario and design."""
    shown = {}
    for (scenario, kind), own in table.groupby(["scenario", "design"], sort=False):
        shown[f"{scenario}, {kind}"] = pd.DataFrame(
            {
                "place": own["slot"],
                "part": own["part"],
                "mean metric": _cells(own, "gain", "low", "high"),
                "error": _cells(own, "error", "error_low", "error_high"),
                "times as long": own["times"].map("{:.1f}".format),
                "cohorts": own["cohorts"].astype(str),
            }
        ).set_index(["place", "part"])
    return shown


def show_measures(table: pd.DataFrame) -> pd.DataFrame:
    """What :func:`by_measure` found as people read it: measures in rows, scenarios in columns, of the first design."""
    own = table[table["design"] == "alone"]
    own = own.assign(text=_cells(own, "gain", "low", "high"), place=own["slot"] + "=" + own["part"])
    return own.set_index(["place", "measure", "scenario"])["text"].unstack("scenario", sort=False)


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, and print and write the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Budget()
    for name, value in asdict(default).items():
        kind: dict[str, Any] = {"action": "store_true"} if isinstance(value, bool) else {"type": int, "default": value}
        parser.add_argument(f"--{name.replace('_', '-')}", **kind)
    parser.add_argument("--seeds", type=int, default=6, help="how many cohorts")
    parser.add_argument("--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument(
        "--among-others", nargs="*", choices=list(SCENARIOS), default=list(SCENARIOS)[:1], metavar="SCENARIO"
    )
    parser.add_argument("--places", nargs="+", help="only these parameters, such as fusion, or parts: fusion=late,film")
    parser.add_argument("--by-task", action="store_true", help="a table of each task's metric, error and log loss too")
    parser.add_argument("--slowest", type=float, default=3.0, help="times as long as the default that a part may take")
    parser.add_argument("--quick", action="store_true", help="few patients and epochs: that it runs, no more")
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no cell later than this")
    parser.add_argument("--fresh", action="store_true", help="replace what is kept in --out")
    parser.add_argument("--out", type=Path, default=Path("results/zoo"))
    options = parser.parse_args(argv)
    budget = Budget(**{name: getattr(options, name) for name in asdict(default)})
    if options.quick:
        budget = Budget(patients=40, test_patients=40, slices=1, image_size=16, epochs=2)
    end = time.monotonic() + 60 * options.minutes
    places = alternatives(MMDLS())
    places = _chosen(places, options.places) if options.places else places

    options.out.mkdir(parents=True, exist_ok=True)
    begin(options.out, {"budget": asdict(budget), "slowest": options.slowest}, fresh=options.fresh)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slow = _slow(places, budget, options.slowest, options.out / "slow.csv")
        run = {slot: [name for name in names if (slot, name) not in slow] for slot, names in places.items()}
        cells = list(design(run, options.scenarios, options.seeds, options.among_others))
        found = _run(cells, budget, options.out / "cells.csv", end)
    shown = show(summary(contrasts(found, run), run))
    lines = [f"**{title}**\n\n{markdown(table)}" for title, table in shown.items()]
    if options.by_task:
        lines.append(f"**Task by task**\n\n{markdown(show_measures(by_measure(found, run)))}")
    if slow:
        left = ", ".join(f"{slot}={name}" for slot, name in sorted(slow))
        lines.append(f"Not run, since they take more than {options.slowest:g} times as long: {left}.")
    with whole_file(options.out / "tables.md") as path:
        path.write_text("\n\n".join(lines) + "\n")
    print("\n\n".join(lines))
    print(f"\n{len(found)} of {len(cells)} cells are finished. The same command goes on where this one was.")


def _chosen(places: Mapping[str, list[str]], wanted: list[str]) -> dict[str, list[str]]:
    """The parameters, and where parts are named those and the default, that ``--places`` names."""
    chosen = {}
    for text in wanted:
        name, _, parts = text.partition("=")
        if name not in places:
            raise SystemExit(f"--places: there is no {name}; there are {', '.join(places)}.")
        first, *others = places[name]
        named = parts.split(",") if parts else others
        if unknown := [part for part in named if part not in others]:
            raise SystemExit(f"--places: {name} has no {', '.join(unknown)} beside the default; it has {others}.")
        chosen[name] = [first, *named]
    return chosen


def _slow(places: Mapping[str, list[str]], budget: Budget, most: float, path: Path) -> set[tuple[str, str]]:
    """The parts that take too long; those that were asked before are not asked again."""
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["slot", "part", "slow"])
    known = dict(zip(zip(table["slot"], table["part"], strict=True), table["slow"], strict=True))
    new = {s: [names[0], *(n for n in names[1:] if (s, n) not in known)] for s, names in places.items()}
    if any(len(names) > 1 for names in new.values()):
        slow = slow_parts(new, budget, most)
        known |= {(s, n): (s, n) in slow for s, names in new.items() for n in names[1:]}
        with whole_file(path) as partial:
            pd.DataFrame([(*key, value) for key, value in known.items()], columns=table.columns).to_csv(
                partial, index=False
            )
    return {key for key, value in known.items() if value and key[1] in places.get(key[0], ())}


def _run(cells: list[Cell], budget: Budget, path: Path, end: float) -> pd.DataFrame:
    """Measure the cells that are not kept yet, until it is too late; all that are kept."""
    found = pd.read_csv(path, keep_default_na=False).to_dict("records") if path.exists() else []
    done = {tuple(row[name] for name in _KEY) for row in found}
    for cell in tqdm([cell for cell in cells if cell.key not in done], unit="cell"):
        if time.monotonic() > end:
            break
        found.append(dict(zip(_KEY, cell.key, strict=True)) | measure(cell, budget))
        with whole_file(path) as partial:
            pd.DataFrame(found).to_csv(partial, index=False)
    asked = {cell.key for cell in cells}
    kept = [row for row in found if tuple(row[name] for name in _KEY) in asked]
    return pd.DataFrame(kept, columns=list(found[0]) if found else [*_KEY, "mean", "error", "seconds"])


if __name__ == "__main__":
    main()

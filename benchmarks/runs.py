"""Runs that survive whatever stops them: every model on every split, each fit stored as soon as it is finished.

Several processes, on one machine or on many that see the same folder, may do a share of one run each.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
import pandas as pd
from tqdm.auto import tqdm

import mmdls
from benchmarks import controls
from benchmarks.designs import Split
from benchmarks.folds import left_out
from benchmarks.models import Settings
from mmdls._files import partial_path, to_disk, whole_file
from mmdls._secrets import without_secrets
from mmdls.cohort import find_tasks
from mmdls.report import data_hash, image_hash

__all__ = ["begin", "finish", "manifest", "run", "run_fold", "unfinished"]


def run_fold(
    name: str, split: Split, X: pd.DataFrame, y: pd.DataFrame, settings: Settings, folder: Path | None = None
) -> tuple[str, Split, dict[str, pd.DataFrame], dict[str, Any]]:
    """Tune and fit one model on one split's training rows, predict the rows left out, and store both.

    What is stored appears all at once, so that a killed run leaves whole folders only.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    answers, note = left_out(controls.build(name, settings, X, y), name, split, X, y)
    answers = {task: table.rename_axis("patient") for task, table in answers.items()}
    for table in answers.values():
        table.insert(0, "fold", split.name)
    if folder is not None:
        partial = partial_path(folder)
        partial.mkdir(parents=True, exist_ok=True)
        for task, table in answers.items():
            table.to_csv(partial / f"{task}.csv")
        (partial / "chosen.json").write_text(json.dumps(note, default=str))
        for path in partial.iterdir():
            to_disk(path)
        try:
            os.replace(partial, folder)
        except OSError:
            if not (folder / "chosen.json").exists():
                raise
            # A worker that outlived a killed run was faster.
            shutil.rmtree(partial)
    return name, split, answers, note


def stored(folder: Path, index: pd.Index) -> tuple[dict[str, pd.DataFrame], dict[str, Any]] | None:
    """What a finished fold left behind, or None."""
    if not (folder / "chosen.json").exists():
        return None
    answers = {}
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype={"patient": str, "fold": str})
        table = table.set_index("patient")
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
    share: tuple[int, int] = (1, 1),
) -> dict[str, dict[str, pd.DataFrame]]:
    """Run every model on every split; what is stored already is read, what finishes is stored at once.

    Parameters
    ----------
    share : (int, int), default=(1, 1)
        ``(2, 5)`` does the second of five shares, which together are the run; each has folds of every model.

    Returns
    -------
    dict of str to dict of str to pandas.DataFrame
        For each model and task, the predictions for the patients left out in the splits that are finished.
    """
    jobs, answers, chosen = [], {}, []

    def keep(name: str, split: Split, found: Mapping[str, pd.DataFrame], note: Mapping[str, Any]) -> None:
        for task, table in found.items():
            answers.setdefault(name, {}).setdefault(task, []).append(table.assign(repeat=split.repeat))
        chosen.append({"model": name, "fold": split.name, **note})
        with whole_file(out / "chosen.csv") as path:
            pd.DataFrame(chosen).to_csv(path, index=False)

    (out / "trials").mkdir(parents=True, exist_ok=True)
    fits = _share(names, splits, *share)
    for name, split in fits:
        known = stored(_folder(out, name, split), X.index)
        if known is not None:
            keep(name, split, *known)
        else:
            folder = _folder(out, name, split)
            own = replace(settings, journal=out / "trials" / f"{folder.name}.log")
            jobs.append((name, split, X, y, own, folder))
    if chosen:
        print(f"{len(chosen)} of {len(fits)} fits were finished before; {len(jobs)} are left.")
    parallel = joblib.Parallel(n_jobs=min(workers, max(len(jobs), 1)), return_as="generator_unordered")
    try:
        with tqdm(total=len(jobs), desc="folds x models", unit="fit", file=sys.stderr) as bar:
            for name, split, _, note in parallel(joblib.delayed(run_fold)(*job) for job in jobs):
                # Read back: a run that was stopped and went on has the very numbers of one that was not.
                keep(name, split, *stored(_folder(out, name, split), X.index))
                bar.set_postfix_str(f"{name}, fold {split.name}: {note['seconds']:.0f} s")
                bar.update()
    except KeyboardInterrupt:
        print(f"\nInterrupted. {len(chosen)} of {len(fits)} fits are finished and stored in {out}.")
        print("The same command goes on from here.")
    # In one order, whatever finished first.
    return {
        name: {task: _in_order(answers[name][task], y) for task in find_tasks(y)} for name in names if name in answers
    }


def _in_order(parts: list[pd.DataFrame], y: pd.DataFrame) -> pd.DataFrame:
    table = pd.concat(parts)
    return table.iloc[np.lexsort((y.index.get_indexer(table.index), table["repeat"]))]


def unfinished(names: Sequence[str], splits: Sequence[Split], out: Path) -> int:
    """How many fits of a run are not stored yet."""
    return sum(not (_folder(out, *fit) / "chosen.json").exists() for fit in _share(names, splits))


def _share(names: Sequence[str], splits: Sequence[Split], i: int = 1, n: int = 1) -> list[tuple[str, Split]]:
    """The fits of share i of n, split by split, so that what a stopped run has finished can be compared.

    Slow models come first, and are dealt out one by one, so that shares take about the same time.
    """
    fits = [(name, split) for split in splits for name in reversed(names)]
    by_model = sorted(range(len(fits)), key=lambda fit: fit % len(names))
    return [fits[fit] for fit in sorted(by_model[i - 1 :: n])]


def _folder(out: Path, name: str, split: Split) -> Path:
    return out / "folds" / f"{name}-{split.name}".replace(" ", "_").replace("/", "_")


def manifest(X: pd.DataFrame, y: pd.DataFrame, splits: list[Split], settings: Settings) -> dict[str, Any]:
    """What decides the numbers of a run: data, splits, budget, code and versions."""
    source = hashlib.sha256()
    for folder in (Path(mmdls.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            source.update(path.read_bytes())
    packages = ("torch", "scikit-learn", "scikit-survival", "skorch", "optuna", "numpy", "pandas")
    return {
        "patients": len(X),
        "data": {"X": data_hash(X), "y": data_hash(y), "images": image_hash(X)},
        "splits": joblib.hash([(split.name, split.train, split.test) for split in splits]),
        "settings": {
            name: without_secrets(str(value)) for name, value in asdict(replace(settings, journal=None)).items()
        },
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
    if (out / "folds").exists() and not path.exists():  # another share may have begun just now
        raise SystemExit(f"{out} holds folds of an unknown run; choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    _write_json(path, {**identity, "begun": time.strftime("%Y-%m-%d %H:%M:%S")})


def finish(out: Path, minutes: float) -> None:
    """Add to the manifest when the tables were written, what all fits took, and how long this call ran."""
    path = out / "manifest.json"
    spent = pd.read_csv(out / "chosen.csv")["seconds"].sum() / 60
    times = {"minutes_of_all_fits": round(spent, 1), "minutes_of_the_last_call": round(minutes, 1)}
    facts = {**json.loads(path.read_text()), "finished": time.strftime("%Y-%m-%d %H:%M:%S"), **times}
    _write_json(path, facts)


def _write_json(path: Path, facts: Mapping[str, Any]) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(facts, indent=1))

"""Backbones for slices: accuracy, time and memory on simulated patients, from images alone.

``python -m benchmarks.image_encoders`` trains the network of ``mmdls.zoo`` on lesion and lung with each backbone, and
tests it on further patients; slices are prepared as ``SliceEncoder`` does by default. A backbone whose training would
take longer than ``--limit`` is only timed. ``--default`` times ``MMDLS()`` on larger slices instead, tables included.

Each fit runs in a process of its own. Seconds are processor seconds, unless said: they depend less on what else runs.
``benchmarks/results/image_encoders.md`` holds a run.
"""

import argparse
import multiprocessing
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.speed._measuring import _peak, _resident
from mmdls import MMDLS, Part, SliceEncoder, Trainer, create
from mmdls._files import whole_file
from mmdls.datasets import make_nsclc_cohort
from mmdls.evaluation import make_scorers

__all__ = ["BACKBONES", "default_fit", "measure", "summary"]

BACKBONES: dict[str, Any] = {
    "antialiased (default)": "antialiased",
    "antialiased, depth 4": Part("antialiased", depth=4),
    "antialiased, width 16": Part("antialiased", width=16),
    "conv, strides (2, 2), width 16": Part("conv", width=16, strides=(2, 2)),
    "resnet10, width 16": Part("resnet10", width=16),
    "conv (published)": "conv",
}
SCORES = {
    "subtype": "subtype_auc",
    "stage": "stage_auc",
    "dfs": "dfs_concordance_index",
    "os": "os_concordance_index",
}
_TIMED_PATIENTS = 16


def measure(
    backbone: Any, image_size: int, seed: int, n_patients: int, n_test: int, n_slices: int, limit: float
) -> dict[str, float]:
    """Train with one backbone and test on new patients.

    Parameters
    ----------
    backbone : str or Part
    image_size : int
        Of the simulated slices.
    seed : int
        Of the patients and of the network.
    n_patients, n_test, n_slices : int
        Patients to learn from, new ones, slices of each.
    limit : float
        Processor seconds; no longer training is begun.

    Returns
    -------
    dict of str to float
        Seconds of an epoch and of the whole fit, peak memory of the process (MB) in it, and the scores; the latter
        are missing if training would have taken too long.
    """
    X, y = make_nsclc_cohort(
        n_patients + n_test, n_slices=n_slices, image_size=image_size, return_X_y=True, random_state=seed
    )
    X = X[["lesion_image", "lung_image"]]
    network: MMDLS = create("imaging_network")["model"].estimator
    network.set_params(image_encoder=SliceEncoder(backbone=backbone), random_state=seed)
    epochs = network.trainer.max_epochs

    def seconds(n: int, n_epochs: int) -> float:
        _resident(reset=True, device="cpu")  # the peak is that of fitting, not of drawing the patients
        start = time.process_time()
        network.set_params(trainer__max_epochs=n_epochs).fit(X[:n], y[:n])
        return time.process_time() - start

    few = min(_TIMED_PATIENTS, n_patients)
    seconds(few, 1)  # the first fit of a process takes longer
    epoch = (seconds(few, 5) - seconds(few, 1)) / 4 * n_patients / few
    if epoch * epochs > limit:
        return {"epoch_s": epoch}
    fit = seconds(n_patients, epochs)
    found = {"epoch_s": fit / epochs, "fit_s": fit, "peak_mb": _peak("cpu")}
    scorers = make_scorers(y)
    found |= {task: float(scorers[name](network, X[n_patients:], y[n_patients:])) for task, name in SCORES.items()}
    return found | {"mean": sum(found[task] for task in SCORES) / len(SCORES)}


def default_fit(n_patients: int, n_slices: int, image_size: int, **trainer: Any) -> dict[str, float]:
    """Time ``MMDLS()`` on tables and larger slices of lesion and lung.

    Parameters
    ----------
    n_patients, n_slices, image_size : int
    **trainer
        Parameters of the :class:`mmdls.Trainer`; none means its defaults.

    Returns
    -------
    dict of str to float
        Seconds on the clock and of the processor, epochs, peak memory of the process (MB) and what fitting added.
    """
    X, y = make_nsclc_cohort(n_patients, n_slices=n_slices, image_size=image_size, return_X_y=True, random_state=0)
    before = _resident(reset=True, device="cpu")
    clock, processor = time.perf_counter(), time.process_time()
    model = MMDLS(trainer=Trainer(**trainer), random_state=0).fit(X, y)
    return {
        "clock_s": time.perf_counter() - clock,
        "processor_s": time.process_time() - processor,
        "epochs": len(model.history_),
        "peak_mb": _peak("cpu"),
        "added_mb": _peak("cpu") - before,
    }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds by image size and backbone, and the standard error of the difference to the first backbone.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a size, backbone and seed, as :func:`main` stores it.

    Returns
    -------
    pandas.DataFrame
    """
    keys = ["image_size", "backbone"]
    first = table[table["backbone"] == table["backbone"].iloc[0]].set_index(["image_size", "seed"])["mean"]
    pairs = pd.MultiIndex.from_frame(table[["image_size", "seed"]])
    table = table.assign(difference=table["mean"].to_numpy() - first.reindex(pairs).to_numpy())
    groups = table.groupby(keys, sort=False)
    means = groups.mean().drop(columns="seed")
    return means.assign(difference_se=groups["difference"].sem()).reset_index()


def alone(function: Callable[..., dict[str, float]], *args: Any, threads: int = 1, **kwargs: Any) -> dict[str, float]:
    """What a function returns in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_begin, initargs=(threads,)) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")


def main(argv: list[str] | None = None) -> None:
    """Print a table; rows of all seeds go to ``--out``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_encoders", description=__doc__.partition("\n")[0])
    parser.add_argument("--backbones", nargs="+", choices=list(BACKBONES), default=list(BACKBONES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96, 224])
    parser.add_argument("--seeds", type=int, default=3, help="how many cohorts")
    parser.add_argument("--patients", type=int, default=300, help="patients to learn from")
    parser.add_argument("--test-patients", type=int, default=600)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--limit", type=float, default=300.0, help="processor seconds that a training may take")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--default", action="store_true", help="time MMDLS() on slices of the last size instead")
    parser.add_argument("--out", type=Path, default=None, help="a CSV file for the rows")
    options = parser.parse_args(argv)
    if options.default:
        found = alone(default_fit, options.patients, options.slices, options.sizes[-1], threads=options.threads)
        print("  ".join(f"{name} {value:.0f}" for name, value in found.items()))
        return
    counts = options.patients, options.test_patients, options.slices, options.limit
    jobs = [(s, name, seed) for s in options.sizes for seed in range(options.seeds) for name in options.backbones]
    rows = []
    for size, name, seed in tqdm(jobs, unit="fit"):
        found = alone(measure, BACKBONES[name], size, seed, *counts, threads=options.threads)
        rows.append({"image_size": size, "backbone": name, "seed": seed, **found})
        if options.out is not None:
            with whole_file(options.out) as path:
                pd.DataFrame(rows).to_csv(path, index=False)
    print(summary(pd.DataFrame(rows)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()

"""How fast the statistics are, side by side with scikit-survival and scikit-learn on the same data.

``python -m benchmarks.speed._statistics`` prints the table. Each comparison first checks that both
give the same values.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sksurv.metrics import concordance_index_censored

from mmdls.evaluation import evaluate_predictions
from mmdls.metrics import auc_score, bootstrap_weights, concordance_index

__all__ = ["measure"]

N_PATIENTS = 4164  # the cohort of the publication
N_RESAMPLES = 1000
N_LOOPED = 20  # resamples that the slow loop goes through; its time is scaled up
HORIZONS = (12, 36, 60)


def measure(repeats: int = 3) -> list[dict[str, Any]]:
    """Measure each row; both sides alternate, and the fastest run of each counts.

    Parameters
    ----------
    repeats : int, default=3

    Returns
    -------
    list of dict
        name, ours_s, theirs_s (NaN where nothing comparable exists), ratio (theirs / ours), note.
    """
    return [
        _bootstrap_concordance(repeats),
        _bootstrap_auc(repeats),
        _large_concordance(repeats),
        _whole_evaluation(repeats),
    ]


def _bootstrap_concordance(repeats: int) -> dict[str, Any]:
    event, months, risk = _outcomes(N_PATIENTS)
    weights = bootstrap_weights(N_PATIENTS, N_RESAMPLES, random_state=0)
    looped = [np.repeat(np.arange(N_PATIENTS), row) for row in weights[:N_LOOPED]]

    def theirs() -> np.ndarray:
        return np.array([concordance_index_censored(event[i], months[i], risk[i])[0] for i in looped])

    def ours() -> np.ndarray:
        return concordance_index(event, months, risk, weights)

    return _bootstrap_row("C-index, 1,000 resamples, n = 4,164", ours, theirs, repeats, "scikit-survival")


def _bootstrap_auc(repeats: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, N_PATIENTS)
    score = generator.normal(size=N_PATIENTS) + labels
    weights = bootstrap_weights(N_PATIENTS, N_RESAMPLES, random_state=0)
    looped = [np.repeat(np.arange(N_PATIENTS), row) for row in weights[:N_LOOPED]]

    def theirs() -> np.ndarray:
        return np.array([roc_auc_score(labels[i], score[i]) for i in looped])

    def ours() -> np.ndarray:
        return auc_score(labels, score, weights)

    return _bootstrap_row("AUC, 1,000 resamples, n = 4,164", ours, theirs, repeats, "scikit-learn")


def _bootstrap_row(
    name: str, ours: Callable[[], np.ndarray], theirs: Callable[[], np.ndarray], repeats: int, package: str
) -> dict[str, Any]:
    difference = np.abs(ours()[:N_LOOPED] - theirs()).max()
    if difference > 1e-9:
        raise AssertionError(f"{name}: resamples differ by {difference:.1e}, so there is nothing to time.")
    ours_s, looped_s = _fastest([ours, theirs], repeats)
    note = f"loop over {package}: {N_LOOPED} resamples timed, times {N_RESAMPLES // N_LOOPED}; each equal to 1e-9"
    return _row(name, ours_s, looped_s * N_RESAMPLES / N_LOOPED, note)


def _large_concordance(repeats: int) -> dict[str, Any]:
    event, months, risk = _outcomes(100_000)

    def theirs() -> float:
        return concordance_index_censored(event, months, risk)[0]

    def ours() -> float:
        return concordance_index(event, months, risk)

    if abs(ours() - theirs()) > 1e-9:
        raise AssertionError("C-index of 100,000 patients differs from scikit-survival's.")
    return _row("C-index, n = 100,000", *_fastest([ours, theirs], repeats), "scikit-survival; equal to 1e-9")


def _whole_evaluation(repeats: int) -> dict[str, Any]:
    predictions, y = _four_tasks(N_PATIENTS)
    table = evaluate_predictions(predictions, y, horizons=HORIZONS, n_resamples=10)
    seconds = _fastest(
        [lambda: evaluate_predictions(predictions, y, horizons=HORIZONS, n_resamples=N_RESAMPLES)], min(repeats, 2)
    )[0]
    note = f"{len(table)} metrics with 95% intervals, 1,000 resamples, 4 tasks, 3 horizons; nothing comparable exists"
    return _row("evaluate, n = 4,164", seconds, float("nan"), note)


def _outcomes(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    risk = generator.normal(size=n)
    true, leaving = generator.exponential(40 * np.exp(-risk)), generator.uniform(5, 120, size=n)
    return true <= leaving, np.minimum(true, leaving), risk


def _four_tasks(n: int) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    generator = np.random.default_rng(0)
    risk = generator.normal(size=n)
    noisy = risk + generator.normal(size=n)
    stage = pd.cut(risk + generator.normal(size=n), [-99, -0.5, 0.7, 99], labels=["I-II", "III", "IV"])
    y = pd.DataFrame({"subtype": np.where(noisy > 0, "LUSC", "LUAD"), "stage": pd.Categorical(stage, ordered=True)})
    share = 1 / (1 + np.exp(-risk))
    three = np.exp(np.outer(risk, [-1.0, 0.0, 1.0]))
    predictions = {
        "subtype": pd.DataFrame({"LUAD": 1 - share, "LUSC": share}),
        "stage": pd.DataFrame(three / three.sum(axis=1, keepdims=True), columns=["I-II", "III", "IV"]),
    }
    death, leaving = generator.exponential(40 * np.exp(-risk)), generator.uniform(5, 120, size=n)
    relapse = np.minimum(death, generator.exponential(30 * np.exp(-risk)))
    grid = np.union1d(np.linspace(0, max(HORIZONS), 31)[1:], HORIZONS)
    for name, true, scale in (("dfs", relapse, 20), ("os", death, 40)):
        y[f"{name}_time"], y[f"{name}_event"] = np.minimum(true, leaving).round(1), (true <= leaving).astype(int)
        survival = pd.DataFrame(np.exp(-np.exp(risk)[:, None] * grid / scale), columns=grid)
        predictions[name] = survival.assign(risk=risk)
    return predictions, y


def _fastest(sides: list[Callable[[], Any]], repeats: int) -> list[float]:
    seconds = [float("inf")] * len(sides)
    for _ in range(repeats):
        for k, side in enumerate(sides):
            start = time.perf_counter()
            side()
            seconds[k] = min(seconds[k], time.perf_counter() - start)
    return seconds


def _row(name: str, ours_s: float, theirs_s: float, note: str) -> dict[str, Any]:
    return {"name": name, "ours_s": ours_s, "theirs_s": theirs_s, "ratio": theirs_s / ours_s, "note": note}


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    table = pd.DataFrame(measure(parser.parse_args(argv).repeats))
    print(table.to_string(index=False, float_format=lambda v: f"{v:.3g}", na_rep=""))


if __name__ == "__main__":
    main()

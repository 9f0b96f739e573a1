"""Competing risks with known cumulative incidences, and numbers to predict."""

import numpy as np


def cause_specific_rates(signal, rates=(0.04, 0.02), effects=(1.0, -0.5)):
    """Hazards per month (n, n_causes) of patients with a given signal (n,)."""
    return np.asarray(rates) * np.exp(np.outer(signal, effects))


def true_incidence(rates, times):
    """Cumulative incidence (n, n_causes, n_times) of constant hazards (n, n_causes)."""
    total = rates.sum(axis=1)[:, None, None]
    return rates[:, :, None] / total * -np.expm1(-total * np.asarray(times))


def draw_competing_risks(n, seed=0, *, rates=(0.04, 0.02), effects=(1.0, -0.5), censoring=0.02, decimals=None):
    """Signal (n,), causes (n,) with 0 = censored, and months (n,), rounded to ``decimals`` to make ties.

    Hazards of the causes are constant in time, and so is that of censoring (0: nobody is censored).
    """
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=n)
    hazards = cause_specific_rates(signal, rates, effects)
    months = rng.exponential(1 / hazards.sum(axis=1))
    causes = (rng.random(n)[:, None] > (hazards / hazards.sum(axis=1, keepdims=True)).cumsum(axis=1)).sum(axis=1) + 1
    causes = np.minimum(causes, len(rates))
    lost = rng.exponential(1 / censoring, n) if censoring else np.full(n, np.inf)
    causes, months = np.where(months <= lost, causes, 0), np.minimum(months, lost)
    return signal, causes, (months if decimals is None else np.round(months, decimals)) + 0.1


def draw_values(n, seed=0, *, slope=2.0, noise=1.0, mean=50.0):
    """Signal (n,) and a value (n,) that is a line of it with normal noise: R2 is slope^2 / (slope^2 + noise^2)."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=n)
    return signal, mean + slope * signal + rng.normal(0, noise, n)

"""Hazard ratios of covariates, and whether they differ between treatments."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.cohort import check_target, survival_target
from mmdls.tables._cohort import levels

__all__ = ["hazard_table", "interaction_table"]


def hazard_table(
    y: pd.DataFrame, endpoint: str, covariates: pd.DataFrame, *, adjusted: bool = True, level: float = 0.95
) -> pd.DataFrame:
    """Hazard ratios of covariates: numbers per standard deviation, categories by dummies against the first level.

    Parameters
    ----------
    y : pandas.DataFrame
    endpoint : str
    covariates : pandas.DataFrame
        For example the predicted risk, the risk group, stage and age; patients with a missing value are left out.
    adjusted : bool, default=True
        One Cox model of all covariates (Efron ties, Wald intervals); otherwise one model each.
    level : float, default=0.95

    Returns
    -------
    pandas.DataFrame
        Columns covariate, level, n, n_events, hazard_ratio, low, high, p, p_proportional (Grambsch-Therneau test that
        the ratio is the same over time), note.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> covariates = pd.DataFrame({"risk": rng.normal(size=90), "sex": np.resize(["f", "m"], 90)})
    >>> y = pd.DataFrame({"os_time": rng.exponential(np.exp(-covariates["risk"])), "os_event": 1})
    >>> hazard_table(y, "os", covariates)[["covariate", "level", "n"]]
      covariate   level   n
    0      risk  per SD  90
    1       sex       f  45
    2       sex       m  45
    """
    outcome = survival_target(y.loc[covariates.index], endpoint)
    known = ~np.isnan(outcome["time"]) & covariates.notna().all(axis=1).to_numpy()
    outcome, covariates = outcome[known], covariates[known]
    event, time = outcome["event"], outcome["time"]
    rows, blocks = [], []
    for name, values in covariates.items():
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > 2:
            blocks.append([((values - values.mean()) / values.std(ddof=0)).to_numpy(np.float64)])
            rows.append([(name, "per SD", len(values), int(event.sum()))])
        else:
            present = [value for value in levels(values) if (values == value).any()]
            members = [(values == value).to_numpy() for value in present]
            rows.append(
                [(name, str(v), int(m.sum()), int(event[m].sum())) for v, m in zip(present, members, strict=True)]
            )
            blocks.append([member.astype(np.float64) for member in members[1:]])
    fits = [sum(blocks, [])] if adjusted else blocks
    results = []
    for columns in fits:
        if not columns:
            continue
        matrix = np.column_stack(columns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
            ratios = metrics.hazard_ratios(event, time, matrix, level)
        results += list(zip(*ratios, metrics.proportional_hazards_test(event, time, matrix)[1], strict=True))
    answers = iter(results)
    table = []
    for block in rows:
        for k, row in enumerate(block):
            reference = row[1] != "per SD" and k == 0
            values = (1.0, *[np.nan] * 4) if reference else tuple(map(float, next(answers)))
            note = "reference" if reference else "no finite hazard ratio" if np.isnan(values[0]) else ""
            table.append((*row, *values, note))
    columns = ["covariate", "level", "n", "n_events", "hazard_ratio", "low", "high", "p", "p_proportional", "note"]
    return pd.DataFrame(table, columns=columns)


def interaction_table(
    predictions: Mapping[str, Any], y: pd.DataFrame, treatment: pd.Series, *, level: float = 0.95
) -> pd.DataFrame:
    """Hazard ratio of the risk score within each treatment, and the ratio of both with its interval.

    Parameters
    ----------
    predictions : dict
        As in :func:`mmdls.evaluation.evaluate_predictions`; only endpoints are used.
    y : pandas.DataFrame
    treatment : Series
        By patient. With more than two values each is compared with the first in sorted order.
    level : float, default=0.95

    Returns
    -------
    pandas.DataFrame
        Columns task, treatment, n, n_events, hazard_ratio (per standard deviation of the score), low, high,
        interaction (ratio to the first treatment's hazard ratio), interaction_low, interaction_high, p.

    Notes
    -----
    Treatments that were chosen, not randomised, differ in more than the treatment: the table says whether the score
    ranks patients alike under each, not who benefits.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> risk, arm = pd.Series(rng.normal(size=200)), pd.Series(np.repeat(["chemo", "immuno"], 100))
    >>> y = pd.DataFrame({"os_time": rng.exponential(np.exp(-risk)), "os_event": 1})
    >>> interaction_table({"os": risk}, y, arm)[["treatment", "n"]]
      treatment    n
    0     chemo  100
    1    immuno  100
    """
    tasks, rows = check_target(y, list(predictions)), []
    for task, table in predictions.items():
        if tasks[task].kind != "survival":
            continue
        risk = table if isinstance(table, pd.Series) else table["risk"]
        outcome, arm = survival_target(y.loc[risk.index], task), treatment.loc[risk.index]
        known = ~np.isnan(outcome["time"]) & arm.notna().to_numpy()
        event, time, arm = outcome["event"][known], outcome["time"][known], arm.to_numpy()[known]
        score = risk.to_numpy(np.float64)[known]
        score = (score - score.mean()) / (score.std() or 1.0)
        arms = sorted(set(arm), key=str)
        for name in arms:
            own, pair = arm == name, (arm == name) | (arm == arms[0])
            row = {"task": task, "treatment": name, "n": int(own.sum()), "n_events": int(event[own].sum())}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
                ratio = metrics.hazard_ratios(event[own], time[own], score[own], level)
                row |= dict(zip(("hazard_ratio", "low", "high"), (float(v[0]) for v in ratio), strict=False))
                if name != arms[0]:
                    second = (arm == name)[pair]
                    test = metrics.interaction_test(event[pair], time[pair], score[pair], second, level)
                    row |= dict(zip(("interaction", "interaction_low", "interaction_high", "p"), test, strict=True))
            rows.append(row)
    columns = ["task", "treatment", "n", "n_events", "hazard_ratio", "low", "high"]
    columns += ["interaction", "interaction_low", "interaction_high", "p"]
    return pd.DataFrame(rows).reindex(columns=columns)

"""Hazard ratios of covariates, and their interaction with treatment."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmdls import metrics
from mmdls.cohort import align_rows, check_target, survival_target
from mmdls.tables._cohort import levels

__all__ = ["hazard_table", "interaction_table"]

_MOST_CODES = 10


def hazard_table(
    y: pd.DataFrame,
    endpoint: str,
    covariates: pd.DataFrame,
    *,
    adjusted: bool = True,
    numbers: Sequence[str] = (),
    confidence_level: float = 0.95,
) -> pd.DataFrame:
    """Hazard ratios of covariates: numbers per standard deviation, categories by dummies against the first level.

    Parameters
    ----------
    y : pandas.DataFrame
        Joined to the covariates by patient id.
    endpoint : str
    covariates : pandas.DataFrame
        For example the predicted risk, the risk group, stage and age; patients with a missing value are left out.
        Whole numbers with at most ten different values (risk groups, stages, ECOG) are treated as group codes, with a
        warning; make them categorical, or name them in ``numbers``.
    adjusted : bool, default=True
        One Cox model of all covariates (Efron ties, Wald intervals); otherwise one model each.
    numbers : sequence of str, default=()
        Covariates with few whole numbers that are numeric nevertheless, such as counts: ratios per standard deviation.
    confidence_level : float, default=0.95

    Returns
    -------
    pandas.DataFrame
        Columns covariate, level, n, n_events, hazard_ratio, low, high, p, p_proportional (Grambsch-Therneau test that
        the ratio is the same over time), note. A level without events has no finite ratio, as its note says; the
        other ratios are the limits, as if its patients were not in the risk sets.

    Raises
    ------
    TypeError
        If ``covariates`` is no DataFrame.
    ValueError
        If ``numbers`` names other columns.

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
    if not isinstance(covariates, pd.DataFrame):
        raise TypeError(f"covariates must be a DataFrame, one column each; got {type(covariates).__name__}.")
    unknown = [name for name in numbers if name not in covariates]
    if isinstance(numbers, str) or unknown:
        raise ValueError(f"numbers must list columns of covariates, {list(covariates)}; got {numbers!r}.")
    outcome = survival_target(align_rows(y, covariates.index, "y"), endpoint)
    covariates = covariates.infer_objects()
    _refuse_unread(covariates)
    known = ~np.isnan(outcome["time"]) & covariates.notna().all(axis=1).to_numpy()
    outcome, covariates = outcome[known], covariates[known]
    event, time = outcome["event"], outcome["time"]
    rows, blocks = [], []
    codes = [name for name, values in covariates.items() if name not in numbers and _are_codes(values)]
    if codes:
        warnings.warn(
            f"{codes} hold few whole numbers and are treated as groups, compared with the first. Name them in numbers= "
            "for a ratio per standard deviation, or make them categorical.",
            stacklevel=2,
        )
    for name, values in covariates.items():
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > 2 and name not in codes:
            values = values.astype(np.float64)
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
            ratios = metrics.hazard_ratios(event, time, matrix, confidence_level)
        results += list(zip(*ratios, metrics.proportional_hazards_test(event, time, matrix)[1], strict=True))
    answers = iter(results)
    table = []
    for block in rows:
        for k, row in enumerate(block):
            reference = row[1] != "per SD" and k == 0
            values = (1.0, *[np.nan] * 4) if reference else tuple(map(float, next(answers)))
            note = "reference" if reference else ""
            if np.isnan(values[0]):
                lacking = row if not row[3] else block[0] if not block[0][3] else None
                note = "no finite hazard ratio" + (f": no event in {lacking[1]}" if lacking else "")
            table.append((*row, *values, note))
    columns = ["covariate", "level", "n", "n_events", "hazard_ratio", "low", "high", "p", "p_proportional", "note"]
    return pd.DataFrame(table, columns=columns)


def _refuse_unread(covariates: pd.DataFrame) -> None:
    """Refuse dates and numbers as text, which would give one group for each value, columns of nothing, and infinity."""
    for name, values in covariates.items():
        kind = values.dropna()
        if not len(kind) and len(values):
            raise ValueError(f"covariates: {name!r} holds no value, so that no patient has all covariates; drop it.")
        if isinstance(values.dtype, pd.CategoricalDtype) or pd.api.types.is_numeric_dtype(values) or not len(kind):
            if pd.api.types.is_numeric_dtype(kind) and (bad := ~np.isfinite(kind.to_numpy(np.float64))).any():
                raise ValueError(
                    f"covariates: {name!r} is infinite for the patients {list(kind.index[bad][:3])}; give a finite "
                    "number, or NaN if unknown."
                )
            continue
        if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
            raise ValueError(f"covariates: {name!r} holds dates or spans of time; give a number, such as years.")
        numbers = pd.to_numeric(kind.astype(str).str.replace(",", "."), errors="coerce").notna()
        if kind.nunique() > _MOST_CODES and numbers.mean() > 0.5:
            raise ValueError(
                f"covariates: {name!r} holds numbers as text, such as {kind.iloc[0]!r}, and would become a group for "
                f"each of {kind.nunique()} values. Convert it (pandas.to_numeric), or make it categorical."
            )


def _are_codes(values: pd.Series) -> bool:
    """Whether numbers look like codes of groups: whole, and few different ones."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return False
    different = values.dropna().unique().astype(np.float64)
    return 2 < len(different) <= _MOST_CODES and bool((different == np.round(different)).all())


def interaction_table(
    predictions: Mapping[str, Any], y: pd.DataFrame, treatment: pd.Series, *, confidence_level: float = 0.95
) -> pd.DataFrame:
    """Hazard ratio of the risk score within each treatment, and the interaction of score and treatment.

    Parameters
    ----------
    predictions : dict
        As in :func:`mmdls.evaluation.evaluate_predictions`; only endpoints are used.
    y : pandas.DataFrame
    treatment : Series or array of shape (n_patients,)
        Joined by patient id; an array has the rows of the predictions. With more than two values each is compared with
        the first in sorted order, or in that of a categorical. Patients of unknown treatment are left out.
    confidence_level : float, default=0.95

    Returns
    -------
    pandas.DataFrame
        Columns task, treatment, n, n_events, hazard_ratio (per standard deviation of the score), low, high,
        interaction (ratio to the first treatment's hazard ratio), interaction_low, interaction_high, p.

    Notes
    -----
    Without randomisation, treatment groups differ in more than the treatment. The table shows whether the score ranks
    patients equally well under each treatment, not who benefits from it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> risk, treatment = pd.Series(rng.normal(size=200)), pd.Series(np.repeat(["chemo", "immuno"], 100))
    >>> y = pd.DataFrame({"os_time": rng.exponential(np.exp(-risk)), "os_event": 1})
    >>> interaction_table({"os": risk}, y, treatment)[["treatment", "n"]]
      treatment    n
    0     chemo  100
    1    immuno  100
    """
    tasks, rows = check_target(y, list(predictions)), []
    for task, table in predictions.items():
        if tasks[task].estimator_type != "survival":
            continue
        risk = table if isinstance(table, pd.Series) else table["risk"]
        outcome = survival_target(align_rows(y, risk.index, "y"), task)
        taken = pd.Series(align_rows(treatment, risk.index, "treatment"))
        given = np.asarray(taken)
        known = ~np.isnan(outcome["time"]) & ~pd.isna(given)
        event, time, given = outcome["event"][known], outcome["time"][known], given[known]
        score = risk.to_numpy(np.float64)[known]
        score = (score - score.mean()) / (score.std() or 1.0)
        first, *others = [value for value in levels(taken) if (given == value).any()]
        for name in (first, *others):
            own, pair = given == name, (given == name) | (given == first)
            row = {"task": task, "treatment": name, "n": int(own.sum()), "n_events": int(event[own].sum())}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
                ratio = metrics.hazard_ratios(event[own], time[own], score[own], confidence_level)
                row |= dict(zip(("hazard_ratio", "low", "high"), (float(v[0]) for v in ratio), strict=False))
                if name != first:
                    second = (given == name)[pair]
                    test = metrics.interaction_test(event[pair], time[pair], score[pair], second, confidence_level)
                    row |= dict(zip(("interaction", "interaction_low", "interaction_high", "p"), test, strict=True))
            rows.append(row)
    columns = ["task", "treatment", "n", "n_events", "hazard_ratio", "low", "high"]
    columns += ["interaction", "interaction_low", "interaction_high", "p"]
    return pd.DataFrame(rows).reindex(columns=columns)

"""Tables of a paper: who the patients are, hazard ratios, subgroups, added value, treatment interaction."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import chi2, norm, t
from sklearn.linear_model import LogisticRegression

from mmdls import metrics
from mmdls.cohort import check_target, find_tasks, survival_target
from mmdls.evaluation import compare, evaluate_predictions
from mmdls.metrics import holm_correction

__all__ = ["added_value", "describe_cohort", "hazard_table", "interaction_table", "pooled_value", "subgroups"]

_SUPPRESSED = "suppressed: fewer than {0} patients or {1} events"


def describe_cohort(
    X: pd.DataFrame, y: pd.DataFrame, by: Any = None, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Table 1: what the patients are like, what is missing, how long they were followed.

    Parameters
    ----------
    X, y : pandas.DataFrame
        A cohort.
    by : Series or array of shape (n_patients,), default=None
        One column of the table for each value, for example the centre or the split, beside that of all patients.
    columns : sequence of str, default=None
        Of ``X``; None means all that are neither images, masks nor radiomics.

    Returns
    -------
    pandas.DataFrame
        Text, indexed by variable and level: median [quartiles] of numbers, count (%) of categories, count (%) of
        missing values, events and median follow-up (reverse Kaplan-Meier) of endpoints.

    Examples
    --------
    >>> X = pd.DataFrame({"clinical_age": [60, 70, 80], "clinical_sex": ["f", "m", None]})
    >>> y = pd.DataFrame({"os_time": [9.0, 20.0, 30.0], "os_event": [1, 0, 0]})
    >>> describe_cohort(X, y)["all"].to_dict()[("clinical_age", "median [quartiles]")]
    '70 [65, 75]'
    """
    if columns is None:
        skipped = ("_image", "_mask")
        columns = [c for c in X.columns if not str(c).endswith(skipped) and not str(c).startswith("radiomics_")]
    parts: dict[str, Any] = {"all": np.ones(len(X), dtype=bool)}
    if by is not None:
        by = pd.Series(np.asarray(by), index=X.index)
        parts |= {str(value): (by == value).to_numpy() for value in sorted(by.dropna().unique(), key=str)}
    return pd.DataFrame({name: _description(X[list(columns)], y, rows) for name, rows in parts.items()}).fillna(
        "0 (0%)"
    )


def _description(X: pd.DataFrame, y: pd.DataFrame, rows: np.ndarray) -> pd.Series:
    cells = {("patients", ""): f"{rows.sum()}"}
    tasks = find_tasks(y)
    labels = y[[task.name for task in tasks.values() if task.kind != "survival"]]
    for table in (X, labels):
        for name in table.columns:
            whole, values = table[name], table.loc[rows, name]
            if pd.api.types.is_numeric_dtype(whole) and whole.nunique() > 2:
                low, middle, high = (
                    np.nanquantile(values.astype(float), [0.25, 0.5, 0.75]) if values.notna().any() else [np.nan] * 3
                )
                cells[name, "median [quartiles]"] = f"{middle:.3g} [{low:.3g}, {high:.3g}]"
            else:
                for level in levels(whole):
                    cells[name, str(level)] = _count((values == level).sum(), values.notna().sum())
            if whole.isna().any():
                cells[name, "missing"] = _count(values.isna().sum(), rows.sum())
    for task in tasks.values():
        if task.kind == "survival":
            outcome = survival_target(y.loc[rows], task.name)
            known = ~np.isnan(outcome["time"])
            cells[task.name, "events"] = _count(outcome["event"][known].sum(), known.sum())
            follow_up = (
                metrics.median_follow_up(outcome["event"][known], outcome["time"][known]) if known.any() else np.nan
            )
            cells[task.name, "median follow-up, months"] = "not reached" if np.isnan(follow_up) else f"{follow_up:.1f}"
            if np.isnan(survival_target(y, task.name)["time"]).any():
                cells[task.name, "missing"] = _count((~known).sum(), rows.sum())
    return pd.Series(cells)


def levels(values: pd.Series) -> list[Any]:
    """The values of a grouping in their order."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return list(values.cat.categories)
    return sorted(values.dropna().unique(), key=str)


def _count(n: int, of: int) -> str:
    return f"{n} ({n / of:.0%})" if of else "0"


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


def subgroups(
    predictions: Mapping[str, Any],
    y: pd.DataFrame,
    groups: pd.DataFrame,
    *,
    metrics: Sequence[str] = ("concordance_index", "auc"),
    min_patients: int = 20,
    min_events: int = 10,
    **options: Any,
) -> pd.DataFrame:
    """Metrics within subgroups, where small ones are suppressed.

    Parameters
    ----------
    predictions, y
        As in :func:`mmdls.evaluation.evaluate_predictions`.
    groups : pandas.DataFrame
        One column a grouping (sex, age, smoking, centre, stage, treatment, ...), rows as in ``y``. Numbers with more
        than five values are cut at their median.
    metrics : sequence of str, default=("concordance_index", "auc")
    min_patients, min_events : int, default=20 and 10
        Below them nothing of a subgroup is shown, neither values nor counts; for a class task an event is a patient
        outside the first class, and those inside must be as many.
    **options
        To :func:`mmdls.evaluation.evaluate_predictions`.

    Returns
    -------
    pandas.DataFrame
        Columns group, level and those of :func:`mmdls.evaluation.evaluate`; the level "all" comes first.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> risk = pd.Series(rng.normal(size=80))
    >>> y = pd.DataFrame({"os_time": rng.exponential(np.exp(-risk)), "os_event": 1})
    >>> groups = pd.DataFrame({"sex": ["f"] * 70 + ["m"] * 10})
    >>> subgroups({"os": risk}, y, groups, n_resamples=0, horizons=())[["group", "level", "n"]]
      group level   n
    0   all   all  80
    1   sex     f  70
    2   sex     m  <NA>
    """
    tables = [("all", "all", np.ones(len(groups), dtype=bool))]
    for name, values in groups.items():
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > 5:
            middle = values.median()
            tables += [(name, f"up to {middle:g}", values <= middle), (name, f"above {middle:g}", values > middle)]
        else:
            tables += [(name, str(value), values == value) for value in levels(values)]
    tasks, rows = check_target(y, list(predictions)), []
    for group, level, member in tables:
        inside = groups.index[np.asarray(member)]
        for task, predicted in predictions.items():
            if group == task:
                continue
            chosen = predicted.loc[predicted.index.isin(inside)]
            if _is_small(tasks[task], y.loc[chosen.index], min_patients, min_events):
                kinds = [m for m in metrics if (m == "auc") != (tasks[task].kind == "survival")]
                note = _SUPPRESSED.format(min_patients, min_events)
                rows += [{"group": group, "level": level, "task": task, "metric": m, "note": note} for m in kinds]
                continue
            table = evaluate_predictions({task: chosen}, y, **options)
            table = table[table["metric"].isin(metrics)]
            rows += [{"group": group, "level": level, **row} for row in table.to_dict("records")]
    columns = ["group", "level", "task", "metric", "horizon", "value", "low", "high", "n", "n_events", "note"]
    return pd.DataFrame(rows, columns=columns).astype({"n": "Int64", "n_events": "Int64"})


def _is_small(task: Any, y: pd.DataFrame, min_patients: int, min_events: int) -> bool:
    if task.kind == "survival":
        outcome = survival_target(y, task.name)
        known = ~np.isnan(outcome["time"])
        return known.sum() < min_patients or outcome["event"][known].sum() < min_events
    counts = y[task.name].value_counts().reindex(task.classes, fill_value=0)
    return counts.sum() < min_patients or counts.min() < min_events


def pooled_value(values: Any, low: Any, high: Any, level: float = 0.95) -> dict[str, float]:
    """Random-effects mean of one metric over centres, with the interval in which a new centre is expected.

    Works on the scale of log odds, as C-index and AUC are shares; standard errors come from the intervals.

    Parameters
    ----------
    values, low, high : array of shape (k,)
        A metric between 0 and 1 and its interval, by centre; centres with NaN are left out.
    level : float, default=0.95
        Of the given and of the returned intervals.

    Returns
    -------
    dict
        ``value``, ``low``, ``high``, ``predicted_low``, ``predicted_high`` (Student t with k - 2 degrees of freedom;
        NaN below 3 centres), ``heterogeneity`` (standard deviation between centres, log odds), ``n_centres``.

    References
    ----------
    .. [1] DerSimonian R, Laird N. Meta-analysis in clinical trials. Controlled Clinical Trials, 1986.
    .. [2] Snell KIE et al. Meta-analysis of prediction model performance across multiple studies: which scale helps
       ensure between-study normality for the C-statistic? Statistical Methods in Medical Research, 2018.

    Examples
    --------
    >>> pooled = pooled_value([0.7, 0.7, 0.7], [0.6, 0.6, 0.6], [0.8, 0.8, 0.8])
    >>> round(pooled["value"], 3), pooled["heterogeneity"], bool(pooled["low"] > 0.6)
    (0.7, 0.0, True)
    """
    values, low, high = (np.asarray(a, dtype=np.float64) for a in (values, low, high))
    known = ~np.isnan(values + low + high) & (low < high)
    with np.errstate(divide="ignore"):
        effect = logit(values[known])
        error = (logit(high[known]) - logit(low[known])) / (2 * norm.ppf((1 + level) / 2))
    finite = np.isfinite(effect) & np.isfinite(error)
    effect, error = effect[finite], error[finite]
    k = len(effect)
    nothing = dict.fromkeys(("value", "low", "high", "predicted_low", "predicted_high", "heterogeneity"), float("nan"))
    if not k:
        return nothing | {"n_centres": 0}
    weight = error**-2.0
    fixed = (weight * effect).sum() / weight.sum()
    excess = (weight * (effect - fixed) ** 2).sum() - (k - 1)
    between = max(0.0, excess / (weight.sum() - (weight**2).sum() / weight.sum())) if k > 1 else 0.0
    weight = 1 / (error**2 + between)
    mean, spread = (weight * effect).sum() / weight.sum(), weight.sum() ** -0.5
    margin = norm.ppf((1 + level) / 2) * spread
    new = t.ppf((1 + level) / 2, k - 2) * np.sqrt(between + spread**2) if k > 2 else float("nan")
    shares = expit([mean, mean - margin, mean + margin, mean - new, mean + new])
    return dict(zip(nothing, [*map(float, shares), float(np.sqrt(between))], strict=True)) | {"n_centres": k}


def added_value(
    models: Mapping[str, Mapping[str, Any]],
    y: pd.DataFrame,
    *,
    metrics: Sequence[str] = ("concordance_index", "integrated_brier_score", "integrated_prediction_accuracy", "auc"),
    **options: Any,
) -> pd.DataFrame:
    """What each model adds to the one before it: differences of metrics, and likelihood-ratio tests.

    Parameters
    ----------
    models : dict of predictions
        From the smallest to the largest, for example stage, clinical, with PET, with images; each as in
        :func:`mmdls.evaluation.evaluate_predictions`. Predictions for patients that no model has learned from.
    y : pandas.DataFrame
    metrics : sequence of str
    **options
        To :func:`mmdls.evaluation.compare`.

    Returns
    -------
    pandas.DataFrame
        Columns task, model, metric, horizon, value, gain (over the model before), low, high, p, p_holm (within each
        task), n, note. Rows of metric ``likelihood_ratio`` give as value the chi-squared statistic of adding this
        model's score to the earlier one's in a Cox (logistic) model, as gain the share of that model's likelihood
        that the earlier score alone does not have.

    References
    ----------
    .. [1] Harrell FE. Regression modeling strategies, 2nd edition, section 9.8.4 (adequacy index). Springer, 2015.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 120))
    >>> y = pd.DataFrame({"os_time": rng.exponential(np.exp(-a - b)), "os_event": 1})
    >>> models = {"stage": {"os": pd.Series(a)}, "all": {"os": pd.Series(a + b)}}
    >>> added_value(models, y, n_resamples=100, horizons=())[["model", "metric", "gain"]].round(2)
       model             metric  gain
    0  stage  concordance_index   NaN
    1    all  concordance_index  0.09
    2    all   likelihood_ratio  0.67
    """
    names, rows = list(models), []
    first = evaluate_predictions(models[names[0]], y, **{**options, "n_resamples": 0})
    for row in first[first["metric"].isin(metrics)].to_dict("records"):
        rows.append({**row, "model": names[0], "low": np.nan, "high": np.nan})
    for before, name in zip(names, names[1:], strict=False):
        table = compare(models[name], models[before], y, metrics=metrics, **options)
        table = table.rename(columns={"first": "value", "difference": "gain"})
        rows += [{**row, "model": name} for row in table.to_dict("records")]
        for task in (task for task in models[name] if task in models[before]):
            rows.append(
                {"task": task, "model": name, **_likelihood_ratio(models[before][task], models[name][task], y, task)}
            )
    columns = ["task", "model", "metric", "horizon", "value", "gain", "low", "high", "p", "p_holm", "n", "note"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    order = list(dict.fromkeys(table["task"]))
    table = table.sort_values("task", key=lambda t: t.map(order.index), kind="stable", ignore_index=True)
    for task in order:
        own = table["task"] == task
        table.loc[own, "p_holm"] = holm_correction(table.loc[own, "p"])
    table["note"] = table["note"].fillna("")
    return table


def _likelihood_ratio(smaller: Any, larger: Any, y: pd.DataFrame, task: str) -> dict[str, Any]:
    """Chi-squared of the larger model's score beside the smaller's, and its share of the likelihood of both."""
    index = smaller.index.intersection(larger.index)
    smaller, larger, y = smaller.loc[index], larger.loc[index], y.loc[index]
    row = {"metric": "likelihood_ratio", "note": ""}
    if find_tasks(y)[task].kind == "survival":
        outcome = survival_target(y, task)
        known = ~np.isnan(outcome["time"])
        scores = [(t if isinstance(t, pd.Series) else t["risk"]).to_numpy(np.float64)[known] for t in (smaller, larger)]
        event, time = outcome["event"][known], outcome["time"][known]
        one = metrics.cox_regression(event, time, scores[0])
        two = metrics.cox_regression(event, time, np.column_stack(scores))
        alone, both = (2 * (fit.log_likelihood - fit.null_log_likelihood) for fit in (one, two))
        n, added = int(known.sum()), 1
    else:
        known = y[task].notna().to_numpy()
        labels = y.loc[known, task].astype(str).to_numpy()
        classes, labels = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            return row | {"note": "only one class"}
        scores = [_log_odds(table[known]) for table in (smaller, larger)]
        alone, both = (_logistic_statistic(np.column_stack(s), labels) for s in (scores[:1], scores))
        n, added = int(known.sum()), scores[1].shape[1] * (len(classes) - 1)
    if not np.isfinite(both - alone):
        return row | {"n": n, "note": "the two scores are the same or the regression has no finite maximum"}
    statistic = max(both - alone, 0.0)
    return row | {"value": statistic, "gain": statistic / both, "p": float(chi2.sf(statistic, added)), "n": n}


def _log_odds(probability: pd.DataFrame) -> np.ndarray:
    """Log odds of every class against the first."""
    values = np.log(np.clip(probability.to_numpy(np.float64), 1e-6, 1.0))
    return values[:, 1:] - values[:, :1]


def _logistic_statistic(scores: np.ndarray, labels: np.ndarray) -> float:
    """Twice the gain in log-likelihood over the class frequencies."""
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-12)
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(scores, labels)
    own = model.predict_log_proba(scores)[np.arange(len(labels)), labels].sum()
    share = np.bincount(labels) / len(labels)
    return float(2 * (own - np.log(share)[labels].sum()))


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

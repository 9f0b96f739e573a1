"""Tables: hazard ratios against closed counts, suppression, nested models, random effects."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, fisher_exact, mannwhitneyu
from sklearn.linear_model import LogisticRegression

from mmdls import metrics
from mmdls.tables import (
    added_value,
    describe_cohort,
    hazard_table,
    interaction_table,
    random_effects_summary,
    subgroups,
)


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    n = 240
    X = pd.DataFrame({"clinical_age": rng.normal(65, 9, n), "clinical_sex": rng.choice(["f", "m"], n)})
    X["centre"] = rng.choice(["A", "B", "C"], n, p=[0.6, 0.35, 0.05])
    X.index = [f"p{i}" for i in range(n)]
    X.loc[X.index[:12], "clinical_sex"] = None
    signal = rng.normal(size=n)
    true, leaving = rng.exponential(40 * np.exp(-signal)), rng.uniform(6, 110, n)
    y = pd.DataFrame({"os_time": np.minimum(true, leaving), "os_event": (true <= leaving).astype(int)}, index=X.index)
    y["subtype"] = np.where(signal + rng.normal(size=n) > 0, "LUSC", "LUAD")
    noise = rng.normal(size=n)
    models = {}
    for name, score in (("stage", 0.5 * signal + noise), ("all", signal)):
        share = 1 / (1 + np.exp(-score))
        models[name] = {
            "os": pd.Series(score, index=X.index),
            "subtype": pd.DataFrame({"LUAD": 1 - share, "LUSC": share}, index=X.index),
        }
    return X, y, models


def test_table_one_counts_every_patient_once(cohort):
    X, y, _ = cohort
    table = describe_cohort(X, y, X["centre"])
    counts = table.loc[("patients", "")].astype(int)
    assert counts["all"] == counts[["A", "B", "C"]].sum() == 240
    cells = table.loc["clinical_sex", "all"].str.split().str[0].astype(int)
    assert cells.sum() == 240 and cells["missing"] == 12
    low, middle, high = np.quantile(X.loc[X["centre"] == "A", "clinical_age"], [0.25, 0.5, 0.75])
    assert table.loc[("clinical_age", "median [quartiles]"), "A"] == f"{middle:.1f} [{low:.1f}, {high:.1f}]"
    events = y["os_event"].sum()
    assert table.loc[("os", "events"), "all"] == f"{events} ({events / 240:.0%})"
    follow_up = metrics.median_follow_up(y["os_event"], y["os_time"])
    assert table.loc[("os", "median follow-up, months"), "all"] == f"{follow_up:.1f}"


def test_tests_of_table_one_fit_the_kind_of_variable(cohort):
    X, y, _ = cohort
    rng = np.random.default_rng(1)
    late = np.arange(len(X)) >= 150
    X = X.assign(
        clinical_age=X["clinical_age"] + 9 * late,
        clinical_rare=np.where(rng.random(len(X)) < 0.02, "yes", "no"),
        clinical_code=rng.choice(["a", "b", "c", "d"], len(X), p=[0.96, 0.02, 0.01, 0.01]),
        clinical_same="x",
    )
    y = y.assign(grade=np.resize([1, 2, 3], len(X)), death_time=y["os_time"], death_cause=y["os_event"])
    part = pd.Series(np.where(late, "late", "early"), X.index).mask(np.arange(len(X)) < 5)
    table = describe_cohort(X, y, part, tests=True)
    found = {name: row for (name, _), row in table[table["test"] != ""][["p", "test"]].iterrows()}
    early = (part == "early").to_numpy()
    sex = pd.crosstab(X["clinical_sex"], part).to_numpy()
    expected = {
        "clinical_age": (mannwhitneyu(X["clinical_age"][early], X["clinical_age"][late]).pvalue, "Mann-Whitney"),
        "clinical_sex": (chi2_contingency(sex, correction=False).pvalue, "chi-squared"),
        "clinical_rare": (fisher_exact(pd.crosstab(X["clinical_rare"], part)).pvalue, "Fisher's exact"),
        "grade": (chi2_contingency(pd.crosstab(y["grade"], part), correction=False).pvalue, "chi-squared"),
        "os": (logrank(y, early, late), "log-rank"),
    }
    assert found["clinical_age"]["p"] == "< .001"
    for name, (p, test) in expected.items():
        assert found[name]["test"] == test
        assert found[name]["p"] == ("< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")), name
    assert found["clinical_code"]["test"] == "chi-squared, permuted" and "clinical_same" not in found
    assert "death" not in found and "p" not in describe_cohort(X, y, part)
    three = describe_cohort(X, y, X["centre"], tests=True)
    assert three.loc["clinical_age", "test"].iloc[0] == "Kruskal-Wallis"


def logrank(y, *groups):
    rows = np.logical_or.reduce(groups)
    return metrics.logrank_test(y["os_event"][rows], y["os_time"][rows], groups[0][rows])[1]


def test_numbers_of_table_one_are_short_and_levels_can_be_read():
    X = pd.DataFrame({"clinical_volume": [12345.678, 23456.7, 34567.8], "clinical_dose": [0.01234, 0.02, 0.03]})
    X["clinical_age"], X["clinical_grade"], X["clinical_smoker"] = [60, 70, 80], [1.0, 2.0, None], [True, False, True]
    y = pd.DataFrame({"os_time": [9.0, 20.0, None], "os_event": [1, 1, None]})
    cells = describe_cohort(X, y)["all"]
    assert cells["clinical_volume", "median [quartiles]"] == "23457 [17901, 29012]"
    assert cells["clinical_dose", "median [quartiles]"] == "0.0200 [0.0162, 0.0250]"
    assert cells["clinical_age", "median [quartiles]"] == "70 [65, 75]"
    assert list(cells["clinical_grade"].index) == ["1", "2", "missing"]
    assert list(cells["clinical_smoker"].index) == ["no", "yes"]
    assert cells["os"].to_dict() == {
        "events": "2 (67%)",
        "median, months [95 % interval]": "14.5 [9.0, not reached]",
        "median follow-up, months": "not reached",
        "missing": "1 (33%)",
    }


def test_classes_that_are_numbers_are_counted(cohort):
    X, y, _ = cohort
    grade = pd.Series(np.resize([1.0, 2.0, 3.0, 3.0, np.nan], len(X)), X.index)
    table = describe_cohort(X, y.assign(grade=grade))
    assert table["all"]["grade"].to_dict() == {
        "1": "48 (20%)",
        "2": "48 (20%)",
        "3": "96 (40%)",
        "missing": "48 (20%)",
    }


def test_hazard_ratios_are_per_standard_deviation_and_against_the_first_level(cohort):
    X, y, models = cohort
    covariates = pd.DataFrame({"risk": models["all"]["os"] * 7 + 3, "sex": X["clinical_sex"]})
    table = hazard_table(y, "os", covariates)
    assert list(table["level"]) == ["per SD", "f", "m"] and table["n"][0] == 228
    assert table["hazard_ratio"][1] == 1.0 and table["note"][1] == "reference"
    known = covariates["sex"].notna()
    x = covariates.loc[known, "risk"]
    matrix = np.column_stack([(x - x.mean()) / x.std(ddof=0), covariates.loc[known, "sex"] == "m"])
    ratio, low, high, p = metrics.hazard_ratios(y.loc[known, "os_event"], y.loc[known, "os_time"], matrix)
    for column, values in (("hazard_ratio", ratio), ("low", low), ("high", high), ("p", p)):
        np.testing.assert_allclose(table.loc[[0, 2], column], values)
    alone = hazard_table(y, "os", covariates, adjusted=False)
    assert alone["hazard_ratio"][0] != table["hazard_ratio"][0]


def test_small_subgroups_show_nothing(cohort):
    X, y, models = cohort
    options = {"n_resamples": 20, "horizons": ()}
    table = subgroups(models["all"], y, X[["centre", "clinical_age"]], **options)
    small = table[table["level"] == "C"]
    assert len(small) == 2 and small[["value", "low", "high", "n", "n_events"]].isna().all(axis=None)
    assert set(small["note"]) == {"suppressed (n < 20)"}
    small = subgroups(models["all"], y, X[["centre"]], min_patients=5, min_events=80, **options)
    notes = dict(zip(small["level"] + small["task"], small["note"], strict=True))
    assert notes["Cos"] == "suppressed (events < 80)" and notes["Csubtype"] == "suppressed (smallest class < 80)"
    shown = table[table["note"] == ""]
    assert (shown["n_events"] >= 10).all() and shown["value"].notna().all()
    ages = shown[(shown["group"] == "clinical_age") & (shown["task"] == "os")]
    assert ages["n"].sum() == 240 and len(ages) == 2
    assert list(ages["level"]) == [f"{side} {X['clinical_age'].median():.3g}" for side in ("up to", "above")]
    few = pd.DataFrame({"few": np.where(np.arange(240) < 60, "x", "y")}, index=X.index)
    y = y.copy()
    y.loc[y.index[:60], ["os_event", "subtype"]] = 0, "LUAD"
    y.loc[y.index[:9], ["os_event", "subtype"]] = 1, "LUSC"
    table = subgroups(models["all"], y, few, **options)
    assert table.query("level == 'x'")["n"].isna().all() and table.query("level == 'y'")["n"].notna().all()
    y.loc[y.index[9], ["os_event", "subtype"]] = 1, "LUSC"
    assert subgroups(models["all"], y, few, **options).query("level == 'x'")["n"].notna().all()


def test_a_subgroup_is_the_cohort_cut_down(cohort):
    X, y, models = cohort
    table = subgroups(models["all"], y, X[["centre", "clinical_age"]], n_resamples=0, horizons=())
    shown = table[table["note"] == ""]
    inside = X["centre"] == "B"
    value = metrics.concordance_index(y[inside]["os_event"], y[inside]["os_time"], models["all"]["os"][inside])
    assert shown.query("level == 'B' and task == 'os'")["value"].item() == pytest.approx(value)


def test_added_value_finds_what_is_added(cohort):
    _, y, models = cohort
    options = {"n_resamples": 200, "horizons": ()}
    table = added_value(models, y, external=True, **options).set_index(["task", "model", "metric"])
    for key in (("os", "all", "concordance_index"), ("subtype", "all", "auc")):
        assert table.loc[key, "gain"] > 0 and table.loc[key, "p"] < 0.05 and table.loc[key, "low"] > 0
    for task in ("os", "subtype"):
        row = table.loc[(task, "all", "likelihood_ratio")]
        assert row["p"] < 1e-4 and 0 < row["gain"] <= 1 and row["p_holm"] >= row["p"] and row["note"] == ""
    same = added_value(
        {"one": models["all"], "two": models["all"]}, y, external=True, metrics=(), n_resamples=0, horizons=()
    )
    assert (same["note"] != "").any() or (same["p"].dropna() > 0.9).all()


def test_a_likelihood_ratio_needs_scores_of_patients_that_nobody_learned_from(cohort):
    _, y, models = cohort
    table = added_value(models, y, n_resamples=50, horizons=())
    assert "likelihood_ratio" not in set(table["metric"]) and table["p"].notna().any()


def nested(n, rng, kind):
    """A score a, another u, and outcomes that depend on both."""
    a, u = rng.normal(size=(2, n))
    if kind == "os":
        true, leaving = rng.exponential(20 * np.exp(-a - 0.5 * u)), rng.uniform(5, 90, n)
        y = pd.DataFrame({"os_time": np.minimum(true, leaving), "os_event": (true <= leaving).astype(int)})
        return a, u, y, lambda score: {"os": pd.Series(score)}
    share = 1 / (1 + np.exp(-a - 0.5 * u))
    y = pd.DataFrame({"subtype": np.where(rng.random(n) < share, "LUSC", "LUAD")})

    def table(score):
        return {"subtype": pd.DataFrame({"LUAD": 1 / (1 + np.exp(score)), "LUSC": 1 / (1 + np.exp(-score))})}

    return a, u, y, table


@pytest.mark.parametrize("kind", ["os", "subtype"])
def test_a_worse_model_never_gains(kind):
    """A score that helps only when it is turned round adds nothing, and no worse model has a positive gain."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, u, y, table = nested(300, rng, kind)
        options = {"external": True, "metrics": (), "n_resamples": 0, "horizons": ()}
        for worse in (a - 0.5 * u, 0.1 * u - a, rng.normal(size=300)):
            row = added_value({"before": table(a), "worse": table(worse)}, y, **options).iloc[-1]
            assert row["metric"] == "likelihood_ratio" and row["gain"] < 0
        row = added_value({"before": table(a), "turned": table(a - 0.5 * u)}, y, **options).iloc[-1]
        assert row["value"] == 0 and row["p"] == 1.0
        row = added_value({"before": table(a), "other": table(u)}, y, **options).iloc[-1]
        assert row["gain"] < 0 and row["p"] < 0.05 and "not better alone" in row["note"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["os", "subtype"])
def test_the_likelihood_ratio_of_external_scores_keeps_its_level(kind):
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(200):
        a, _, y, table = nested(150, rng, kind)
        models = {"one": table(a), "two": table(a + rng.normal(size=150))}
        if kind == "os":
            y = y.assign(os_time=rng.exponential(20 * np.exp(-a)), os_event=1)
        else:
            y = y.assign(subtype=np.where(rng.random(150) < 1 / (1 + np.exp(-a)), "LUSC", "LUAD"))
        last = added_value(models, y, external=True, metrics=(), n_resamples=0, horizons=()).iloc[-1]
        p_values.append(last["p"])
    assert np.mean(np.array(p_values) < 0.05) < 0.08


def test_likelihood_ratio_of_endpoints_is_that_of_nested_cox_models(cohort):
    _, y, models = cohort
    table = added_value(models, y, external=True, metrics=(), n_resamples=0, horizons=())
    row = table.query("task == 'os' and metric == 'likelihood_ratio'")
    scores = np.column_stack([models["stage"]["os"], models["all"]["os"]])
    fits = [metrics.cox_regression(y["os_event"], y["os_time"], scores[:, columns]) for columns in ([0], [1], [0, 1])]
    if (fits[2].coefficients > 0).all():
        statistic, p = metrics.likelihood_ratio_test(fits[0], fits[2])
        assert row["value"].item() == pytest.approx(statistic) and row["p"].item() == pytest.approx(p / 2)
    else:  # the score before would be turned round: the largest likelihood with coefficients of at least 0
        statistic = 2 * (fits[1].log_likelihood - fits[0].log_likelihood)
        assert row["value"].item() == pytest.approx(statistic)


def test_the_logistic_likelihood_ratio_is_that_of_an_unpenalised_regression():
    rng = np.random.default_rng(2)
    a, u, y, table = nested(400, rng, "subtype")
    row = added_value({"a": table(a), "b": table(u)}, y, external=True, metrics=(), n_resamples=0, horizons=()).iloc[-1]
    labels, scores = (y["subtype"] == "LUSC").to_numpy(), np.column_stack([a, u])

    def likelihood(columns):
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000).fit(scores[:, columns], labels)
        return fit.predict_log_proba(scores[:, columns])[np.arange(400), labels.astype(int)].sum()

    assert row["value"] == pytest.approx(2 * (likelihood([0, 1]) - likelihood([0])), rel=1e-5)


def test_the_likelihood_ratio_of_three_classes_has_one_coefficient_a_model():
    rng = np.random.default_rng(3)
    logits, noise = rng.normal(size=(2, 300, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    stage = np.array([rng.choice(3, p=row) for row in p])
    y = pd.DataFrame({"stage": pd.Categorical.from_codes(stage, ["I-II", "III", "IV"], ordered=True)})

    def table(values):
        share = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
        return {"stage": pd.DataFrame(share, columns=["I-II", "III", "IV"])}

    options = {"external": True, "metrics": (), "n_resamples": 0, "horizons": ()}
    better = added_value({"before": table(logits + noise), "all": table(logits)}, y, **options).iloc[-1]
    assert better["gain"] > 0 and better["p"] < 1e-4
    worse = added_value({"before": table(logits), "all": table(logits + noise)}, y, **options).iloc[-1]
    assert worse["gain"] < 0


def test_numbers_have_subgroups_and_an_added_value(cohort):
    X, _, _ = cohort
    rng = np.random.default_rng(5)
    truth = rng.normal(size=240)
    y = pd.DataFrame({"fev_value": truth}, X.index)
    models = {
        k: {"fev": pd.DataFrame({"value": truth + s * rng.normal(size=240)}, X.index)}
        for k, s in (("a", 1), ("b", 0.1))
    }
    table = added_value(models, y, external=True, n_resamples=20, horizons=())
    assert list(table["metric"]) == ["r2", "r2", "likelihood_ratio"]
    assert table["gain"].iloc[1] > 0.5 and table["p"].iloc[2] < 1e-9
    table = subgroups(models["b"], y, X[["centre"]], n_resamples=0, horizons=())
    assert list(table["level"]) == ["all", "A", "B", "C"] and set(table["metric"]) == {"r2"}
    assert table["value"].iloc[:3].min() > 0.9 and "suppressed" in table["note"].iloc[-1]


def test_tables_join_by_patient_id(cohort):
    X, y, models = cohort
    shuffled = np.random.default_rng(7).permutation(len(X))
    centre = X["centre"]
    pd.testing.assert_frame_equal(
        describe_cohort(X, y.iloc[shuffled], centre.iloc[shuffled]), describe_cohort(X, y, centre)
    )
    pd.testing.assert_frame_equal(describe_cohort(X, y, centre.to_numpy()), describe_cohort(X, y, centre))
    covariates = pd.DataFrame({"risk": models["all"]["os"], "sex": X["clinical_sex"]})
    pd.testing.assert_frame_equal(hazard_table(y.iloc[shuffled], "os", covariates), hazard_table(y, "os", covariates))
    options = {"n_resamples": 0, "horizons": ()}
    pd.testing.assert_frame_equal(
        subgroups(models["all"], y, X[["centre"]].iloc[shuffled], **options),
        subgroups(models["all"], y, X[["centre"]], **options),
    )
    treatment = pd.Series(np.resize(["a", "b"], 240), y.index)
    pd.testing.assert_frame_equal(
        interaction_table(models["all"], y.iloc[shuffled], treatment.iloc[shuffled]),
        interaction_table(models["all"], y, treatment),
    )
    strangers = centre.rename(index=lambda name: name.replace("p", "q"))
    for call, name in (
        (lambda: describe_cohort(X, y, strangers), "by"),
        (lambda: subgroups(models["all"], y, strangers.to_frame(), **options), "groups"),
        (lambda: interaction_table(models["all"], y, strangers), "treatment"),
        (lambda: hazard_table(y, "os", covariates.rename(index="x{}".format)), "y"),
    ):
        with pytest.raises(ValueError, match=f"{name} lacks 240 of the 240 patients"):
            call()


def test_table_one_shows_those_of_unknown_group(cohort):
    X, y, _ = cohort
    table = describe_cohort(X, y, X["clinical_sex"])
    assert table.loc[("patients", ""), ["f", "m", "missing"]].astype(int).sum() == 240
    assert table.loc[("patients", ""), "missing"] == "12"


@pytest.mark.parametrize("dtype", ["int64", "float64", "Int64", "category", "str"])
def test_codes_of_groups_are_groups(cohort, dtype):
    _, y, models = cohort
    group = pd.qcut(models["all"]["os"], 3, labels=False)
    expected = hazard_table(y, "os", group.map({0: "0", 1: "1", 2: "2"}).to_frame("group"))
    covariates = group.astype(dtype).to_frame("group")
    if dtype in ("category", "str"):
        table = hazard_table(y, "os", covariates)
    else:
        with pytest.warns(UserWarning, match=r"\['group'\] hold few whole numbers and are treated as groups"):
            table = hazard_table(y, "os", covariates)
        per_sd = hazard_table(y, "os", covariates, numbers=["group"])
        assert per_sd["level"].tolist() == ["per SD"]
    pd.testing.assert_frame_equal(table.drop(columns="level"), expected.drop(columns="level"))
    assert table["note"].tolist() == ["reference", "", ""]
    with pytest.raises(ValueError, match="numbers must list columns of covariates"):
        hazard_table(y, "os", covariates, numbers=["age"])


def test_a_level_without_events_leaves_the_adjusted_model(cohort):
    X, y, models = cohort
    level = pd.Series(np.resize(["I", "II", "III"], 240), y.index)
    y = y.assign(os_event=y["os_event"].where(level != "II", 0))
    table = hazard_table(y, "os", pd.DataFrame({"risk": models["all"]["os"], "stage": level})).set_index("level")
    assert np.isnan(table.loc["II", ["hazard_ratio", "low", "high", "p", "p_proportional"]].astype(float)).all()
    assert table.loc["II", "note"] == "no finite hazard ratio: no event in II"
    others = table.loc[["per SD", "III"], ["hazard_ratio", "low", "high", "p", "p_proportional"]]
    assert others.notna().all(axis=None) and (table.loc[["per SD", "III"], "note"] == "").all()
    y = y.assign(os_event=y["os_event"].where(level != "I", 0))
    table = hazard_table(y, "os", pd.DataFrame({"risk": models["all"]["os"], "stage": level})).set_index("level")
    assert table.loc["III", "note"] == "no finite hazard ratio: no event in I" and np.isfinite(table.loc["per SD", "p"])


def test_a_median_that_is_the_largest_value_still_divides(cohort):
    X, y, models = cohort
    ticks = np.where(np.arange(240) < 100, np.arange(240) % 7, 9)
    table = subgroups(models["all"], y, pd.DataFrame({"visits": ticks}, y.index), n_resamples=0, horizons=())
    own = table[(table["group"] == "visits") & (table["task"] == "os")]
    assert own["level"].tolist() == ["below 9", "from 9"] and own["n"].tolist() == [100, 140]


def test_interaction_table_has_the_ratios_within_each_treatment(cohort):
    _, y, models = cohort
    arm = pd.Series(np.resize(["chemo", "immuno", "none"], 240), index=y.index)
    table = interaction_table(models["all"], y, arm)
    assert list(table["treatment"]) == ["chemo", "immuno", "none"] and list(table["n"]) == [80, 80, 80]
    assert table["interaction"].isna().tolist() == [True, False, False]
    score = models["all"]["os"]
    score = (score - score.mean()) / score.std(ddof=0)
    own = arm == "immuno"
    expected = metrics.hazard_ratios(y["os_event"][own], y["os_time"][own], score[own])[0][0]
    assert table["hazard_ratio"][1] == pytest.approx(expected)
    assert (table["interaction_low"][1] < 1 < table["interaction_high"][1]) and table["p"][1] > 0.01


def test_random_effects_are_the_fixed_mean_without_heterogeneity_and_widen_with_it():
    alike = random_effects_summary([0.7] * 4, [0.6, 0.65, 0.6, 0.66], [0.785, 0.745, 0.785, 0.737])
    assert alike["value"] == pytest.approx(0.7) and alike["heterogeneity"] == 0.0
    apart = random_effects_summary([0.6, 0.8, 0.65, 0.75], [0.57, 0.77, 0.62, 0.72], [0.63, 0.83, 0.68, 0.78])
    assert apart["heterogeneity"] > 0.2
    assert apart["predicted_low"] < apart["low"] < apart["value"] < apart["high"] < apart["predicted_high"]
    assert np.isnan(random_effects_summary([0.7, 0.6], [0.6, 0.5], [0.8, 0.7])["predicted_low"])
    assert random_effects_summary([np.nan], [np.nan], [np.nan])["n_centres"] == 0


def test_random_effects_find_the_spread_between_centres():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        error = rng.uniform(0.1, 0.3, 12)
        effect = 0.8 + rng.normal(0, 0.3, 12) + rng.normal(0, error)
        low, value, high = (1 / (1 + np.exp(-effect - k * error)) for k in (-1.959964, 0, 1.959964))
        found.append(random_effects_summary(value, low, high))
    assert np.mean([f["heterogeneity"] for f in found]) == pytest.approx(0.3, abs=0.04)
    true = 1 / (1 + np.exp(-0.8))
    assert 0.87 < np.mean([f["low"] <= true <= f["high"] for f in found]) < 0.98


def test_boolean_classes_are_columns_of_the_likelihood_ratio(cohort):
    _, y, models = cohort
    names = {"LUAD": False, "LUSC": True}
    boolean = {name: {"subtype": given["subtype"].rename(columns=names)} for name, given in models.items()}
    text = {name: {"subtype": given["subtype"]} for name, given in models.items()}
    options = {"external": True, "metrics": ["auc"], "n_resamples": 0}
    found = added_value(boolean, y[["subtype"]] == "LUSC", **options)
    pd.testing.assert_frame_equal(found, added_value(text, y[["subtype"]], **options))


def test_metrics_that_are_none_are_refused_in_all_tables(cohort):
    X, y, models = cohort
    with pytest.raises(ValueError, match="cindex"):
        subgroups(models["all"], y, X[["centre"]], metrics=["cindex"], n_resamples=0)
    with pytest.raises(ValueError, match="cindex"):
        added_value({"all": models["all"]}, y, metrics=["cindex"], n_resamples=0)


def test_numbers_as_text_and_dates_are_no_groups(cohort):
    X, y, _ = cohort
    age = X[["clinical_age"]]
    pd.testing.assert_frame_equal(hazard_table(y, "os", age.astype(object)), hazard_table(y, "os", age))
    with pytest.raises(ValueError, match="clinical_age.*numbers as text"):
        hazard_table(y, "os", age.astype(str))
    with pytest.raises(ValueError, match="day.*dates"):
        hazard_table(y, "os", pd.DataFrame({"day": pd.Timestamp("2020-01-01")}, X.index))


def test_the_first_treatment_is_that_of_the_categories(cohort):
    _, y, models = cohort
    given = pd.Series(np.resize(["new", "standard", "new"], len(y)), y.index)
    ordered = given.astype(pd.CategoricalDtype(["standard", "new", "never given"]))
    table, other = (interaction_table({"os": models["all"]["os"]}, y, t) for t in (ordered, given))
    assert table["treatment"].tolist() == ["standard", "new"]
    assert table["interaction"][1] == pytest.approx(1 / other["interaction"][1])


def test_a_value_named_as_a_column_of_the_description_is_refused(cohort):
    X, y, _ = cohort
    with pytest.raises(ValueError, match="missing"):
        describe_cohort(X, y, by=X["clinical_sex"].where(X["clinical_sex"] != "f", "missing").where(X["centre"] != "A"))


def test_a_standardised_mean_difference_is_that_of_its_formula():
    X = pd.DataFrame({"clinical_age": [1.0, 2, 3, 2, 3, 5], "clinical_sex": ["f", "f", "m", "m", "m", None]})
    X["clinical_same"] = "x"
    y = pd.DataFrame({"os_time": [1.0, 2, 3, 4, 5, 6], "os_event": 1})
    table = describe_cohort(X, y, by=pd.Series(["a", "a", "a", "b", "b", "b"]), smd=True)
    spread = np.sqrt((1 + np.var([2, 3, 5], ddof=1)) / 2)
    assert table.loc[("clinical_age", "median [quartiles]"), "SMD"] == f"{(10 / 3 - 2) / spread:.2f}"
    assert table.loc[("clinical_sex", "f"), "SMD"] == f"{(1 - 1 / 3) / np.sqrt((2 / 9 + 0) / 2):.2f}"
    assert table.loc[("clinical_sex", "m"), "SMD"] == table.loc[("clinical_same", "x"), "SMD"] == ""
    assert table.loc[("clinical_sex", "missing"), "b"] == "1 (33%)"
    assert table.loc[("clinical_sex", "m"), "b"] == "2 (67%)"


@pytest.mark.parametrize("kind", ["string", "boolean", "Int64", "pyarrow"])
def test_a_group_of_nullable_cells_may_be_missing(kind):
    rng = np.random.default_rng(0)
    risk = pd.Series(rng.normal(size=60))
    y = pd.DataFrame({"os_time": rng.exponential(20 * np.exp(-risk)), "os_event": True})
    given = pd.Series(np.resize([1, 0, 1], 60))
    plain = given.astype(object).mask(given.index < 6)
    nullable = given.convert_dtypes(dtype_backend="pyarrow") if kind == "pyarrow" else given.astype(kind)
    found = [
        subgroups({"os": risk}, y, pd.DataFrame({"group": values}), n_resamples=0, min_patients=5)
        for values in (plain, nullable.mask(given.index < 6))
    ]
    pd.testing.assert_frame_equal(*(table.drop(columns="level") for table in found))
    assert found[0]["n"].tolist() == [60, 18, 36]


def test_covariates_that_hold_nothing_or_infinity_are_refused():
    y = pd.DataFrame({"os_time": np.arange(1.0, 31), "os_event": True})
    X = pd.DataFrame({"age": np.arange(30.0)})
    with pytest.raises(ValueError, match=r"'empty' holds no value, so that no patient has all covariates; drop it"):
        hazard_table(y, "os", X.assign(empty=np.nan))
    with pytest.raises(ValueError, match=r"'age' is infinite for the patients \[29\]"):
        hazard_table(y, "os", X.replace(29, np.inf))


NUMBERS = np.arange(60)


@pytest.mark.parametrize(
    "by",
    [NUMBERS / 7, NUMBERS // 2, (NUMBERS / 7).astype(str), pd.Series(NUMBERS / 7, dtype="Float64"), NUMBERS % 6 / 2],
    ids=["fractions", "whole", "texts", "nullable", "few fractions"],
)
def test_a_measurement_is_no_grouping(by):
    X, y = pd.DataFrame({"clinical_age": NUMBERS}), pd.DataFrame({"stage_class": ["a", "b"] * 30})
    with pytest.raises(ValueError, match=r"by holds \d+ different numbers, such as .*: a measurement, and no groups"):
        describe_cohort(X, y, by)
    with pytest.raises(ValueError, match="by holds datetime64, and no groups"):
        describe_cohort(X, y, pd.date_range("2020", periods=60))


@pytest.mark.parametrize(
    "by",
    [
        NUMBERS % 5 / 2,
        NUMBERS % 12,
        NUMBERS % 20,
        pd.cut(NUMBERS / 7, [-1, 3, 9]),
        NUMBERS % 2 == 0,
    ],
    ids=["doses", "centres", "many centres", "intervals", "booleans"],
)
def test_groups_may_be_numbers(by):
    X, y = pd.DataFrame({"clinical_age": NUMBERS}), pd.DataFrame({"stage_class": ["a", "b"] * 30})
    assert describe_cohort(X, y, by).shape[1] == 1 + pd.Series(by).nunique()


def test_columns_of_table_1_are_named_each_once():
    X, y = pd.DataFrame({"clinical_age": NUMBERS}), pd.DataFrame({"stage_class": ["a", "b"] * 30})
    for columns in ("clinical_age", ["clinical_agee"], ["clinical_age", "clinical_age"]):
        with pytest.raises(ValueError, match="columns must be a list of columns of X, each once; got"):
            describe_cohort(X, y, columns=columns)
    with pytest.raises(ValueError, match=r"X has the columns \['clinical_age'\] more than once"):
        describe_cohort(pd.concat([X, X], axis=1), y)
    predicted = {"stage_class": pd.DataFrame({"a": 0.5, "b": 0.5}, index=X.index)}
    with pytest.raises(ValueError, match=r"groups\['dose'\] holds 60 different numbers"):
        subgroups(predicted, y, pd.DataFrame({"dose": (NUMBERS / 7).astype(str)}))

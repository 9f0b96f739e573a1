"""ComBat: the published formulas, effects that are known, what it refuses, and folds."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmdls import MMDLS, ComBat, Trainer
from mmdls.datasets import make_nsclc_cohort


def by_formulas(X, site, covariates=None, reference=None):
    """Johnson, Li and Rabinovic 2007, sections 3.1 to 3.3, one number at a time."""
    sites = list(np.unique(site))
    n_patients, n_columns = X.shape
    design = np.array([[float(s == one) for one in sites] for s in site])
    if covariates is not None:
        design = np.hstack([design, covariates])
    beta = np.linalg.solve(design.T @ design, design.T @ X)
    sizes = [np.sum(site == one) for one in sites]
    if reference is None:
        alpha = sum(size / n_patients * beta[i] for i, size in enumerate(sizes))
        used = np.ones(n_patients, dtype=bool)
    else:
        alpha = beta[sites.index(reference)]
        used = site == reference
    expected = np.tile(alpha, (n_patients, 1))
    if covariates is not None:
        expected = expected + covariates @ beta[len(sites) :]
    sigma = np.sqrt(((X - design @ beta)[used] ** 2).mean(axis=0))
    Z, out = (X - expected) / sigma, X.copy()
    for i, one in enumerate(sites):
        if one == reference:
            continue
        z = Z[site == one]
        gamma_hat, delta_hat = z.mean(axis=0), z.var(axis=0, ddof=1)
        gamma_bar, tau2 = gamma_hat.mean(), gamma_hat.var(ddof=1)
        v, s2 = delta_hat.mean(), delta_hat.var(ddof=1)
        lam, theta = (v**2 + 2 * s2) / s2, (v**3 + v * s2) / s2
        for g in range(n_columns):
            gamma, delta = gamma_hat[g], delta_hat[g]
            for _ in range(500):
                gamma = (sizes[i] * tau2 * gamma_hat[g] + delta * gamma_bar) / (sizes[i] * tau2 + delta)
                delta = (theta + 0.5 * ((z[:, g] - gamma) ** 2).sum()) / (sizes[i] / 2 + lam - 1)
            adjusted = sigma[g] / np.sqrt(delta) * (z[:, g] - gamma) + expected[site == one, g]
            out[site == one, g] = adjusted
    return out


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    site = rng.permutation(np.repeat(["a", "b", "c"], [20, 30, 40]))
    age, sex = rng.normal(60, 8, 90), rng.integers(0, 2, 90)
    X = rng.normal(size=(90, 7)) * rng.uniform(0.5, 3, 7) + age[:, None] * rng.normal(size=7) * 0.1
    X[site == "b"] += rng.normal(1, 0.5, 7)
    X[site == "c"] *= 1.7
    table = pd.DataFrame(X, columns=[f"radiomics_{i}" for i in range(7)])
    return table.assign(clinical_age=age, clinical_sex=np.where(sex, "male", "female"), centre=site)


def radiomics(table):
    return table.filter(like="radiomics_").to_numpy()


@pytest.mark.parametrize("reference", [None, "b"])
@pytest.mark.parametrize("covariates", [(), ("clinical_age", "clinical_sex")])
def test_it_equals_the_published_formulas(data, covariates, reference):
    found = ComBat(covariates=covariates, reference=reference).fit_transform(data)
    protected = np.column_stack([data["clinical_age"], data["clinical_sex"] == "male"]) if covariates else None
    expected = by_formulas(radiomics(data), data["centre"].to_numpy(), protected, reference)
    np.testing.assert_allclose(radiomics(found), expected, rtol=1e-9, atol=1e-9)
    if reference:
        same = data["centre"] == reference
        np.testing.assert_array_equal(radiomics(found)[same], radiomics(data)[same])


def test_columns_that_are_not_harmonised_pass_and_the_centre_goes(data):
    found = ComBat().fit(data).transform(data)
    pd.testing.assert_frame_equal(found[["clinical_age", "clinical_sex"]], data[["clinical_age", "clinical_sex"]])
    assert list(found.columns) == [c for c in data.columns if c != "centre"]
    chosen = ComBat(columns=["radiomics_1", "radiomics_3"]).fit(data)
    assert chosen.harmonised_ == ["radiomics_1", "radiomics_3"]
    assert list(chosen.get_feature_names_out()) == list(found.columns)
    assert (chosen.transform(data)["radiomics_0"] == data["radiomics_0"]).all()


def test_known_effects_are_removed_and_those_of_covariates_kept():
    rng = np.random.default_rng(1)
    n, columns = 3000, [f"radiomics_{i}" for i in range(5)]
    old = rng.integers(0, 2, n)
    site = (rng.random(n) < 0.2 + 0.6 * old).astype(int)  # the second centre has older patients
    noise = rng.normal(size=(n, 5))
    measured = 2.0 * old[:, None] + 3.0 * site[:, None] + noise * (1 + site[:, None])
    X = pd.DataFrame(measured, columns=columns).assign(clinical_old=old)
    kept = ComBat(covariates=["clinical_old"]).fit_transform(X, site=site)[columns].to_numpy()
    lost = ComBat().fit_transform(X, site=site)[columns].to_numpy()
    groups = {(s, o): (site == s) & (old == o) for s in (0, 1) for o in (0, 1)}
    for one in (0, 1):
        age = kept[groups[one, 1]].mean(axis=0) - kept[groups[one, 0]].mean(axis=0)
        assert np.abs(age - 2).max() < 0.35
        centre = kept[groups[1, one]].mean(axis=0) - kept[groups[0, one]].mean(axis=0)
        assert np.abs(centre).max() < 0.25
    spread = [kept[rows].std(axis=0) for rows in groups.values()]
    assert np.ptp(spread, axis=0).max() < 0.3
    # Without the covariate the mean of the older centre is taken for an effect of the centre.
    means = [lost[site == one].mean(axis=0) for one in (0, 1)]
    assert np.abs(means[0] - means[1]).max() < 0.1
    age = lost[old == 1].mean(axis=0) - lost[old == 0].mean(axis=0)
    assert (age < 1.6).all()


def test_without_shrinkage_every_centre_has_the_same_mean_and_deviation(data):
    found = radiomics(ComBat(empirical_bayes=False).fit_transform(data))
    groups = [found[data["centre"] == site] for site in "abc"]
    for group in groups[1:]:
        np.testing.assert_allclose(group.mean(axis=0), groups[0].mean(axis=0))
        np.testing.assert_allclose(group.std(axis=0, ddof=1), groups[0].std(axis=0, ddof=1))


def test_missing_values_stay_missing_and_the_others_do_not_depend_on_what_stands_there(data):
    X = data.copy()
    X.loc[::7, "radiomics_2"] = np.nan
    found = ComBat(empirical_bayes=False).fit_transform(X)
    assert (found["radiomics_2"].isna() == X["radiomics_2"].isna()).all()
    measured = X["radiomics_2"].notna()
    alone = ComBat(empirical_bayes=False).fit_transform(X[measured])
    np.testing.assert_allclose(found.loc[measured, "radiomics_2"], alone["radiomics_2"])
    shrunk = ComBat().fit_transform(X)
    assert shrunk.drop(columns="clinical_sex").notna().equals(X.drop(columns=["clinical_sex", "centre"]).notna())


def test_constant_columns_stay_and_those_that_tell_the_centre_are_refused(data):
    X = data.assign(radiomics_7=3.25)
    found = ComBat().fit_transform(X)
    assert (found["radiomics_7"] == 3.25).all()
    np.testing.assert_allclose(radiomics(found)[:, :7], radiomics(ComBat().fit_transform(data)))
    with pytest.raises(ValueError, match=r"\['radiomics_7'\] vary, but not within any centre"):
        ComBat().fit(data.assign(radiomics_7=data["centre"].map({"a": 1.0, "b": 2.0, "c": 0.0})))
    within = np.where(data["centre"] == "a", 1.0, data["radiomics_0"])
    with pytest.raises(ValueError, match=r"\['radiomics_7'\] vary, but not within the reference 'a'"):
        ComBat(reference="a").fit(data.assign(radiomics_7=within))


def test_centres_that_fit_does_not_know(data):
    train, test = data[data["centre"] != "c"], data[data["centre"] == "c"]
    model = ComBat().fit(train)
    with pytest.raises(ValueError, match=r"the centres \['c'\] were not in fit, which knows \['a', 'b'\]"):
        model.transform(test)
    with pytest.warns(UserWarning, match="their values stay as they are"):
        kept = model.set_params(unseen="keep").transform(data)
    same = data["centre"] == "c"
    np.testing.assert_array_equal(radiomics(kept)[same], radiomics(data)[same])
    np.testing.assert_array_equal(radiomics(kept)[~same], radiomics(model.transform(train)))


@pytest.mark.parametrize(("columns", "shrunk"), [(slice(1, 2), False), (slice(0, 7), False), (slice(0, 7), True)])
def test_a_centre_that_measures_the_same_of_everybody_has_no_scale(data, columns, shrunk):
    X = data.copy()
    names = [f"radiomics_{i}" for i in range(7)][columns]
    X.loc[X["centre"] == "a", names] = 0.1  # whose mean is rounded
    with pytest.raises(ValueError, match="the centre 'a' has the same value for all patients in the columns"):
        ComBat(empirical_bayes=shrunk).fit(X)


def test_a_centre_with_one_patient(data):
    X = pd.concat([data, data.iloc[:1].assign(centre="d")], ignore_index=True)
    with pytest.raises(ValueError, match=r"the centres \['d'\] have one patient each in fit"):
        ComBat().fit(X)
    with pytest.warns(UserWarning, match="one patient"):
        model = ComBat(unseen="keep").fit(X)
    with pytest.warns(UserWarning, match="'d'"):
        found = model.transform(X)
    np.testing.assert_array_equal(radiomics(found)[-1], radiomics(X)[-1])
    np.testing.assert_array_equal(radiomics(found)[:-1], radiomics(ComBat().fit_transform(data)))


def test_a_column_that_a_centre_never_measured(data):
    X = data.copy()
    X.loc[X["centre"] == "a", "radiomics_0"] = np.nan
    model = ComBat().fit(X)
    assert np.isnan(model.effects_.shift[0, 0]) and np.isfinite(model.effects_.shift[1:]).all()
    assert model.transform(X)["radiomics_0"].notna().equals(X["radiomics_0"].notna())
    with pytest.raises(ValueError, match=r"fewer than two values of the columns \['radiomics_0'\] in fit"):
        model.transform(data)
    with pytest.warns(UserWarning, match="stay as they are"):
        kept = model.set_params(unseen="keep").transform(data)
    same = data["centre"] == "a"
    np.testing.assert_array_equal(kept.loc[same, "radiomics_0"], data.loc[same, "radiomics_0"])


def test_the_only_value_of_a_centre_has_no_say(data):
    X, gone = data.copy(), data.copy()
    rows = np.flatnonzero(data["centre"] == "a")
    X.loc[rows[1:], "radiomics_0"] = np.nan
    X.loc[rows[0], "radiomics_0"] = 1e6
    gone.loc[rows, "radiomics_0"] = np.nan
    alone, without = (ComBat().fit(table).effects_ for table in (X, gone))
    np.testing.assert_allclose(alone.shift, without.shift)
    np.testing.assert_allclose(alone.deviation, without.deviation)


def test_a_covariate_is_not_harmonised(data):
    for columns in (None, "radiomics"):
        model = ComBat(columns=columns, covariates=["radiomics_0"]).fit(data)
        assert model.harmonised_ == [f"radiomics_{i}" for i in range(1, 7)]
        assert (model.transform(data)["radiomics_0"] == data["radiomics_0"]).all()


def test_a_patient_alone_and_the_order_of_rows_and_codes_of_centres(data):
    model = ComBat().fit(data)
    together = model.transform(data)
    pd.testing.assert_frame_equal(model.transform(data.iloc[[5]]), together.iloc[[5]])
    order = np.random.default_rng(0).permutation(len(data))
    shuffled = ComBat().fit_transform(data.iloc[order])
    np.testing.assert_allclose(radiomics(shuffled), radiomics(together)[order])
    codes = data["centre"].map({"a": 1, "b": 2, "c": 3})
    X = data.drop(columns="centre")
    numbers = ComBat(reference=2.0).fit(X, site=codes).transform(X, site=codes.astype(str))
    np.testing.assert_allclose(radiomics(numbers), radiomics(ComBat(reference="b").fit_transform(data)))
    # A Series is joined by patient id.
    named = ComBat().fit(X, site=data["centre"].iloc[order]).transform(X, site=data["centre"])
    np.testing.assert_allclose(radiomics(named), radiomics(together))


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (lambda X: X.drop(columns="centre"), {}, "ComBat needs the centre of each patient: pass site="),
        (lambda X: X.assign(centre=X["centre"].where(X.index != 3)), {}, r"the centre of the patients \[3\]"),
        (lambda X: X.assign(centre=X["centre"].where(X.index != 3).map(str)), {}, r"the centre of the patients \[3\]"),
        (lambda X: X, {"covariates": ["clinical_bmi"]}, r"X lacks the covariates \['clinical_bmi'\]"),
        (
            lambda X: X.assign(clinical_age=X["clinical_age"].where(X.index != 3)),
            {"covariates": ["clinical_age"]},
            r"the covariate 'clinical_age' is missing for the patients \[3\]",
        ),
        (
            lambda X: X.assign(clinical_tube=X["centre"].map({"a": "x", "b": "x", "c": "y"})),
            {"covariates": ["clinical_tube"]},
            "effects of centre and covariates cannot be told apart",
        ),
        (lambda X: X, {"columns": ["radiomics_1"]}, r"1 of 1 feature\(s\) that vary; empirical Bayes"),
        (lambda X: X, {"columns": ["clinical_sex"]}, r"the columns \['clinical_sex'\] hold something else"),
        (lambda X: X[["clinical_age", "centre"]], {}, "X has no column to harmonise"),
        (lambda X: X, {"reference": "z"}, "reference='z' needs centres"),
        (lambda X: X.assign(radiomics_1=np.inf), {}, "infinity"),
        (lambda X: X, {"unseen": "guess"}, "unseen"),
    ],
)
def test_what_is_refused(data, change, params, message):
    with pytest.raises(ValueError, match=message):
        ComBat(**params).fit(change(data))


def test_sites_in_two_dimensions_are_refused(data):
    for site in (data[["centre"]], np.repeat(data[["centre"]].to_numpy(), 2, axis=1)):
        with pytest.raises(ValueError, match=rf"one centre a patient, in one dimension .* \({len(data)}, "):
            ComBat().fit(data, site=site)


def test_a_new_category_of_a_covariate_is_refused(data):
    model = ComBat(covariates=["clinical_sex"]).fit(data)
    with pytest.raises(ValueError, match="'clinical_sex' has categories that were not in fit"):
        model.transform(data.assign(clinical_sex="unknown"))


def test_one_centre_is_left_as_it_is(data):
    X = data[data["centre"] == "a"]
    with pytest.warns(UserWarning, match="nothing to harmonise"):
        found = ComBat().fit_transform(X)
    np.testing.assert_array_equal(radiomics(found), radiomics(X))


def test_routed_in_a_pipeline_it_is_fitted_in_each_fold(data):
    y = (data["radiomics_1"] + data["clinical_age"] / 20 > 3.2).to_numpy()
    X, site = data.filter(like="radiomics_"), data["centre"]
    folds = list(KFold(3, shuffle=True, random_state=0).split(X))
    with sklearn.config_context(enable_metadata_routing=True):
        combat = ComBat().set_fit_request(site=True).set_transform_request(site=True)
        model = make_pipeline(combat, StandardScaler(), LogisticRegression())
        found = cross_validate(model, X, y, cv=folds, params={"site": site}, error_score="raise", return_estimator=True)
    for (train, test), fitted, score in zip(folds, found["estimator"], found["test_score"], strict=True):
        alone = ComBat().fit(X.iloc[train], site=site.iloc[train])
        np.testing.assert_array_equal(fitted[0].effects_.shift, alone.effects_.shift)
        rest = make_pipeline(StandardScaler(), LogisticRegression())
        rest.fit(alone.transform(X.iloc[train], site=site.iloc[train]), y[train])
        assert score == rest.score(alone.transform(X.iloc[test], site=site.iloc[test]), y[test])


def test_a_column_of_the_table_needs_no_routing(data):
    X, y = data.drop(columns="clinical_sex"), data["clinical_age"]
    model = make_pipeline(ComBat(), Ridge())
    scores = cross_validate(model, X, y, cv=3, scoring="r2", error_score="raise")["test_score"]
    assert np.isfinite(scores).all()


def test_outcomes_are_never_read(data):
    noise = np.random.default_rng(0).normal(size=len(data))
    np.testing.assert_array_equal(
        radiomics(ComBat().fit(data, noise).transform(data)), radiomics(ComBat().fit(data).transform(data))
    )


@pytest.mark.filterwarnings("ignore")
def test_in_front_of_a_multimodal_model_images_pass():
    X, y = make_nsclc_cohort(30, n_slices=1, image_size=16, n_radiomics=4, return_X_y=True, random_state=0)
    X = X.assign(centre=np.where(np.arange(30) % 2, "A", "B"))
    model = make_pipeline(ComBat(), MMDLS(trainer=Trainer(max_epochs=1), random_state=0)).fit(X, y)
    assert "lesion_image" in model[-1].feature_names_in_ and len(model.predict(X)) == 30


def test_refusals_name_the_column_of_centres_and_repeated_ones():
    X = pd.DataFrame({"radiomics_0": np.arange(8.0), "centre": ["A", "B"] * 4})
    with pytest.raises(ValueError, match="column 'centre' holds a bytes"):
        ComBat().fit(X.assign(centre=X["centre"].map(str.encode)))
    with pytest.raises(ValueError, match=r"X has the columns \['radiomics_0'\] more than once"):
        ComBat().fit(pd.concat([X, X[["radiomics_0"]]], axis=1))
